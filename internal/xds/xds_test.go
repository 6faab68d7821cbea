package xds_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/testing/protocmp"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	transcoderv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_json_transcoder/v3"

	"github.com/jia-app/paymesh/internal/descriptor"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/xds"
)

var (
	caller = mesh.Service{
		Key: types.NamespacedName{Namespace: "payments", Name: "payment-service"}, ID: spiffeid.RequireFromString("spiffe://jia.app/payment-service"),
		Upstreams: []mesh.Upstream{contacts("contacts", 50051), contacts("contacts-too", 50052)},
	}
	theMesh = mesh.Mesh{Cluster: mesh.ClusterID{TrustDomain: spiffeid.RequireTrustDomainFromString("jia.app"), Name: "main"}}
)

func contacts(name string, localPort int32) mesh.Upstream {
	u := mesh.Upstream{
		Name: name, Service: types.NamespacedName{Namespace: "people", Name: "contact-service"}, ID: spiffeid.RequireFromString("spiffe://jia.app/contact-service"),
		PortName: "grpc", MeshPort: mesh.FirstMeshPort, LocalPort: localPort,
	}
	u.Timeout.Duration = time.Second
	return u
}

func TestAnAssignmentHasEachAddressOnceAndSorted(t *testing.T) {
	ref := xds.EndpointRef{Name: "people/contact-service/grpc@1"}
	a, b := netip.MustParseAddrPort("10.0.0.1:15443"), netip.MustParseAddrPort("10.0.0.2:15443")
	got := xds.Assignment(ref, []netip.AddrPort{b, a, b})
	var at []string
	for _, e := range got.GetEndpoints()[0].GetLbEndpoints() {
		socket := e.GetEndpoint().GetAddress().GetSocketAddress()
		at = append(at, netip.AddrPortFrom(netip.MustParseAddr(socket.GetAddress()), uint16(socket.GetPortValue())).String())
	}
	if want := []string{a.String(), b.String()}; !slices.Equal(at, want) || got.GetClusterName() != ref.Name {
		t.Errorf("got %s at %q, want %q", got.GetClusterName(), at, want)
	}
	if xds.Hash(got) != xds.Hash(xds.Assignment(ref, []netip.AddrPort{a, b})) {
		t.Error("the order of addresses makes another version")
	}
	empty := &endpointv3.ClusterLoadAssignment{ClusterName: ref.Name}
	if diff := cmp.Diff(empty, xds.Assignment(ref, nil), protocmp.Transform()); diff != "" {
		t.Errorf("without addresses (-want +got):\n%s", diff)
	}
}

func TestUpstreamsOfOnePortShareACluster(t *testing.T) {
	r := xds.Sidecar(caller)
	if len(r.Clusters) != 1 || len(r.Endpoints) != 1 || len(r.Routes) != 2 {
		t.Errorf("%d clusters, %d assignments and %d routes", len(r.Clusters), len(r.Endpoints), len(r.Routes))
	}
}

func TestAChangedClusterAsksForOtherEndpoints(t *testing.T) {
	before := xds.Sidecar(caller)
	changed := caller
	changed.Upstreams = slices.Clone(caller.Upstreams)
	for i := range changed.Upstreams {
		changed.Upstreams[i].ID = spiffeid.RequireFromString("spiffe://jia.app/another")
	}
	after := xds.Sidecar(changed)
	if before.Endpoints[0].Name == after.Endpoints[0].Name || before.Endpoints[0].Key != after.Endpoints[0].Key {
		t.Errorf("before %v, after %v", before.Endpoints[0], after.Endpoints[0])
	}
	if after.Clusters[0].GetEdsClusterConfig().GetServiceName() != after.Endpoints[0].Name {
		t.Errorf("the cluster asks for %s", after.Clusters[0].GetEdsClusterConfig().GetServiceName())
	}
}

func TestAVersionIsThatOfWhatAProxyMustAccept(t *testing.T) {
	before, slower := xds.Sidecar(caller), caller
	slower.Upstreams = slices.Clone(caller.Upstreams)
	slower.Upstreams[0].Timeout.Duration = time.Minute
	after := xds.Sidecar(slower)
	if before.Version() == after.Version() || len(before.Version()) != 16 {
		t.Errorf("a timeout is changed, and the version is %s before and %s after", before.Version(), after.Version())
	}
	for typeURL, versions := range before.Versions() {
		for name, version := range versions {
			changed := after.Versions()[typeURL][name] != version
			if want := strings.HasSuffix(typeURL, ".RouteConfiguration") && name == "outbound/contacts"; changed != want {
				t.Errorf("%s %s: changed is %v", typeURL, name, changed)
			}
		}
	}
}

func TestABootstrapNamesNoPod(t *testing.T) {
	o := xds.BootstrapOptions{Cluster: theMesh.Cluster, XDSAddress: "manager.paymesh.svc:18000", WorkloadAPI: "unix:///run/agent.sock"}
	var bootstrap map[string]any
	if err := yaml.Unmarshal([]byte(xds.SidecarFiles(caller, o)["envoy.yaml"]), &bootstrap); err != nil {
		t.Fatal(err)
	}
	if bootstrap["node"] != nil {
		t.Errorf("node is %v: it comes by the command line, for the file is shared", bootstrap["node"])
	}
}

func TestWhereExposuresShareAHostNameEachRouteHasTheDescriptorsOfItsMethod(t *testing.T) {
	const filter = "envoy.filters.http.grpc_json_transcoder"
	route := func(name string, hostnames ...string) mesh.Route {
		return mesh.Route{
			Service: caller.Key, Name: name, ID: caller.ID, PortName: "grpc", Hostnames: hostnames, JWT: "users", Transcode: true, Descriptors: []byte("of " + name),
			Methods: []mesh.Method{{Service: "shop.v1.Shop", Name: "Get", Bindings: []descriptor.Binding{{HTTPMethod: "GET", Template: descriptor.NormalTemplate("/v1/" + name)}}, Descriptors: []byte("of a method of " + name)}},
		}
	}
	r := xds.Gateway(mesh.Gateway{
		ID: caller.ID, Listeners: []mesh.GatewayListener{{Name: "https", TargetPort: mesh.FirstGatewayPort}},
		Routes: []mesh.Route{route("a", "a.example.com", "shared.example.com"), route("b", "shared.example.com")},
	})

	alone, shared := r.Routes[0].GetVirtualHosts()[0], r.Routes[0].GetVirtualHosts()[1]
	if got := unpack(t, alone.GetTypedPerFilterConfig()[filter], &transcoderv3.GrpcJsonTranscoder{}); string(got.GetProtoDescriptorBin()) != "of a" || !slices.Equal(got.GetServices(), []string{"shop.v1.Shop"}) {
		t.Errorf("alone: %v", got)
	}
	if alone.GetRoutes()[0].GetTypedPerFilterConfig()[filter] != nil || shared.GetTypedPerFilterConfig() != nil {
		t.Error("descriptors are there twice")
	}
	for i, name := range []string{"a", "b"} {
		got := unpack(t, shared.GetRoutes()[i].GetTypedPerFilterConfig()[filter], &transcoderv3.GrpcJsonTranscoder{})
		if string(got.GetProtoDescriptorBin()) != "of a method of "+name || !slices.Equal(got.GetServices(), []string{"shop.v1.Shop"}) {
			t.Errorf("%s: %v", name, got)
		}
	}
}
