// Package server serves what proxies get, and knows what they hold: config goes in by object, ADS over mTLS comes out,
// and what each connected proxy accepted or rejected.
package server

import (
	"cmp"
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/jia-app/paymesh/internal/mesh"
)

// clusterPatience is how long what uses a cluster waits for the proxy to accept it: milliseconds where endpoints are
// there, and for ever where a cluster's name or certificate cannot be had. A revoked rule is not kept longer than this.
const clusterPatience = 2 * time.Second

// Source gives the server's own certificate and the roots to check others by; a workloadapi.X509Source is one.
type Source interface {
	x509svid.Source
	x509bundle.Source
}

// Options say what a Server is and where.
type Options struct {
	// Address is where it listens, as host:port.
	Address    string
	Source     Source
	Cluster    mesh.ClusterID
	Log        logr.Logger
	Registerer prometheus.Registerer // nil for none
}

// Server serves xDS to the proxies of every object that Set has named. Each replica of the manager runs one.
//
// A replica is ready once it listens (Ready says so) and has been given what the API server holds: that only who calls
// Set can know. Until then a proxy of an object that has not been set waits; it is neither refused nor told that there is
// nothing.
type Server struct {
	options         Options
	metrics         metrics
	limits          *limits
	clusterPatience time.Duration
	unboundPatience time.Duration

	mu sync.Mutex
	// listener is nil before Start; stopping says that no stream is accepted any more.
	listener  net.Listener
	stopping  bool
	number    uint64
	configs   map[mesh.ProxyKey]*objectConfig
	problems  map[mesh.ProxyKey]error // of those that could not be set
	endpoints addresses
	// users are the objects that ask for the endpoints of a port.
	users map[mesh.EndpointKey]map[mesh.ProxyKey]struct{}
	// streams are the open ones; byKey those that have said whose they are.
	streams map[*stream]struct{}
	byKey   streamIndex
	// told are the functions that Notify has named, and pending the objects that they are to be told of.
	told    []func(mesh.ProxyKey)
	pending map[mesh.ProxyKey]struct{}
	// journal is what other replicas are told from, pageProxies at a time.
	journal     journal
	pageProxies int
}

// Proxy is a proxy that is connected now.
type Proxy struct {
	// Pod is the name of its pod, in the namespace of its object.
	Pod string
	// Synced means that it has accepted exactly the listeners, routes and clusters that are wanted.
	Synced bool
	// NACK is what it rejects of what is wanted; nil where it rejects nothing.
	NACK *NACK
}

// NACK is a rejection.
type NACK struct {
	// TypeURL is the type of the resources, Message the proxy's text, which often names none of them.
	TypeURL, Message string
	// Resources are the names of the rejected ones, sorted.
	Resources []string
}

// TypeName is the short name of the type: Cluster, Listener.
func (n *NACK) TypeName() string { return typeName(n.TypeURL) }

// New makes a server that listens once it is started. Set and SetEndpoints may be called before.
func New(o Options) *Server {
	return &Server{
		options: o, metrics: newMetrics(o.Registerer), limits: newLimits(), clusterPatience: clusterPatience, unboundPatience: unboundPatience,
		configs: map[mesh.ProxyKey]*objectConfig{}, problems: map[mesh.ProxyKey]error{}, endpoints: addresses{}, users: map[mesh.EndpointKey]map[mesh.ProxyKey]struct{}{},
		streams: map[*stream]struct{}{}, byKey: streamIndex{}, pending: map[mesh.ProxyKey]struct{}{},
		journal: newJournal(), pageProxies: pageProxies,
	}
}

// NeedLeaderElection says that every replica serves.
func (s *Server) NeedLeaderElection() bool { return false }

// Proxies are the proxies of an object that are connected to this server, sorted by pod. There are none as long as the
// object is not set.
func (s *Server) Proxies(key mesh.ProxyKey) []Proxy {
	want, reports := s.report(key)
	proxies := make([]Proxy, 0, len(reports))
	for pod, h := range reports {
		proxies = append(proxies, h.proxy(pod, want))
	}
	slices.SortFunc(proxies, func(a, b Proxy) int { return strings.Compare(a.Pod, b.Pod) })
	return proxies
}

// Version is that of what the proxies of an object get (xds.Resources.Version); empty where it is not set.
func (s *Server) Version(key mesh.ProxyKey) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, known := s.configs[key]; known {
		return c.version
	}
	return ""
}

// Problem is why Set failed for an object the last time; nil where it did not.
func (s *Server) Problem(key mesh.ProxyKey) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.problems[key]
}

