package server

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/xds"
	"github.com/jia-app/paymesh/test/lab"
)

func TestAProxyGetsItsConfigInOrderAndIsSyncedWhenItHasAcceptedIt(t *testing.T) {
	ca := newAuthority(t, "jia.app")
	r := startReplica(t, ca)
	r.SetEndpoints(contactKey, at("10.0.0.2:15443", "10.0.0.1:15443"))
	r.set(payKey, "/pay", rendered([]string{"contact"}, []string{"in"}))
	if got := r.Proxies(payKey); len(got) != 0 {
		t.Fatalf("proxies before any connected: %s", show(got))
	}
	p := connect(t, r.dial(ca.issue("/pay", time.Hour)), payKey.NodeID("pay-1"), nil).subscribe([]string{"contact@1"}, []string{"in-routes"})
	p.wantNext("Cluster contact", "ClusterLoadAssignment contact@1", "Listener in", "RouteConfiguration in-routes")
	eventuallyProxies(t, r, payKey, Proxy{Pod: "pay-1", Synced: true})

	changed := rendered([]string{"contact"}, []string{"in"})
	changed.Routes[0] = newRoutes("in-routes", "b.test")
	changed.Clusters[0].ConnectTimeout = durationpb.New(2 * time.Second)
	r.set(payKey, "/pay", changed)
	p.wantNext("Cluster contact", "RouteConfiguration in-routes")
	eventuallyProxies(t, r, payKey, Proxy{Pod: "pay-1", Synced: true})

	_ = p.stream.CloseSend()
	eventuallyProxies(t, r, payKey)
}

func TestTheSameContentSendsNothingAndEndpointsTravelAlone(t *testing.T) {
	ca := newAuthority(t, "jia.app")
	r := startReplica(t, ca)
	r.set(payKey, "/pay", rendered([]string{"contact"}, []string{"in"}))
	p := connect(t, r.dial(ca.issue("/pay", time.Hour)), payKey.NodeID("pay-1"), nil).subscribe([]string{"contact@1"}, []string{"in-routes"})
	p.wantNext("Cluster contact", "ClusterLoadAssignment contact@1", "Listener in", "RouteConfiguration in-routes")
	eventuallyProxies(t, r, payKey, Proxy{Pod: "pay-1", Synced: true})

	told := make(chan mesh.ProxyKey, 100)
	r.Notify(func(k mesh.ProxyKey) { told <- k })
	r.set(payKey, "/pay", rendered([]string{"contact"}, []string{"in"}))
	r.SetEndpoints(contactKey, nil)
	if len(told) > 0 {
		t.Error("told of a change where nothing changed")
	}
	// What comes first is of the endpoints, so that nothing came of what was the same.
	r.SetEndpoints(contactKey, at("10.0.0.1:15443"))
	p.wantNext("ClusterLoadAssignment contact@1")
	r.SetEndpoints(contactKey, at("10.0.0.1:15443", "10.0.0.1:15443"))
	r.SetEndpoints(mesh.EndpointKey{PortName: "unrelated"}, at("10.0.0.9:1"))
	r.SetEndpoints(contactKey, at("10.0.0.1:15443", "10.0.0.2:15443"))
	p.wantNext("ClusterLoadAssignment contact@1")
	r.SetEndpoints(contactKey, nil)
	p.wantNext("ClusterLoadAssignment contact@1")
	eventuallyProxies(t, r, payKey, Proxy{Pod: "pay-1", Synced: true})
}

