package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statusv3 "github.com/envoyproxy/go-control-plane/envoy/service/status/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/test/lab"
)

// ask asks what proxies hold.
func ask(r *testReplica, as *source) (*statusv3.ClientStatusResponse, error) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	return statusv3.NewClientStatusDiscoveryServiceClient(r.dial(as)).FetchClientStatus(ctx, &statusv3.ClientStatusRequest{})
}

func (r *testReplica) operator() *source {
	return r.ca.issue(r.options.Cluster.OperatorID().Path(), time.Hour)
}

func TestOnlyTheOperatorIsToldWhatProxiesHold(t *testing.T) {
	ca := newAuthority(t, "jia.app")
	r := startReplica(t, ca)
	r.set(payKey, "/pay", rendered([]string{"contact", "family"}, []string{"in"}))
	p := connect(t, r.dial(ca.issue("/pay", time.Hour)), payKey.NodeID("pay-1"), nil)
	p.rejects(func(of *discoveryv3.Resource) string {
		if of.GetName() == "family" {
			return "no such thing"
		}
		return ""
	})
	p.subscribe(nil, nil)
	if answer, err := ask(r, ca.issue("/pay", time.Hour)); status.Code(err) != codes.PermissionDenied || r.refused(reasonNotOperator) != 1 {
		t.Errorf("a workload was told %v, %v", answer, err)
	}
	stream, err := statusv3.NewClientStatusDiscoveryServiceClient(r.dial(ca.issue("/pay", time.Hour))).StreamClientStatus(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if answer, err := stream.Recv(); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a workload was told %v, %v", answer, err)
	}

	stream, err = statusv3.NewClientStatusDiscoveryServiceClient(r.dial(r.operator())).StreamClientStatus(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	lab.Eventually(t, within, func() error {
		if err := stream.Send(&statusv3.ClientStatusRequest{}); err != nil {
			return err
		}
		answer, err := stream.Recv()
		if err != nil {
			return err
		}
		if len(answer.GetConfig()) != 1 || answer.GetConfig()[0].GetNode().GetId() != payKey.NodeID("pay-1") {
			return fmt.Errorf("the operator was told %v", answer)
		}
		got := map[string]adminv3.ClientResourceStatus{}
		for _, one := range answer.GetConfig()[0].GetGenericXdsConfigs() {
			if got[one.GetName()] = one.GetClientStatus(); one.GetXdsConfig() != nil {
				t.Error("contents are told")
			}
			if one.GetName() == "family" && one.GetErrorState().GetDetails() != "no such thing" {
				return fmt.Errorf("the rejection is told as %v", one)
			}
		}
		for name, want := range map[string]adminv3.ClientResourceStatus{
			"contact": adminv3.ClientResourceStatus_ACKED, "family": adminv3.ClientResourceStatus_NACKED, "in-routes": adminv3.ClientResourceStatus_REQUESTED,
		} {
			if got[name] != want {
				return fmt.Errorf("%s is %s, want %s", name, got[name], want)
			}
		}
		return nil
	})
	if err := stream.Send(&statusv3.ClientStatusRequest{NodeMatchers: []*matcherv3.NodeMatcher{{}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a question that cannot be answered: %v", err)
	}
}

// startPeers starts the Peers of a replica, which knows of others by their addresses.
func startPeers(t *testing.T, of *testReplica, resolve func() ([]string, error), change func(*Peers)) *Peers {
	t.Helper()
	p := NewPeers(of.Server, PeersOptions{
		Resolve: func(context.Context) ([]string, error) { return resolve() }, Source: of.operator(), Cluster: of.options.Cluster, Log: discard, Interval: 20 * time.Millisecond,
	})
	if change != nil {
		change(p)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return p
}

func TestPeersKnowTheProxiesOfAllReplicas(t *testing.T) {
	ca := newAuthority(t, "jia.app")
	here, there := startReplica(t, ca), startReplica(t, ca)
	for _, r := range []*testReplica{here, there} {
		r.set(payKey, "/pay", rendered([]string{"contact"}, nil))
	}
	told := make(chan mesh.ProxyKey, 1000)
	peers := startPeers(t, here, func() ([]string, error) { return []string{there.Address()}, nil }, func(p *Peers) {
		p.Notify(func(key mesh.ProxyKey) { told <- key })
	})
	connect(t, here.dial(ca.issue("/pay", time.Hour)), payKey.NodeID("pay-1"), nil).subscribe(nil, nil)
	two := connect(t, there.dial(ca.issue("/pay", time.Hour)), payKey.NodeID("pay-2"), nil).subscribe(nil, nil)
	eventuallyProxies(t, peers, payKey, Proxy{Pod: "pay-1", Synced: true}, Proxy{Pod: "pay-2", Synced: true})
	if got := peers.Proxies(otherKey); len(got) > 0 {
		t.Errorf("proxies of an object that is not set: %s", show(got))
	}
	if state := peers.State(); len(state) != 1 || state[0].Address != there.Address() || state[0].Error != "" || state[0].Answered.IsZero() {
		t.Errorf("state: %+v", state)
	}

	// What counts is what is wanted here: the other replica does not know the change yet.
	changed := rendered([]string{"contact", "family"}, nil)
	here.set(payKey, "/pay", changed)
	eventuallyProxies(t, peers, payKey, Proxy{Pod: "pay-1", Synced: true}, Proxy{Pod: "pay-2"})
	for len(told) > 0 {
		<-told
	}
	two.rejects(func(*discoveryv3.Resource) string { return "no" })
	there.set(payKey, "/pay", changed)
	eventuallyProxies(t, peers, payKey, Proxy{Pod: "pay-1", Synced: true},
		Proxy{Pod: "pay-2", NACK: &NACK{TypeURL: resource.ClusterType, Message: "no", Resources: []string{"family"}}})
	select {
	case key := <-told:
		if key != payKey {
			t.Errorf("told of %s", key)
		}
	case <-time.After(within):
		t.Error("not told of what the other replica saw")
	}
}

func TestAReplicaThatDoesNotAnswerIsNamedAndItsProxiesAreKeptForAWhile(t *testing.T) {
	ca := newAuthority(t, "jia.app")
	here, there := startReplica(t, ca), startReplica(t, ca)
	for _, r := range []*testReplica{here, there} {
		r.set(payKey, "/pay", rendered([]string{"contact"}, nil))
	}
	address := there.Address()
	var mu sync.Mutex
	resolved := func() ([]string, error) { return []string{address}, nil }
	resolve := func() ([]string, error) {
		mu.Lock()
		defer mu.Unlock()
		return resolved()
	}
	peers := startPeers(t, here, resolve, func(p *Peers) { p.memory = time.Hour })
	me := ca.issue("/pay", time.Hour)
	moving := connect(t, there.dial(me), payKey.NodeID("pay-1"), nil).subscribe(nil, nil)
	connect(t, there.dial(me), payKey.NodeID("pay-2"), nil).subscribe(nil, nil)
	eventuallyProxies(t, peers, payKey, Proxy{Pod: "pay-1", Synced: true}, Proxy{Pod: "pay-2", Synced: true})
	there.Server.mu.Lock()
	there.stopping = true
	there.Server.mu.Unlock()
	if answer, err := ask(there, there.operator()); status.Code(err) != codes.Unavailable {
		t.Errorf("a replica that stops says of its proxies: %v, %v", answer, err)
	}
	there.stop()
	lab.Eventually(t, within, func() error {
		if state := peers.State(); len(state) != 1 || state[0].Error == "" || state[0].Answered.IsZero() {
			return fmt.Errorf("state: %+v", state)
		}
		return nil
	})
	eventuallyProxies(t, peers, payKey, Proxy{Pod: "pay-1", Synced: true}, Proxy{Pod: "pay-2", Synced: true})

	// What is wanted now they cannot have accepted.
	here.set(payKey, "/pay", rendered([]string{"contact", "family"}, nil))
	eventuallyProxies(t, peers, payKey, Proxy{Pod: "pay-1"}, Proxy{Pod: "pay-2"})
	connect(t, here.dial(me), payKey.NodeID("pay-1"), moving.versions()).subscribe(nil, nil).wantNext("Cluster family")
	eventuallyProxies(t, peers, payKey, Proxy{Pod: "pay-1", Synced: true}, Proxy{Pod: "pay-2"})

	mu.Lock()
	resolved = func() ([]string, error) { return nil, errors.New("the API server is away") }
	mu.Unlock()
	lab.Eventually(t, within, func() error {
		if state := peers.State(); len(state) != 2 || state[0].Address != "" || state[0].Error == "" {
			return fmt.Errorf("state: %+v", state)
		}
		return nil
	})
	peers.mu.Lock()
	peers.memory = 0
	peers.mu.Unlock()
	eventuallyProxies(t, peers, payKey, Proxy{Pod: "pay-1", Synced: true})
	mu.Lock()
	resolved = func() ([]string, error) { return nil, nil }
	mu.Unlock()
	lab.Eventually(t, within, func() error {
		if state := peers.State(); len(state) != 0 {
			return fmt.Errorf("state: %+v", state)
		}
		return nil
	})
}

func TestAnotherReplicaHasToBeTheOperator(t *testing.T) {
	ca := newAuthority(t, "jia.app")
	here := startReplica(t, ca)
	stranger := New(Options{Address: "127.0.0.1:0", Source: ca.issue("/pay", time.Hour), Cluster: here.options.Cluster, Log: discard})
	impostor := &testReplica{t: t, ca: ca, Server: stranger}
	impostor.run()
	peers := startPeers(t, here, func() ([]string, error) { return []string{impostor.Address()}, nil }, nil)
	lab.Eventually(t, within, func() error {
		state := peers.State()
		if len(state) != 1 || state[0].Error == "" || state[0].Error == notAsked {
			return fmt.Errorf("state: %+v", state)
		}
		return nil
	})
	if !slices.EqualFunc(peers.State(), []PeerState{{}}, func(a, _ PeerState) bool { return a.Answered.IsZero() }) {
		t.Error("it was believed")
	}
}
