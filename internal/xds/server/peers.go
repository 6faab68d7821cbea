package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	statusv3 "github.com/envoyproxy/go-control-plane/envoy/service/status/v3"
	"github.com/go-logr/logr"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"github.com/jia-app/paymesh/internal/mesh"
)

const (
	// peerInterval is how often the other replicas are asked, unless the options say.
	peerInterval = time.Second
	// peerTimeout is for one answer, of a few milliseconds usually, and for the names of the replicas.
	peerTimeout = 2 * time.Second
	// peerMemory is how long what a replica said last is believed after it has stopped answering: for its proxies to be
	// seen at another one.
	peerMemory = 15 * time.Second
	// maxPeerBytes bounds an answer, which has a page of proxies, or all of one object: 10 KB for one with 50 resources.
	maxPeerBytes = 64 << 20
)

// PeersOptions say who the other replicas are.
type PeersOptions struct {
	// Resolve gives host:port of the other replicas.
	Resolve func(ctx context.Context) ([]string, error)
	Source  Source
	Cluster mesh.ClusterID
	Log     logr.Logger
	// Interval is how often they are asked; a second unless set.
	Interval time.Duration
}

// Peers knows what the proxies hold that are connected to any replica.
//
// What the proxies of a replica hold that stops answering is kept for 15 seconds, unless a replica that answers has the
// same proxy. That a proxy has accepted a version stays true while it lives, whoever it told, and it is judged by what is
// wanted now: so that a restart of a replica makes no proxy seem unsynced, and a change since then does. Afterwards those
// proxies are no longer known to be connected, and not named.
type Peers struct {
	server  *Server
	options PeersOptions
	memory  time.Duration

	mu       sync.Mutex
	replicas map[string]*replica
	problem  string
	told     []func(mesh.ProxyKey)
}

// replica is another replica, and what it said last.
type replica struct {
	address string
	conn    *grpc.ClientConn
	// named is whether Resolve still names it.
	named   bool
	reports map[mesh.ProxyKey]map[string]holdings
	// since is up to when it has told what has changed.
	since moment
	// coming are its reports where it tells all from the start, until they are complete.
	coming   map[mesh.ProxyKey]map[string]holdings
	answered time.Time
	problem  string
}

// notAsked is the problem of a replica that is new here.
const notAsked = "it has not been asked yet"

// PeerState is how a replica answers.
type PeerState struct {
	// Address is empty where it is not known who the replicas are.
	Address string
	// Error is why it does not answer; empty where it does.
	Error string
	// Answered is when it last did; zero for never.
	Answered time.Time
}

// NewPeers makes a Peers that asks once it is started.
func NewPeers(s *Server, o PeersOptions) *Peers {
	if o.Interval == 0 {
		o.Interval = peerInterval
	}
	return &Peers{server: s, options: o, memory: peerMemory, replicas: map[string]*replica{}}
}

// NeedLeaderElection says that every replica asks, so that a new leader knows at once.
func (p *Peers) NeedLeaderElection() bool { return false }