func TestAProxyOfAnUnknownObjectWaitsAndIsBoundOnceItIsKnown(t *testing.T) {
	ca := newAuthority(t, "jia.app")
	r := startReplica(t, ca)
	right := connect(t, r.dial(ca.issue("/pay", time.Hour)), payKey.NodeID("pay-1"), nil).subscribe([]string{"contact@1"}, []string{"in-routes"})
	wrong := connect(t, r.dial(ca.issue("/else", time.Hour)), payKey.NodeID("pay-2"), nil).subscribe([]string{"contact@1"}, []string{"in-routes"})
	lab.Eventually(t, within, func() error {
		r.Server.mu.Lock()
		defer r.Server.mu.Unlock()
		if got := len(r.byKey[payKey]); got != 2 {
			return fmt.Errorf("%d streams wait", got)
		}
		return nil
	})
	if got := r.Proxies(payKey); len(got) > 0 {
		t.Errorf("waiting streams count as proxies: %s", show(got))
	}
	if len(right.got)+len(wrong.got) > 0 {
		t.Error("a waiting stream was sent something")
	}
	r.set(payKey, "/pay", rendered([]string{"contact"}, []string{"in"}))
	right.wantNext("Cluster contact", "ClusterLoadAssignment contact@1", "Listener in", "RouteConfiguration in-routes")
	if err := wrong.wantEnd(); status.Code(err) != codes.PermissionDenied {
		t.Errorf("the other one's stream ended with %v", err)
	}
	if len(wrong.got) > 0 {
		t.Error("the other one was sent something")
	}
	eventuallyProxies(t, r, payKey, Proxy{Pod: "pay-1", Synced: true})

	if n := testutil.ToFloat64(r.Server.metrics.objects); n != 1 {
		t.Errorf("%v objects are counted, want 1", n)
	}
	r.Remove(payKey)
	r.Remove(payKey) // which changes nothing
	if got, n := r.Proxies(payKey), testutil.ToFloat64(r.Server.metrics.objects); len(got) > 0 || n != 0 {
		t.Errorf("proxies of a removed object: %s; objects: %v", show(got), n)
	}
	r.set(payKey, "/pay", rendered([]string{"contact"}, []string{"in", "out"}))
	right.wantNext("Listener out")
}

func TestAnotherIDEndsTheStreamsOfTheOldOne(t *testing.T) {
	ca := newAuthority(t, "jia.app")
	r := startReplica(t, ca)
	r.set(payKey, "/pay", rendered([]string{"contact"}, nil))
	p := connect(t, r.dial(ca.issue("/pay", time.Hour)), payKey.NodeID("pay-1"), nil).subscribe([]string{"contact@1"}, nil)
	p.wantNext("Cluster contact")
	r.set(payKey, "/pay-2", rendered([]string{"contact", "secret"}, nil))
	if got := r.Proxies(payKey); len(got) > 0 {
		t.Errorf("proxies that have the old ID: %s", show(got))
	}
	r.SetEndpoints(contactKey, at("10.0.0.1:15443"))
	if err := p.wantEnd(); status.Code(err) != codes.PermissionDenied {
		t.Errorf("the stream ended with %v", err)
	}
	for len(p.got) > 0 {
		if text := describe(<-p.got); strings.Contains(text, "secret") {
			t.Errorf("the old ID was sent %s", text)
		}
	}
	if got := r.Proxies(payKey); len(got) > 0 {
		t.Errorf("proxies: %s", show(got))
	}
	p = connect(t, r.dial(ca.issue("/pay-2", time.Hour)), payKey.NodeID("pay-1"), nil).subscribe(nil, nil)
	p.wantNext("Cluster contact secret")
}

func TestAStreamEndsWithItsCertificate(t *testing.T) {
	ca := newAuthority(t, "jia.app")
	r := startReplica(t, ca)
	r.set(payKey, "/pay", rendered([]string{"contact"}, nil))
	p := connect(t, r.dial(ca.issue("/pay", 2*time.Second)), payKey.NodeID("pay-1"), nil).subscribe(nil, nil)
	p.wantNext("Cluster contact")
	_ = p.wantEnd()
	eventuallyProxies(t, r, payKey)
}