// Notify has f called when what Proxies says of an object may have changed, also when what is wanted has. It must not
// block, and may be called by several goroutines at once.
func (s *Server) Notify(f func(mesh.ProxyKey)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = append(s.told, f)
}

// report is what is wanted of the proxies of an object, and what the connected ones hold, by pod.
func (s *Server) report(key mesh.ProxyKey) (wanted, map[string]holdings) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, known := s.configs[key]
	if !known {
		return nil, nil
	}
	want := wanted{}
	for _, typeURL := range order {
		want[typeURL] = c.contents[typeURL].versions()
	}
	reports := s.byPod(key)
	for pod, h := range reports {
		reports[pod] = h.clone()
	}
	return want, reports
}

// byPod is what the proxies of an object hold. Where a pod has several streams, the last one is the live one: Envoy opens
// another when it takes the one before for broken. The lock is held, and has to be as long as the holdings are read.
func (s *Server) byPod(key mesh.ProxyKey) map[string]holdings {
	reports := map[string]holdings{}
	for _, st := range s.byKey.sorted(key) {
		if st.bound {
			reports[st.pod] = st.holdings()
		}
	}
	return reports
}

// locked runs f under the lock, and tells afterwards of what it changed.
func (s *Server) locked(f func()) {
	pending, told := s.underLock(f)
	for key := range pending {
		for _, tell := range told {
			tell(key)
		}
	}
}

func (s *Server) underLock(f func()) (map[mesh.ProxyKey]struct{}, []func(mesh.ProxyKey)) {
	s.mu.Lock()
	defer s.mu.Unlock() // also where f panics: the other streams go on
	f()
	pending := s.pending
	s.pending = map[mesh.ProxyKey]struct{}{} // the caller goes over the other one without the lock
	return pending, s.told
}

// changed says that what Proxies says of an object may have changed. The lock is held.
func (s *Server) changed(key mesh.ProxyKey) {
	s.pending[key] = struct{}{}
	s.touched(key)
}

// open takes in a new stream. It is nobody's until its first request.
func (s *Server) open(ctx context.Context) (*stream, error) {
	p, err := peerOf(ctx)
	if err != nil {
		return nil, err
	}
	st := &stream{server: s, peer: p.id, remote: p.address, subscriptions: map[string]*subscription{}}
	// A stream ends with the certificate that it was opened with.
	st.ctx, st.cancel = context.WithDeadline(ctx, p.notAfter)
	if st.allowance = s.limits.take(p.id); st.allowance == nil {
		st.cancel()
		return nil, st.refuse(reasonStreams, codes.ResourceExhausted, "too many streams of this SPIFFE ID")
	}
	s.locked(func() {
		if s.stopping {
			err = errStopping
			return
		}
		s.number++
		st.number = s.number
		s.streams[st] = struct{}{}
		st.awaitObject()
	})
	if err != nil {
		st.cancel()
		s.limits.give(p.id)
		return nil, err
	}
	return st, nil
}

var errStopping = status.Error(codes.Unavailable, "xDS: this replica of the manager stops; another one serves")

// close forgets a stream, and says what its peer is told: why the server ended it, or else how its handler did.
func (s *Server) close(st *stream, err error) error {
	st.cancel()
	s.locked(func() {
		for _, of := range st.subscriptions {
			s.limits.charge(st.allowance, -of.cost)
		}
		if st.patience != nil {
			st.patience.Stop()
		}
		delete(s.streams, st)
		if st.node != "" {
			s.byKey.remove(st.key, st)
		}
		st.bind(false)
		st.unbound.Stop()
		st.leave()
		if st.ended != nil {
			err = st.ended
		}
	})
	s.limits.give(st.peer)
	return err
}

// addresses are where ports are reached.
type addresses map[mesh.EndpointKey][]netip.AddrPort

// streamIndex has the streams of an object.
type streamIndex map[mesh.ProxyKey]map[*stream]struct{}

func (x streamIndex) add(key mesh.ProxyKey, st *stream) {
	if x[key] == nil {
		x[key] = map[*stream]struct{}{}
	}
	x[key][st] = struct{}{}
}

func (x streamIndex) remove(key mesh.ProxyKey, st *stream) {
	if delete(x[key], st); len(x[key]) == 0 {
		delete(x, key)
	}
}

// sorted are the streams of an object, oldest first.
func (x streamIndex) sorted(key mesh.ProxyKey) []*stream {
	streams := make([]*stream, 0, len(x[key]))
	for st := range x[key] {
		streams = append(streams, st)
	}
	slices.SortFunc(streams, func(a, b *stream) int { return cmp.Compare(a.number, b.number) })
	return streams
}