// Start asks until ctx is done.
func (p *Peers) Start(ctx context.Context) error {
	tick := time.NewTicker(p.options.Interval)
	defer tick.Stop()
	defer p.closeAll()
	for {
		p.ask(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Proxies are the proxies of an object that are connected to any replica, sorted by pod. A proxy that several replicas
// name is synced if all of them say so.
func (p *Peers) Proxies(key mesh.ProxyKey) []Proxy {
	want, local := p.server.report(key)
	if want == nil {
		return []Proxy{}
	}
	all := []map[string]holdings{local}
	var kept []map[string]holdings
	p.mu.Lock()
	for _, address := range slices.Sorted(maps.Keys(p.replicas)) {
		switch r := p.replicas[address]; {
		case r.problem == "" && r.named:
			all = append(all, r.reports[key])
		default:
			kept = append(kept, r.reports[key])
		}
	}
	p.mu.Unlock()
	byPod := merge(all, want)
	for pod, proxy := range merge(kept, want) {
		if _, has := byPod[pod]; !has {
			byPod[pod] = proxy
		}
	}
	return slices.SortedFunc(maps.Values(byPod), func(a, b Proxy) int { return strings.Compare(a.Pod, b.Pod) })
}

// Version is that of what this replica gives the proxies of an object; empty where it is not set.
func (p *Peers) Version(key mesh.ProxyKey) string { return p.server.Version(key) }

// Problem is why this replica does not serve what was to be set last for an object; nil where it does.
func (p *Peers) Problem(key mesh.ProxyKey) error { return p.server.Problem(key) }

func merge(reports []map[string]holdings, want wanted) map[string]Proxy {
	byPod := map[string]Proxy{}
	for _, report := range reports {
		for pod, h := range report {
			now := h.proxy(pod, want)
			if before, has := byPod[pod]; has {
				now.Synced = now.Synced && before.Synced
				now.NACK = cmp.Or(before.NACK, now.NACK)
			}
			byPod[pod] = now
		}
	}
	return byPod
}

// Notify has f called when what Proxies says of an object may have changed, also when what is wanted has. It must not
// block, and may be called by several goroutines at once.
func (p *Peers) Notify(f func(mesh.ProxyKey)) {
	p.server.Notify(f)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told = append(p.told, f)
}

// State says how the other replicas answer, sorted by address.
func (p *Peers) State() []PeerState {
	p.mu.Lock()
	defer p.mu.Unlock()
	var states []PeerState
	if p.problem != "" {
		states = append(states, PeerState{Error: p.problem})
	}
	for _, address := range slices.Sorted(maps.Keys(p.replicas)) {
		if r := p.replicas[address]; r.named {
			states = append(states, PeerState{Address: address, Error: r.problem, Answered: r.answered})
		}
	}
	return states
}

// ask asks every replica once.
func (p *Peers) ask(ctx context.Context) {
	p.resolve(ctx)
	p.mu.Lock()
	replicas := slices.Collect(maps.Values(p.replicas))
	p.mu.Unlock()
	var asking sync.WaitGroup
	for _, r := range replicas {
		asking.Go(func() { p.askOne(ctx, r) })
	}
	asking.Wait()
}

// resolve finds out who the replicas are. Where it cannot, they are who they were.
func (p *Peers) resolve(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, peerTimeout)
	defer cancel()
	addresses, err := p.options.Resolve(limited)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.problem = "find the other replicas of the manager: " + err.Error()
		return
	}
	p.problem = ""
	for address, r := range p.replicas {
		r.named = slices.Contains(addresses, address)
	}
	for _, address := range addresses {
		if _, has := p.replicas[address]; has {
			continue
		}
		conn, err := p.dial(address)
		if err != nil {
			p.problem = fmt.Sprintf("the replica of the manager at %q: %v", address, err)
			continue
		}
		p.replicas[address] = &replica{address: address, conn: conn, named: true, problem: notAsked}
	}
}

func (p *Peers) dial(address string) (*grpc.ClientConn, error) {
	config := tlsconfig.MTLSClientConfig(p.options.Source, p.options.Source, tlsconfig.AuthorizeID(p.options.Cluster.OperatorID()))
	config.MinVersion = tls.VersionTLS13
	return grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 2, MaxDelay: peerInterval}, MinConnectTimeout: peerTimeout}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxPeerBytes)))
}

// askOne asks a replica until it has told all that is new.
func (p *Peers) askOne(ctx context.Context, r *replica) {
	for p.askPage(ctx, r) {
	}
}

