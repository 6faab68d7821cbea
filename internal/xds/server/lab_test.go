package server

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"k8s.io/apimachinery/pkg/types"

	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/xds"
	"github.com/jia-app/paymesh/test/lab"
)

const within = 10 * time.Second

var (
	payKey     = mesh.ProxyKey{Kind: mesh.KindMeshService, NamespacedName: types.NamespacedName{Namespace: "payments", Name: "pay"}}
	otherKey   = mesh.ProxyKey{Kind: mesh.KindMeshService, NamespacedName: types.NamespacedName{Namespace: "people", Name: "contact"}}
	contactKey = mesh.EndpointKey{Service: types.NamespacedName{Namespace: "people", Name: "contact"}, PortName: "grpc"}
)

// replica is a running server of a manager's replica.
type testReplica struct {
	*Server
	t       testing.TB
	ca      domain
	metrics *prometheus.Registry
	stop    func()

	mu  sync.Mutex
	log []string
}

func startReplica(t testing.TB, ca domain) *testReplica {
	t.Helper()
	r := &testReplica{t: t, ca: ca, metrics: prometheus.NewRegistry()}
	cluster := mesh.ClusterID{TrustDomain: ca.TrustDomain, Name: "test"}
	log := funcr.New(func(_, args string) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.log = append(r.log, args)
	}, funcr.Options{})
	r.Server = New(Options{Address: "127.0.0.1:0", Source: ca.issue(cluster.OperatorID().Path(), time.Hour), Cluster: cluster, Log: log, Registerer: r.metrics})
	r.run()
	return r
}

func (r *testReplica) run() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Start(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			r.t.Errorf("the server ended with %v", err)
		}
	})
	r.t.Cleanup(r.stop)
	lab.Eventually(r.t, within, func() error { return r.Ready(nil) })
}

func (r *testReplica) refused(reason string) int {
	return int(testutil.ToFloat64(r.Server.metrics.refused.WithLabelValues(reason)))
}

// logged says whether some line of the log has all of these.
func (r *testReplica) logged(parts ...string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.log, func(line string) bool {
		return !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(line, part) })
	})
}

// dial connects a workload.
func (r *testReplica) dial(as *source, options ...grpc.DialOption) *grpc.ClientConn {
	r.t.Helper()
	options = append(options, grpc.WithTransportCredentials(credentials.NewTLS(as.tls(r.options.Cluster.OperatorID()))))
	conn, err := grpc.NewClient("passthrough:///"+r.Address(), options...)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// eventuallyProxies waits for what is reported of an object.
func eventuallyProxies(t testing.TB, of interface{ Proxies(mesh.ProxyKey) []Proxy }, key mesh.ProxyKey, want ...Proxy) {
	t.Helper()
	lab.Eventually(t, within, func() error {
		if got := of.Proxies(key); !slices.EqualFunc(got, want, Proxy.equal) {
			return fmt.Errorf("proxies of %s are %s, want %s", key, show(got), show(want))
		}
		return nil
	})
}

func show(proxies []Proxy) (text string) {
	for _, p := range proxies {
		text += fmt.Sprintf("[%s synced=%t nack=%+v]", p.Pod, p.Synced, p.NACK)
	}
	return text
}

// proxy is a delta ADS client that does what Envoy does: it applies and acknowledges, or rejects.
type proxy struct {
	t      testing.TB
	stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	node   string
	// got has every response once it was acknowledged.
	got   chan *discoveryv3.DeltaDiscoveryResponse
	ended chan error

	mu sync.Mutex
	// has are the versions that it holds, by type and name.
	has map[string]map[string]string
	// reject says why it rejects a resource.
	reject func(*discoveryv3.Resource) string
	silent bool
}

// connect opens a stream as Envoy does, with what it has from an earlier one.
func connect(t testing.TB, conn *grpc.ClientConn, node string, has map[string]map[string]string) *proxy {
	t.Helper()
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if has == nil {
		has = map[string]map[string]string{}
	}
	p := &proxy{t: t, stream: stream, node: node, has: has, got: make(chan *discoveryv3.DeltaDiscoveryResponse, 1000), ended: make(chan error, 1)}
	go p.receive()
	return p
}

// subscribe asks for all listeners and clusters, and for the endpoints and routes of these names.
func (p *proxy) subscribe(endpoints, routes []string) *proxy {
	node, has := &corev3.Node{Id: p.node}, p.versions() // the node ID comes with the first request only
	for _, typeURL := range order {
		r := &discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: typeURL, InitialResourceVersions: has[typeURL]}
		switch typeURL {
		case resource.EndpointType:
			r.ResourceNamesSubscribe = endpoints
		case resource.RouteType:
			r.ResourceNamesSubscribe = routes
		}
		node = nil
		p.send(r)
	}
	return p
}

func (p *proxy) send(r *discoveryv3.DeltaDiscoveryRequest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.stream.Send(r) // that the stream has ended, receive says
}

