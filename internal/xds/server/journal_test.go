package server

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statusv3 "github.com/envoyproxy/go-control-plane/envoy/service/status/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"k8s.io/apimachinery/pkg/types"

	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/xds"
	"github.com/jia-app/paymesh/test/lab"
)

// asksSince asks as another replica does: it gives whom it was told of, and up to when and whether there is more.
func asksSince(t testing.TB, client statusv3.ClientStatusDiscoveryServiceClient, since string) (nodes []string, upTo string, more bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	var header metadata.MD
	answer, err := client.FetchClientStatus(metadata.AppendToOutgoingContext(ctx, sinceHeader, since), &statusv3.ClientStatusRequest{}, grpc.Header(&header))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range answer.GetConfig() {
		nodes = append(nodes, c.GetNode().GetId())
	}
	if len(header.Get(sinceHeader)) != 1 {
		t.Fatalf("the answer does not say up to when it tells: %v", header)
	}
	return nodes, header.Get(sinceHeader)[0], slices.Contains(header.Get(moreHeader), "true")
}

func TestAReplicaTellsOnlyWhatHasChangedSinceItWasAsked(t *testing.T) {
	ca := newAuthority(t, "jia.app")
	r := startReplica(t, ca)
	r.set(payKey, "/pay", rendered([]string{"a"}, nil))
	r.set(otherKey, "/contact", rendered([]string{"b"}, nil))
	connect(t, r.dial(ca.issue("/pay", time.Hour)), payKey.NodeID("pay-1"), nil).subscribe(nil, nil)
	contact := connect(t, r.dial(ca.issue("/contact", time.Hour)), otherKey.NodeID("contact-1"), nil).subscribe(nil, nil)
	eventuallyProxies(t, r, payKey, Proxy{Pod: "pay-1", Synced: true})
	eventuallyProxies(t, r, otherKey, Proxy{Pod: "contact-1", Synced: true})
	client := statusv3.NewClientStatusDiscoveryServiceClient(r.dial(r.operator()))
	now := ""
	tells := func(want ...string) {
		t.Helper()
		got, upTo, more := asksSince(t, client, now)
		if now = upTo; more || !slices.Equal(got, want) {
			t.Fatalf("it tells of %v, and more %t; want %v", got, more, want)
		}
	}
	pay1, contact1 := payKey.NodeID("pay-1"), otherKey.NodeID("contact-1")
	lab.Eventually(t, within, func() error { // the last to be accepted does not count, and changes no Proxy
		got, upTo, _ := asksSince(t, client, "")
		if again, _, _ := asksSince(t, client, upTo); len(got) != 2 || len(again) > 0 {
			return fmt.Errorf("it tells of %v, then of %v", got, again)
		}
		now = upTo
		return nil
	})
	tells()

	contact.rejects(func(*discoveryv3.Resource) string { return "no" })
	r.set(otherKey, "/contact", rendered([]string{"b", "c"}, nil))
	eventuallyProxies(t, r, otherKey, Proxy{Pod: "contact-1", NACK: &NACK{TypeURL: resource.ClusterType, Message: "no", Resources: []string{"c"}}})
	tells(contact1)
	tells()
	_ = contact.stream.CloseSend()
	eventuallyProxies(t, r, otherKey)
	tells(otherKey.String())
	tells()
	r.Remove(payKey)
	tells(payKey.String())

	r.set(payKey, "/pay", rendered([]string{"a"}, nil))
	tells(pay1)
	r.Remove(otherKey)
	r.Server.mu.Lock()
	for i := range journalSlack + 10 { // objects that come and go
		r.touched(mesh.ProxyKey{Kind: mesh.KindMeshService, NamespacedName: types.NamespacedName{Namespace: "gone", Name: fmt.Sprint(i)}})
	}
	kept := len(r.journal.last)
	r.Server.mu.Unlock()
	if kept > journalSlack {
		t.Errorf("%d objects are remembered, of which one is there", kept)
	}
	if got, _, _ := asksSince(t, client, now); !slices.Contains(got, pay1) {
		t.Errorf("after objects were forgotten it tells of %v, and not of all that is there", got)
	}
	for _, odd := range []string{"x", "/", "x/y", strings.Repeat("9", 30), r.journal.now.epoch + "/-1"} {
		if got, _, _ := asksSince(t, client, odd); !slices.Contains(got, pay1) {
			t.Errorf("asked since %q it tells of %v, and not of all", odd, got)
		}
	}
}