func TestARejectedResourceIsFoundAndHarmsNoOther(t *testing.T) {
	ca := newAuthority(t, "jia.app")
	r := startReplica(t, ca)
	names := []string{"a", "b", "c", "d", "e"}
	r.set(payKey, "/pay", rendered(names, nil))
	p := connect(t, r.dial(ca.issue("/pay", time.Hour)), payKey.NodeID("pay-1"), nil).subscribe(nil, nil)
	p.wantNext("Cluster a b c d e")
	for range 2 { // of listeners and, with no name subscribed to, nothing else
		if len(p.got) > 0 {
			<-p.got
		}
	}
	eventuallyProxies(t, r, payKey, Proxy{Pod: "pay-1", Synced: true})
	first := p.versions()[resource.ClusterType]

	const why = "this text names nothing"
	p.rejects(func(of *discoveryv3.Resource) string {
		c := &clusterv3.Cluster{}
		if err := of.GetResource().UnmarshalTo(c); err == nil && c.GetName() == "d" && c.GetConnectTimeout().GetSeconds() == 7 {
			return why
		}
		return ""
	})
	change := func(seconds int64, names ...string) xds.Resources {
		of := rendered([]string{"a", "b", "c", "d", "e"}, nil)
		for _, c := range of.Clusters {
			c.ConnectTimeout = durationpb.New(2 * time.Second)
			if slices.Contains(names, c.GetName()) {
				c.ConnectTimeout = &durationpb.Duration{Seconds: seconds}
			}
		}
		return of
	}
	bad := change(7, "d")
	r.set(payKey, "/pay", bad)
	skipListeners := func(want ...string) {
		t.Helper()
		for _, w := range want {
			text := describe(p.next())
			for text == "Listener" {
				text = describe(p.next())
			}
			if text != w {
				t.Fatalf("got %q, want %q", text, w)
			}
		}
	}
	skipListeners("Cluster a b c d e", "Cluster a b", "Cluster c d e", "Cluster c", "Cluster d e", "Cluster d", "Cluster e")
	eventuallyProxies(t, r, payKey, Proxy{Pod: "pay-1", NACK: &NACK{TypeURL: resource.ClusterType, Message: why, Resources: []string{"d"}}})
	if got := p.versions()[resource.ClusterType]["d"]; got != first["d"] {
		t.Error("the last good version of d is gone")
	}

	// The others go on, with no attempt at the bad one.
	other := change(7, "d")
	other.Clusters[0].ConnectTimeout = durationpb.New(9 * time.Second)
	r.set(payKey, "/pay", other)
	skipListeners("Cluster a")
	eventuallyProxies(t, r, payKey, Proxy{Pod: "pay-1", NACK: &NACK{TypeURL: resource.ClusterType, Message: why, Resources: []string{"d"}}})
	if n := len(p.got); n > 0 {
		t.Errorf("%d responses more: the rejected one is repeated", n)
	}
	r.set(payKey, "/pay", change(3, "d"))
	skipListeners("Cluster a d")
	eventuallyProxies(t, r, payKey, Proxy{Pod: "pay-1", Synced: true})
}

func TestAClusterStaysUntilTheRoutesAreAccepted(t *testing.T) {
	ca := newAuthority(t, "jia.app")
	r := startReplica(t, ca)
	r.set(payKey, "/pay", rendered([]string{"old"}, []string{"in"}))
	p := connect(t, r.dial(ca.issue("/pay", time.Hour)), payKey.NodeID("pay-1"), nil).subscribe(nil, []string{"in-routes"})
	p.wantNext("Cluster old", "Listener in", "RouteConfiguration in-routes")
	eventuallyProxies(t, r, payKey, Proxy{Pod: "pay-1", Synced: true})
	next := rendered([]string{"new"}, []string{"in"})
	next.Routes[0] = newRoutes("in-routes", "b.test")
	p.rejects(func(of *discoveryv3.Resource) string {
		if of.GetName() == "in-routes" {
			return "no"
		}
		return ""
	})
	r.set(payKey, "/pay", next)
	p.wantNext("Cluster new", "RouteConfiguration in-routes")
	eventuallyProxies(t, r, payKey, Proxy{Pod: "pay-1", NACK: &NACK{TypeURL: resource.RouteType, Message: "no", Resources: []string{"in-routes"}}})
	p.rejects(nil)
	better := rendered([]string{"new"}, []string{"in"})
	better.Routes[0] = newRoutes("in-routes", "c.test")
	r.set(payKey, "/pay", better)
	p.wantNext("RouteConfiguration in-routes", "Cluster -old")
	eventuallyProxies(t, r, payKey, Proxy{Pod: "pay-1", Synced: true})
}

func TestRoutesWaitForClustersButNotForEver(t *testing.T) {
	ca := newAuthority(t, "jia.app")
	r := startReplica(t, ca)
	r.clusterPatience = time.Hour
	r.set(payKey, "/pay", rendered([]string{"a"}, []string{"in"}))
	p := connect(t, r.dial(ca.issue("/pay", time.Hour)), payKey.NodeID("pay-1"), nil)
	p.silent = true
	p.subscribe([]string{"a@1"}, []string{"in-routes"})
	p.wantNext("Cluster a", "ClusterLoadAssignment a@1")
	lab.Eventually(t, within, func() error {
		r.Server.mu.Lock()
		defer r.Server.mu.Unlock()
		for st := range r.streams {
			if len(st.subscriptions) == len(order) {
				return nil
			}
		}
		return fmt.Errorf("not all is subscribed to")
	})
	if len(p.got) > 0 {
		t.Errorf("did not wait: %s", describe(<-p.got))
	}
	r.Server.mu.Lock()
	r.clusterPatience = time.Millisecond
	for st := range r.streams {
		st.awaitClusters()
	}
	r.Server.mu.Unlock()
	p.wantNext("Listener in", "RouteConfiguration in-routes")
}

