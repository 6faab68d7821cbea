package server

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/jia-app/paymesh/internal/mesh"
)

// stream is one ADS stream of one proxy. What is below number belongs to the server's lock.
type stream struct {
	server *Server
	peer   spiffeid.ID
	remote string
	// allowance is that of the peer.
	allowance *allowance
	// ctx is the stream's: others end it, too.
	ctx    context.Context
	cancel context.CancelFunc
	// number grows: of two streams of one proxy the one with the higher number is the live one.
	number uint64

	// node is the node ID of the first request; empty before it.
	node string
	key  mesh.ProxyKey
	pod  string
	// bound is set while the peer's SPIFFE ID is known to be that of the object, and admitted closed. An unbound stream
	// waits, and is told nothing; unbound ends it.
	bound    bool
	admitted chan struct{}
	unbound  *time.Timer
	// entering is set from when the stream is read from until it is bound.
	entering bool
	// ended is why the server ended the stream.
	ended         error
	subscriptions map[string]*subscription
	// patience ends the wait for clusters to be accepted before what uses them is sent; impatient says that it has.
	patience  *time.Timer
	impatient bool
	// reported is what was last told of the proxy.
	reported Proxy
}

// identify binds the stream to the object that the first request's node ID names, if the peer may have it.
func (st *stream) identify(node *corev3.Node) error {
	if st.node != "" {
		if id := node.GetId(); id != "" && id != st.node {
			return st.refuse(reasonNodeChanged, codes.PermissionDenied, "a stream is for one node ID, which may not change")
		}
		return nil
	}
	key, pod, err := mesh.ParseNodeID(node.GetId())
	if err != nil {
		return st.refuse(reasonNodeID, codes.PermissionDenied, "the first request has no node ID as kind/namespace/name/pod")
	}
	st.node, st.key, st.pod = node.GetId(), key, pod
	st.server.byKey.add(key, st)
	return st.admit()
}

// admit decides by the peer's SPIFFE ID whether the stream may have the config of its object. While the object is not
// known here (the replica has just started, or the object is new) it may neither have it nor be refused it: it waits.
func (st *stream) admit() error {
	c, known := st.server.configs[st.key]
	if known && c.id != st.peer {
		st.bind(false)
		return st.refuse(reasonIdentity, codes.PermissionDenied, "the certificate's SPIFFE ID may not have the config of this node ID", "wanted", c.id.String())
	}
	st.bind(known)
	return nil
}

func (st *stream) bind(bound bool) {
	if st.bound == bound {
		return
	}
	st.bound = bound
	st.server.metrics.bound(bound)
	st.server.changed(st.key)
	if !bound {
		st.awaitObject()
		return
	}
	st.unbound.Stop()
	close(st.admitted)
	st.leave()
}

// enter waits until the stream may be read from.
func (st *stream) enter() error {
	if err := st.allowance.enter(st.ctx); err != nil {
		return err
	}
	st.server.locked(func() { st.entering = true })
	return nil
}

// leave makes room for the next one. The lock is held.
func (st *stream) leave() {
	if st.entering {
		st.entering = false
		st.allowance.leave()
	}
}

// refuse logs and counts, and gives the error to end the stream with. It tells the peer nothing that it does not know.
func (st *stream) refuse(reason string, code codes.Code, text string, more ...any) error {
	st.server.metrics.refused.WithLabelValues(reason).Inc()
	st.server.options.Log.Info("refused an xDS stream", append([]any{"reason", reason, "node", st.node, "spiffeID", st.peer.String(), "remote", st.remote}, more...)...)
	return status.Error(code, "xDS: "+text)
}

// end ends the stream with an error; the first one holds.
func (st *stream) end(err error) {
	if st.ended == nil {
		st.ended = err
	}
	st.cancel()
}

// request takes in what every request has, in both variants of the protocol.
func (st *stream) request(typeURL, nonce string, detail *rpcstatus.Status) error {
	if !slices.Contains(order, typeURL) {
		return st.refuse(reasonType, codes.InvalidArgument, "only clusters, endpoints, listeners and routes are served here", "type", fmt.Sprintf("%.200q", typeURL))
	}
	s := st.subscriptions[typeURL]
	if s == nil {
		return nil
	}
	rejected := len(s.held.rejected) > 0
	known, nack, names := s.answered(nonce, detail)
	if known && (slices.Contains(judged, typeURL) || nack || rejected) { // of endpoints no more is told than what is rejected
		st.touched()
	}
	switch {
	case !known:
	case nack:
		st.server.metrics.nacks.WithLabelValues(typeName(typeURL)).Inc()
		st.server.options.Log.Info("a proxy rejects its config", "node", st.node, "type", typeURL, "resources", names, "message", detail.GetMessage())
	default:
		st.server.metrics.acks.WithLabelValues(typeName(typeURL)).Inc()
	}
	return nil
}