func TestPeersAreToldPageByPageAndAPersonAllAtOnce(t *testing.T) {
	ca := newAuthority(t, "jia.app")
	here, there := startReplica(t, ca), startReplica(t, ca)
	there.pageProxies = 2
	address := there.Address()
	peers := startPeers(t, here, func() ([]string, error) { return []string{address}, nil }, nil)
	var keys []mesh.ProxyKey
	proxies := map[mesh.ProxyKey][]*proxy{}
	of := func() xds.Resources { return rendered([]string{"a"}, nil) }
	for i := range 5 {
		key := mesh.ProxyKey{Kind: mesh.KindMeshService, NamespacedName: types.NamespacedName{Namespace: "many", Name: fmt.Sprint("s", i)}}
		keys = append(keys, key)
		here.set(key, "/"+key.Name, of())
		there.set(key, "/"+key.Name, of())
		for pod := range 3 {
			p := connect(t, there.dial(ca.issue("/"+key.Name, time.Hour)), key.NodeID(fmt.Sprint("p", pod)), nil).subscribe(nil, nil)
			proxies[key] = append(proxies[key], p)
		}
	}
	all := []Proxy{{Pod: "p0", Synced: true}, {Pod: "p1", Synced: true}, {Pod: "p2", Synced: true}}
	for _, key := range keys {
		eventuallyProxies(t, peers, key, all...)
	}
	answer, err := ask(there, there.operator())
	if err != nil || len(answer.GetConfig()) != 15 {
		t.Errorf("a person is told of %d proxies, %v", len(answer.GetConfig()), err)
	}
	if _, _, more := asksSince(t, statusv3.NewClientStatusDiscoveryServiceClient(there.dial(there.operator())), ""); !more {
		t.Error("five objects are told in one page")
	}

	_ = proxies[keys[1]][1].stream.CloseSend()
	eventuallyProxies(t, peers, keys[1], all[0], all[2])
	for _, p := range proxies[keys[2]] {
		_ = p.stream.CloseSend()
	}
	eventuallyProxies(t, peers, keys[2])
	eventuallyProxies(t, peers, keys[3], all...)

	// Another process at the same address begins anew, and what the one before said is gone with the first whole answer.
	next := New(Options{Address: address, Source: there.operator(), Cluster: there.options.Cluster, Log: discard})
	next.pageProxies = 2
	there.stop()
	other := &testReplica{t: t, ca: ca, Server: next}
	other.run()
	for _, key := range keys {
		other.set(key, "/"+key.Name, of())
	}
	for _, key := range keys[3:] {
		connect(t, other.dial(ca.issue("/"+key.Name, time.Hour)), key.NodeID("p0"), proxies[key][0].versions()).subscribe(nil, nil)
	}
	eventuallyProxies(t, peers, keys[0])
	eventuallyProxies(t, peers, keys[3], all[0])
	eventuallyProxies(t, peers, keys[4], all[0])
}

// BenchmarkAskingAnotherReplica is one question among replicas over mTLS, for 5,000 proxies with 27 resources each in
// 1,000 objects, with what the other one does with the answer. In one answer is how all were asked for each second before
// there was a journal.
func BenchmarkAskingAnotherReplica(b *testing.B) {
	ca := newAuthority(b, "jia.app")
	r := startReplica(b, ca)
	keys := crowd(r.Server, 1000, 5)
	conn := r.dial(r.operator())
	client := statusv3.NewClientStatusDiscoveryServiceClient(conn)
	asking := &replica{conn: conn}
	page := func() {
		for more := true; more; {
			n, err := asking.ask(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			asking.take(n)
			more = n.more
		}
	}
	measure := func(name string, once func()) {
		b.Run(name, func(b *testing.B) {
			page()
			for b.Loop() {
				once()
			}
		})
	}
	measure("all in one answer", func() {
		answer, err := client.FetchClientStatus(b.Context(), &statusv3.ClientStatusRequest{}, grpc.MaxCallRecvMsgSize(maxPeerBytes))
		if err != nil {
			b.Fatal(err)
		}
		changes(asking.reports, reportsOf(answer))
	})
	measure("all page by page", func() {
		asking.since = moment{}
		page()
	})
	measure("ten objects have changed", func() {
		r.locked(func() {
			for _, key := range keys[:10] {
				r.touched(key)
			}
		})
		page()
	})
	measure("nothing has changed", page)
}

// BenchmarkHoldingTheLock is what no stream is served during: a page is copied, where once the answer of all was made.
func BenchmarkHoldingTheLock(b *testing.B) {
	r := startReplica(b, newAuthority(b, "jia.app"))
	crowd(r.Server, 1000, 5)
	for name, of := range map[string]struct {
		proxies int
		render  bool
	}{"all proxies, with the answer": {1 << 20, true}, "a page, copied": {pageProxies, false}} {
		b.Run(name, func(b *testing.B) {
			r.pageProxies = of.proxies
			for b.Loop() {
				p, err := r.page(moment{})
				if err != nil {
					b.Fatal(err)
				}
				for _, o := range p.objects {
					if of.render {
						o.status()
					}
				}
			}
		})
	}
}

// crowd makes a server know of objects with synced proxies, without their connections.
func crowd(s *Server, objects, pods int) []mesh.ProxyKey {
	accepted := map[string]string{}
	for i := range 9 { // eight dependencies, and its own
		accepted[fmt.Sprintf("payments/service-%d/grpc", i)] = "0123456789abcdef"
	}
	keys := map[mesh.ProxyKey]bool{}
	s.locked(func() {
		for i := range objects {
			key := mesh.ProxyKey{Kind: mesh.KindMeshService, NamespacedName: types.NamespacedName{Namespace: "payments", Name: fmt.Sprint("service-", i)}}
			keys[key] = true
			s.configs[key] = &objectConfig{wanted: wanted{resource.ClusterType: accepted, resource.ListenerType: accepted, resource.RouteType: accepted}}
			for pod := range pods {
				st := &stream{server: s, number: uint64(pod), key: key, pod: fmt.Sprintf("service-%d-5f6d7c8b9-%05d", i, pod), bound: true, subscriptions: map[string]*subscription{}}
				for _, typeURL := range judged {
					st.subscriptions[typeURL] = &subscription{typeURL: typeURL, held: newHeld(accepted)}
				}
				s.byKey.add(key, st)
			}
			s.changed(key)
		}
	})
	return slices.Collect(maps.Keys(keys))
}