func (p *proxy) receive() {
	for {
		r, err := p.stream.Recv()
		if err != nil {
			p.ended <- err
			return
		}
		if p.answer(r) {
			p.got <- r
		}
	}
}

// answer applies what it can, as Envoy does with listeners and clusters, and keeps the versions if it could all.
func (p *proxy) answer(r *discoveryv3.DeltaDiscoveryResponse) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	ack := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()}
	for _, one := range r.GetResources() {
		if p.reject == nil {
			break
		}
		if why := p.reject(one); why != "" {
			ack.ErrorDetail = &rpcstatus.Status{Code: 13, Message: why}
		}
	}
	if ack.GetErrorDetail() == nil {
		has := p.has[r.GetTypeUrl()]
		if has == nil {
			has = map[string]string{}
			p.has[r.GetTypeUrl()] = has
		}
		for _, one := range r.GetResources() {
			has[one.GetName()] = one.GetVersion()
		}
		for _, name := range r.GetRemovedResources() {
			delete(has, name)
		}
	}
	if !p.silent {
		_ = p.stream.Send(ack)
	}
	return true
}

// versions are those that it holds now.
func (p *proxy) versions() map[string]map[string]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	has := map[string]map[string]string{}
	for typeURL, of := range p.has {
		has[typeURL] = maps.Clone(of)
	}
	return has
}

// rejects says from now on which resources it rejects, and why.
func (p *proxy) rejects(why func(*discoveryv3.Resource) string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reject = why
}

// next is the next response.
func (p *proxy) next() *discoveryv3.DeltaDiscoveryResponse {
	p.t.Helper()
	select {
	case r := <-p.got:
		return r
	case err := <-p.ended:
		p.t.Fatalf("the stream ended: %v", err)
	case <-time.After(within):
		p.t.Fatal("nothing comes")
	}
	return nil
}

// wantNext checks what the next responses are, each as "Cluster a b -c".
func (p *proxy) wantNext(want ...string) {
	p.t.Helper()
	for _, w := range want {
		if got := describe(p.next()); got != w {
			p.t.Fatalf("got %q, want %q", got, w)
		}
	}
}

func describe(r *discoveryv3.DeltaDiscoveryResponse) string {
	text := typeName(r.GetTypeUrl())
	for _, one := range r.GetResources() {
		text += " " + one.GetName()
	}
	for _, name := range r.GetRemovedResources() {
		text += " -" + name
	}
	return text
}

// wantEnd checks how the server ends the stream.
func (p *proxy) wantEnd() error {
	p.t.Helper()
	select {
	case err := <-p.ended:
		return err
	case <-time.After(within):
		p.t.Fatal("the stream goes on")
	}
	return nil
}

// rendered is a consistent set of resources: each cluster has endpoints of contact's port, each listener its routes.
func rendered(clusters, listeners []string) xds.Resources {
	var r xds.Resources
	for _, name := range clusters {
		r.Clusters = append(r.Clusters, newCluster(name))
		r.Endpoints = append(r.Endpoints, xds.EndpointRef{Name: name + "@1", Key: contactKey})
	}
	for i, name := range listeners {
		r.Listeners = append(r.Listeners, newListener(name, uint32(20000+i)))
		r.Routes = append(r.Routes, newRoutes(name+"-routes", "a.test"))
	}
	return r
}

func newCluster(name string) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name: name, ConnectTimeout: durationpb.New(time.Second),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{ServiceName: name + "@1", EdsConfig: adsSource()},
	}
}

func adsSource() *corev3.ConfigSource {
	return &corev3.ConfigSource{ResourceApiVersion: corev3.ApiVersion_V3, ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}}}
}

func newListener(name string, port uint32) *listenerv3.Listener {
	manager := &hcmv3.HttpConnectionManager{
		StatPrefix:     name,
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{RouteConfigName: name + "-routes", ConfigSource: adsSource()}},
		HttpFilters:    []*hcmv3.HttpFilter{{Name: "router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: mustAny(&routerv3.Router{})}}},
	}
	return &listenerv3.Listener{
		Name: name,
		Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address: "127.0.0.1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
		}}},
		FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{
			Name: "http", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: mustAny(manager)},
		}}}},
	}
}

func newRoutes(name string, domains ...string) *routev3.RouteConfiguration {
	return &routev3.RouteConfiguration{Name: name, VirtualHosts: []*routev3.VirtualHost{{Name: "all", Domains: domains}}}
}

func mustAny(m proto.Message) *anypb.Any {
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(err)
	}
	return &anypb.Any{TypeUrl: resource.APITypePrefix + string(m.ProtoReflect().Descriptor().FullName()), Value: body}
}

func (r *testReplica) set(key mesh.ProxyKey, path string, of xds.Resources) {
	r.t.Helper()
	if err := r.Set(key, r.ca.ID(path), of); err != nil {
		r.t.Fatal(err)
	}
}

func at(addresses ...string) []netip.AddrPort {
	var ports []netip.AddrPort
	for _, a := range addresses {
		ports = append(ports, netip.MustParseAddrPort(a))
	}
	return ports
}

var discard = logr.Discard()