func TestANewlySubscribedNameIsSentWhateverWasSentBefore(t *testing.T) {
	ca := newAuthority(t, "jia.app")
	r := startReplica(t, ca)
	r.set(payKey, "/pay", rendered([]string{"a"}, nil))
	p := connect(t, r.dial(ca.issue("/pay", time.Hour)), payKey.NodeID("pay-1"), nil).subscribe([]string{"a@1"}, nil)
	p.wantNext("Cluster a", "ClusterLoadAssignment a@1", "Listener")
	p.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resource.EndpointType, ResourceNamesSubscribe: []string{"a@1"}})
	p.wantNext("ClusterLoadAssignment a@1")
	p.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resource.EndpointType, ResourceNamesUnsubscribe: []string{"a@1"}})
	p.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resource.EndpointType, ResourceNamesSubscribe: []string{"a@1"}})
	p.wantNext("ClusterLoadAssignment a@1")
}

func TestAMoveToAnotherReplicaSendsNothing(t *testing.T) {
	ca := newAuthority(t, "jia.app")
	one, two := startReplica(t, ca), startReplica(t, ca)
	of := func() xds.Resources { return rendered([]string{"a", "b", "c"}, []string{"in", "out"}) }
	for _, r := range []*testReplica{one, two} {
		r.set(payKey, "/pay", of())
	}
	one.SetEndpoints(contactKey, at("10.0.0.1:15443", "10.0.0.2:15443"))
	two.SetEndpoints(contactKey, at("10.0.0.2:15443", "10.0.0.1:15443"))
	endpoints, routes := []string{"a@1", "b@1", "c@1"}, []string{"in-routes", "out-routes"}
	me := ca.issue("/pay", time.Hour)
	p := connect(t, one.dial(me), payKey.NodeID("pay-1"), nil).subscribe(endpoints, routes)
	p.wantNext("Cluster a b c", "ClusterLoadAssignment a@1 b@1 c@1", "Listener in out", "RouteConfiguration in-routes out-routes")
	eventuallyProxies(t, one, payKey, Proxy{Pod: "pay-1", Synced: true})
	one.stop()
	if err := p.wantEnd(); status.Code(err) != codes.Unavailable {
		t.Errorf("a stopping replica ends the stream with %v", err)
	}
	moved := connect(t, two.dial(me), payKey.NodeID("pay-1"), p.versions()).subscribe(endpoints, routes)
	eventuallyProxies(t, two, payKey, Proxy{Pod: "pay-1", Synced: true})
	next := of()
	next.Routes[1] = newRoutes("out-routes", "b.test")
	two.set(payKey, "/pay", next)
	moved.wantNext("RouteConfiguration out-routes")
}

func TestWhatWouldHangAProxyIsRefused(t *testing.T) {
	ca := newAuthority(t, "jia.app")
	for name, tc := range map[string]struct {
		change func(*xds.Resources)
		id     string
		want   string
	}{
		"endpoints that nobody answers for": {func(r *xds.Resources) { r.Endpoints = nil }, "jia.app", `"a@1"`},
		"routes that nobody answers for":    {func(r *xds.Resources) { r.Routes = nil }, "jia.app", `"in-routes"`},
		"a name twice":                      {func(r *xds.Resources) { r.Clusters = append(r.Clusters, r.Clusters[0]) }, "jia.app", "twice"},
		"more than a request can name": {func(r *xds.Resources) {
			for name := range names(maxNames, 8) {
				r.Routes = append(r.Routes, newRoutes(name, "a.test"))
			}
		}, "jia.app", "2001 resources"},
		"longer names than a request has room for": {func(r *xds.Resources) {
			for name := range names(500, 200) {
				r.Routes = append(r.Routes, newRoutes(name, "a.test"))
			}
		}, "jia.app", "bytes"},
		"no name":               {func(r *xds.Resources) { r.Routes[0].Name = "" }, "jia.app", "no name"},
		"a value out of bounds": {func(r *xds.Resources) { r.Clusters[0].ConnectTimeout = durationpb.New(-1) }, "jia.app", "ConnectTimeout"},
		"another trust domain":  {func(*xds.Resources) {}, "other.test", "trust domain"},
	} {
		t.Run(name, func(t *testing.T) {
			s := New(Options{Cluster: mesh.ClusterID{TrustDomain: ca.TrustDomain, Name: "test"}, Log: discard})
			good := rendered([]string{"a"}, []string{"in"})
			if err := s.Set(payKey, ca.ID("/pay"), good); err != nil {
				t.Fatal(err)
			}
			bad := rendered([]string{"a"}, []string{"in"})
			tc.change(&bad)
			err := s.Set(payKey, newAuthority(t, tc.id).ID("/pay"), bad)
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "meshservice/payments/pay") {
				t.Errorf("got %v, want an error with %q and the object", err, tc.want)
			}
			if want, _ := s.report(payKey); len(want[resource.ClusterType]) != 1 || len(want[resource.RouteType]) != 1 {
				t.Error("what was set before is gone")
			}
		})
	}
}

