package server

import (
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestSotWClientsAreServedToo(t *testing.T) {
	ca := newAuthority(t, "jia.app")
	r := startReplica(t, ca)
	r.set(payKey, "/pay", rendered([]string{"a", "b"}, []string{"in"}))
	conn := r.dial(ca.issue("/pay", time.Hour))
	open := func() discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesClient {
		stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return stream
	}
	stream := open()
	ask := func(q *discoveryv3.DiscoveryRequest) {
		if err := stream.Send(q); err != nil {
			t.Fatal(err)
		}
	}
	versions := map[string]string{}
	receive := func(typeURL string, resources int, names ...string) {
		t.Helper()
		got, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if got.GetTypeUrl() != typeURL || len(got.GetResources()) != resources {
			t.Fatalf("got %d of %s, want %d of %s", len(got.GetResources()), got.GetTypeUrl(), resources, typeURL)
		}
		versions[typeURL] = got.GetVersionInfo()
		ask(&discoveryv3.DiscoveryRequest{TypeUrl: typeURL, VersionInfo: got.GetVersionInfo(), ResponseNonce: got.GetNonce(), ResourceNames: names})
	}
	node := &corev3.Node{Id: payKey.NodeID("pay-1")}
	ask(&discoveryv3.DiscoveryRequest{Node: node, TypeUrl: resource.ClusterType})
	receive(resource.ClusterType, 2)
	ask(&discoveryv3.DiscoveryRequest{TypeUrl: resource.EndpointType, ResourceNames: []string{"b@1"}})
	receive(resource.EndpointType, 1, "b@1")
	ask(&discoveryv3.DiscoveryRequest{TypeUrl: resource.ListenerType})
	receive(resource.ListenerType, 1)
	ask(&discoveryv3.DiscoveryRequest{TypeUrl: resource.RouteType, ResourceNames: []string{"in-routes"}})
	receive(resource.RouteType, 1, "in-routes")
	eventuallyProxies(t, r, payKey, Proxy{Pod: "pay-1", Synced: true})
	r.set(payKey, "/pay", rendered([]string{"a"}, []string{"in"}))
	receive(resource.ClusterType, 1)
	eventuallyProxies(t, r, payKey, Proxy{Pod: "pay-1", Synced: true})
	_ = stream.CloseSend()

	stream = open()
	ask(&discoveryv3.DiscoveryRequest{Node: node, TypeUrl: resource.ClusterType, VersionInfo: versions[resource.ClusterType]})
	ask(&discoveryv3.DiscoveryRequest{Node: node, TypeUrl: resource.ListenerType, VersionInfo: versions[resource.ListenerType]})
	ask(&discoveryv3.DiscoveryRequest{TypeUrl: resource.RouteType, ResourceNames: []string{"in-routes"}})
	got, err := stream.Recv() // of clusters and listeners it has all
	if err != nil || got.GetTypeUrl() != resource.RouteType {
		t.Fatalf("got %v, %v", got, err)
	}
	ask(&discoveryv3.DiscoveryRequest{TypeUrl: resource.RouteType, ResourceNames: []string{"in-routes"}, VersionInfo: "x", ResponseNonce: got.GetNonce(), ErrorDetail: status.New(codes.Internal, "no").Proto()})
	eventuallyProxies(t, r, payKey, Proxy{Pod: "pay-1", NACK: &NACK{TypeURL: resource.RouteType, Message: "no", Resources: []string{"in-routes"}}})
	next := rendered([]string{"a"}, []string{"in"})
	next.Routes[0] = newRoutes("in-routes", "b.test")
	r.set(payKey, "/pay", next)
	receive(resource.RouteType, 1, "in-routes")
	eventuallyProxies(t, r, payKey, Proxy{Pod: "pay-1", Synced: true})
}