// askPage asks a replica for what is new, or forgets it when it has been silent for too long. It says whether there is more.
func (p *Peers) askPage(ctx context.Context, r *replica) (more bool) {
	limited, cancel := context.WithTimeout(ctx, peerTimeout)
	defer cancel()
	n, err := r.ask(limited)
	if ctx.Err() != nil {
		return false
	}
	p.mu.Lock()
	before, problem, first := r.reports, r.problem, r.answered.IsZero() && r.problem == notAsked
	changed := map[mesh.ProxyKey]struct{}{}
	switch {
	case err == nil && r.named:
		changed, more = r.take(n), n.more
		if r.coming == nil {
			r.answered, r.problem = time.Now(), ""
		}
	case err == nil: // it runs on, and is not to be asked any more: a terminating pod
		r.problem = "it is no longer named"
	default:
		r.problem = err.Error()
	}
	forgotten := (err != nil || !r.named) && time.Since(r.answered) > p.memory
	if forgotten {
		p.forget(r)
	}
	turned, told := (problem == "") != (r.problem == ""), p.told
	if turned || forgotten {
		addKeys(changed, before, r.reports)
	}
	problem = r.problem
	p.mu.Unlock()
	if (turned || first) && problem != "" && problem != notAsked {
		p.options.Log.Info("another replica of the manager does not answer", "address", r.address, "error", problem)
	}
	for key := range changed {
		for _, tell := range told {
			tell(key)
		}
	}
	return more
}

// forget drops what a replica said, and the replica where it is no longer named. The lock is held.
func (p *Peers) forget(r *replica) {
	r.reports, r.coming, r.since = nil, nil, moment{}
	if !r.named {
		delete(p.replicas, r.address)
		_ = r.conn.Close()
	}
}

// news is what a replica answers.
type news struct {
	reports map[mesh.ProxyKey]map[string]holdings
	upTo    moment
	// whole is an answer that has all, whatever was asked.
	whole, more bool
}

func (r *replica) ask(ctx context.Context) (news, error) {
	var header metadata.MD
	ctx = metadata.AppendToOutgoingContext(ctx, sinceHeader, r.since.String())
	response, err := statusv3.NewClientStatusDiscoveryServiceClient(r.conn).FetchClientStatus(ctx, &statusv3.ClientStatusRequest{ExcludeResourceContents: true}, grpc.Header(&header))
	if err != nil {
		return news{}, err
	}
	n := news{reports: reportsOf(response), whole: true}
	if upTo := header.Get(sinceHeader); len(upTo) > 0 {
		n.upTo, n.whole, n.more = parseMoment(upTo[0]), false, slices.Contains(header.Get(moreHeader), "true")
	}
	return n, nil
}

// take takes an answer in. It gives the objects of which the replica says something else than before.
func (r *replica) take(n news) map[mesh.ProxyKey]struct{} {
	if n.whole || n.upTo.epoch != r.since.epoch || r.reports == nil && r.coming == nil {
		r.coming = map[mesh.ProxyKey]map[string]holdings{}
	}
	r.since = n.upTo
	if r.coming == nil {
		return update(r.reports, n.reports)
	}
	update(r.coming, n.reports)
	if n.more {
		return map[mesh.ProxyKey]struct{}{}
	}
	before := r.reports
	r.reports, r.coming = r.coming, nil
	return changes(before, r.reports)
}

// update puts what has changed in the place of what was there.
func update(all, by map[mesh.ProxyKey]map[string]holdings) map[mesh.ProxyKey]struct{} {
	changed := map[mesh.ProxyKey]struct{}{}
	for key, pods := range by {
		if len(pods)+len(all[key]) > 0 && !reflect.DeepEqual(all[key], pods) {
			changed[key] = struct{}{}
		}
		if all[key] = pods; len(pods) == 0 {
			delete(all, key)
		}
	}
	return changed
}

// changes are the objects of which a replica says something else than before.
func changes(before, after map[mesh.ProxyKey]map[string]holdings) map[mesh.ProxyKey]struct{} {
	keys := map[mesh.ProxyKey]struct{}{}
	addKeys(keys, before, after)
	maps.DeleteFunc(keys, func(key mesh.ProxyKey, _ struct{}) bool { return reflect.DeepEqual(before[key], after[key]) })
	return keys
}

func addKeys(keys map[mesh.ProxyKey]struct{}, of ...map[mesh.ProxyKey]map[string]holdings) {
	for _, reports := range of {
		for key := range reports {
			keys[key] = struct{}{}
		}
	}
}

func (p *Peers) closeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.replicas {
		_ = r.conn.Close()
	}
}