func TestHundredsOfProxiesReconnectAtOnce(t *testing.T) {
	ca := newAuthority(t, "jia.app")
	r := startReplica(t, ca)
	r.set(payKey, "/pay", rendered([]string{"a", "b"}, []string{"in"}))
	me := ca.issue("/pay", time.Hour)
	const proxies = 400
	start := time.Now()
	var connecting sync.WaitGroup
	for i := range proxies {
		connecting.Go(func() {
			// As Envoy does, it tries again where the handshake took too long on a busy machine.
			conn := r.dial(me, grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
			p := connect(t, conn, payKey.NodeID(fmt.Sprint("pay-", i)), nil).subscribe([]string{"a@1", "b@1"}, []string{"in-routes"})
			for range 4 {
				select {
				case <-p.got:
				case err := <-p.ended:
					t.Errorf("stream %d ended: %v", i, err)
					return
				case <-time.After(time.Minute):
					t.Errorf("stream %d: nothing comes", i)
					return
				}
			}
		})
	}
	connecting.Wait()
	lab.Eventually(t, time.Minute, func() error {
		got := r.Proxies(payKey)
		if len(got) != proxies || slices.ContainsFunc(got, func(p Proxy) bool { return !p.Synced }) {
			return fmt.Errorf("%d proxies, not all of them synced", len(got))
		}
		return nil
	})
	t.Logf("%d proxies were synced after %s, on connections of their own", proxies, time.Since(start).Round(time.Millisecond))
	if took := time.Since(start); took > time.Minute {
		t.Errorf("it took %s", took)
	}
	start = time.Now()
	next := rendered([]string{"a", "b"}, []string{"in"})
	next.Routes[0] = newRoutes("in-routes", "b.test")
	r.set(payKey, "/pay", next)
	lab.Eventually(t, time.Minute, func() error {
		if slices.ContainsFunc(r.Proxies(payKey), func(p Proxy) bool { return !p.Synced }) {
			return fmt.Errorf("not all are synced")
		}
		return nil
	})
	t.Logf("a change of one route was accepted by all after %s", time.Since(start).Round(time.Millisecond))
}

func TestOneIdentityCannotOpenStreamsWithoutEnd(t *testing.T) {
	l := newLimits()
	a := newAuthority(t, "jia.app")
	taken := 0
	for l.take(a.ID("/wild")) != nil {
		taken++
	}
	if taken < streamBurst || taken > maxStreams {
		t.Errorf("%d streams", taken)
	}
	if l.take(a.ID("/other")) == nil {
		t.Error("another identity is refused with it")
	}
	l.give(a.ID("/other"))
	if _, has := l.byID[a.ID("/other")]; has {
		t.Error("what is not used is kept")
	}
}

func TestARevokedIdentityIsNotLetInBySessionResumption(t *testing.T) {
	ca := newAuthority(t, "jia.app")
	r := startReplica(t, ca)
	me := ca.issue("/pay", time.Hour)
	config := me.tls(r.options.Cluster.OperatorID())
	config.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	config.ServerName = "manager" // sessions are kept by name
	config.NextProtos = []string{"h2"}
	shake := func() error {
		conn, err := tls.Dial("tcp", r.Address(), config)
		if err != nil {
			return err
		}
		defer conn.Close() //nolint:errcheck // nothing was sent
		// A client of TLS 1.3 hears of a refusal, and of a session to resume, with the first bytes only.
		_ = conn.SetReadDeadline(time.Now().Add(within))
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			return err
		}
		if conn.ConnectionState().DidResume {
			t.Error("a session was resumed")
		}
		return nil
	}
	for range 2 {
		if err := shake(); err != nil {
			t.Fatalf("before: %v", err)
		}
	}
	r.options.Source.(*source).trust(newAuthority(t, "jia.app").Bundle())
	if err := shake(); err == nil {
		t.Error("let in after its authority was revoked")
	}
}
