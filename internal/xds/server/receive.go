package server

import (
	"fmt"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"

	"github.com/jia-app/paymesh/internal/mesh"
)

const (
	// maxRequestBytes bounds a request. A reconnecting proxy names all that it has: about 100 bytes each.
	maxRequestBytes = nodeBytes + mesh.MaxNamedBytes
	// nodeBytes of that are for its node: Envoy lists the extensions that it knows, which takes it 61 KB.
	nodeBytes = 96 << 10
	// maxNames bounds what a stream may name of a type; a proxy has a few for each dependency.
	maxNames = mesh.MaxNamed
	// maxTokenBytes are kept of nonces and versions, which were ours once.
	maxTokenBytes = 64
	// unboundPatience is how long a stream may wait for its object to be known here, or say nothing. Its proxy comes again.
	unboundPatience = 30 * time.Second
)

// deltaStream and sotwStream are what the library's handlers read from. What comes is judged before they see it: they
// keep each last request with all that is in it, and read in goroutines of their own, where no interceptor reaches.
type deltaStream struct {
	discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer
	stream *stream
}

type sotwStream struct {
	discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer
	stream *stream
}

// Recv reads a request. While the stream is unbound, one is held and no other read.
func (s deltaStream) Recv() (_ *discoveryv3.DeltaDiscoveryRequest, err error) {
	defer recovered(&err)
	r, err := s.AggregatedDiscoveryService_DeltaAggregatedResourcesServer.Recv()
	if err != nil {
		return nil, err
	}
	had := r.GetInitialResourceVersions()
	asked := len(had)
	for _, name := range r.GetResourceNamesSubscribe() {
		if _, has := had[name]; !has {
			asked++
		}
	}
	kept := &discoveryv3.DeltaDiscoveryRequest{
		Node: bare(r.GetNode()), TypeUrl: r.GetTypeUrl(), ResponseNonce: token(r.GetResponseNonce()), ErrorDetail: brief(r.GetErrorDetail()),
		ResourceNamesSubscribe: r.GetResourceNamesSubscribe(), ResourceNamesUnsubscribe: r.GetResourceNamesUnsubscribe(), InitialResourceVersions: had,
	}
	return kept, s.stream.received(kept.GetNode(), max(asked, len(kept.GetResourceNamesUnsubscribe())))
}

// Recv is as above.
func (s sotwStream) Recv() (_ *discoveryv3.DiscoveryRequest, err error) {
	defer recovered(&err)
	r, err := s.AggregatedDiscoveryService_StreamAggregatedResourcesServer.Recv()
	if err != nil {
		return nil, err
	}
	kept := &discoveryv3.DiscoveryRequest{
		Node: bare(r.GetNode()), TypeUrl: r.GetTypeUrl(), ResponseNonce: token(r.GetResponseNonce()), ErrorDetail: brief(r.GetErrorDetail()),
		VersionInfo: token(r.GetVersionInfo()), ResourceNames: r.GetResourceNames(),
	}
	return kept, s.stream.received(kept.GetNode(), len(kept.GetResourceNames()))
}

func recovered(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("panic: %v", r)
	}
}

// bare is a node without what nobody reads here.
func bare(n *corev3.Node) *corev3.Node {
	if n == nil {
		return nil
	}
	return &corev3.Node{Id: n.GetId()}
}

func brief(s *rpcstatus.Status) *rpcstatus.Status {
	if s == nil {
		return nil
	}
	return &rpcstatus.Status{Code: s.GetCode(), Message: shortened(s.GetMessage())}
}

func token(s string) string { return strings.Clone(s[:min(len(s), maxTokenBytes)]) }

// received lets a request pass, once the stream is bound. What it returns otherwise the library does not look at, so that
// it ends the stream itself.
func (st *stream) received(node *corev3.Node, names int) (err error) {
	var bound <-chan struct{}
	st.server.locked(func() {
		if err = st.ctx.Err(); err != nil {
			return // it may have been forgotten already
		}
		if err = st.identify(node); err == nil && names > maxNames {
			err = st.refuse(reasonNames, codes.ResourceExhausted, fmt.Sprintf("more than %d names of one type", maxNames))
		}
		if err != nil {
			st.end(err)
			return
		}
		bound = st.admitted
	})
	if err != nil {
		return err
	}
	select {
	case <-bound:
		return nil
	case <-st.ctx.Done():
		return st.ctx.Err()
	}
}

// awaitObject bounds the time that the stream is unbound. The lock is held.
func (st *stream) awaitObject() {
	st.admitted = make(chan struct{})
	st.unbound = time.AfterFunc(st.server.unboundPatience, func() {
		var err error // nobody is there to be told
		defer st.server.recover("unboundPatience", &err)
		st.server.locked(func() {
			if !st.bound && st.ctx.Err() == nil {
				st.end(st.refuse(reasonUnbound, codes.Unavailable, "nothing is known here of the object of the node ID (yet)"))
			}
		})
	})
}

// keep charges what is kept of a type's names to the SPIFFE ID. The lock is held.
func (st *stream) keep(s *subscription, w *watch) error {
	// The library adds to what was returned what is taken back under a wildcard.
	subscribed, returned := w.SubscribedResources(), w.ReturnedResources()
	if len(subscribed) > maxNames || len(returned) > 2*maxNames {
		return st.refuse(reasonNames, codes.ResourceExhausted, fmt.Sprintf("more than %d names of one type", maxNames))
	}
	cost := 0
	for name := range subscribed {
		cost += len(name) + nameBytes
	}
	for name, version := range returned {
		cost += len(name) + len(version) + nameBytes
	}
	if !st.server.limits.charge(st.allowance, cost-s.cost) {
		return st.refuse(reasonNames, codes.ResourceExhausted, "too many names of this SPIFFE ID, over all of its streams")
	}
	s.cost = cost
	return nil
}