// watch opens a question, and answers whatever can be answered now.
func (st *stream) watch(typeURL string, w *watch) (cancel func(), err error) {
	st.server.locked(func() {
		s := st.subscriptions[typeURL]
		if err = st.keep(s, w); err != nil {
			return
		}
		s.watch = w
		st.pump()
	})
	cancel = func() {
		st.server.locked(func() {
			if s := st.subscriptions[typeURL]; s.watch == w {
				s.watch = nil
			}
		})
	}
	return cancel, err
}

// pump answers the open watches, as far as there is something new, and takes note of how the proxy stands.
func (st *stream) pump() {
	c, known := st.server.configs[st.key]
	if !known || !st.bound || st.ctx.Err() != nil {
		return
	}
	for _, typeURL := range order {
		s := st.subscriptions[typeURL]
		if s == nil || s.watch == nil || st.waitsForClusters(typeURL) {
			continue
		}
		if s.had != "" {
			st.touched()
		}
		a, ok := s.next(c.contents[typeURL], st.routesMayBeOld(c))
		if !ok {
			continue
		}
		w := s.watch
		s.watch, s.greeted, s.current = nil, true, nil
		if typeURL == resource.ClusterType {
			st.awaitClusters()
		}
		w.send(a)
	}
	st.review(c)
}

// waitsForClusters holds listeners and routes back while the proxy has not answered to its clusters: Envoy accepts them
// once they are warm, just so that a control plane can tell. A route to a cluster that is not yet warm answers 503.
func (st *stream) waitsForClusters(typeURL string) bool {
	clusters := st.subscriptions[resource.ClusterType]
	return (typeURL == resource.ListenerType || typeURL == resource.RouteType) && clusters != nil && clusters.watch == nil && !st.impatient
}

// awaitClusters bounds that wait: rules that revoke something travel in routes, and a cluster may never become warm.
func (st *stream) awaitClusters() {
	st.impatient = false
	if st.patience != nil {
		st.patience.Stop()
	}
	st.patience = time.AfterFunc(st.server.clusterPatience, func() {
		var err error // nobody is there to be told
		defer st.server.recover("clusterPatience", &err)
		st.server.locked(func() {
			st.impatient = true
			st.pump()
		})
	})
}

// routesMayBeOld says that the proxy has not accepted the wanted listeners and routes, so that it may still route to
// clusters that nothing wants any more.
func (st *stream) routesMayBeOld(c *objectConfig) bool {
	if st.subscriptions[resource.ListenerType] == nil {
		return false
	}
	for _, typeURL := range []string{resource.ListenerType, resource.RouteType} {
		s := st.subscriptions[typeURL]
		if s == nil && len(c.contents[typeURL]) > 0 || s != nil && !s.held.inSync(typeURL, c.wanted[typeURL]) {
			return true
		}
	}
	return false
}

// touched says that what the proxy holds has changed, for other replicas. An unbound stream is not told of.
func (st *stream) touched() {
	if st.bound {
		st.server.touched(st.key)
	}
}

// review tells when what is reported of the proxy has changed.
func (st *stream) review(c *objectConfig) {
	now := st.holdings().proxy(st.pod, c.wanted)
	if !now.equal(st.reported) {
		st.reported = now
		st.server.changed(st.key)
	}
}

// holdings are what the proxy holds. They may be read under the lock only.
func (st *stream) holdings() holdings {
	h := holdings{}
	for typeURL, s := range st.subscriptions {
		h[typeURL] = s.held
	}
	return h
}

// clone copies the holdings, to be read without the lock.
func (h holdings) clone() holdings {
	copied := holdings{}
	for typeURL, of := range h {
		copied[typeURL] = held{accepted: maps.Clone(of.accepted), rejected: maps.Clone(of.rejected)}
	}
	return copied
}
