package server

import (
	"context"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/config"
	"github.com/envoyproxy/go-control-plane/pkg/server/delta/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/sotw/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ads speaks the two variants of the protocol. go-control-plane's handlers do: they keep nonces and subscriptions. Its
// snapshot cache does not serve here: it never says what was accepted, knows no waiting for an identity, takes removals and
// additions for one step, drops SotW questions that do not name all of a snapshot, and forgets open streams with their
// snapshot. So each stream is its own handler, cache and callbacks.
type ads struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	server *Server
}

// notWildcard are the types of which an empty request asks for nothing (xDS protocol, "how the client specifies what
// resources to return").
var notWildcard = config.DeactivateLegacyWildcardForTypes([]string{resource.EndpointType, resource.RouteType})

func (a ads) DeltaAggregatedResources(grpcStream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) (err error) {
	st, err := a.server.open(grpcStream.Context())
	if err != nil {
		return err
	}
	defer func() { err = a.server.close(st, err) }()
	if err := st.enter(); err != nil {
		return err
	}
	return delta.NewServer(st.ctx, st, st, notWildcard).DeltaStreamHandler(deltaStream{grpcStream, st}, resource.AnyType)
}

func (a ads) StreamAggregatedResources(grpcStream discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) (err error) {
	st, err := a.server.open(grpcStream.Context())
	if err != nil {
		return err
	}
	defer func() { err = a.server.close(st, err) }()
	if err := st.enter(); err != nil {
		return err
	}
	return sotw.NewServer(st.ctx, st, st, notWildcard, sotw.WithOrderedADS()).StreamHandler(sotwStream{grpcStream, st}, resource.AnyType)
}

// OnDeltaStreamOpen is called by the library.
func (st *stream) OnDeltaStreamOpen(context.Context, int64, string) error { return nil }

// OnDeltaStreamClosed is called by the library.
func (st *stream) OnDeltaStreamClosed(int64, *corev3.Node) {}

// OnStreamDeltaRequest looks at a request before the library does: an error ends the stream.
func (st *stream) OnStreamDeltaRequest(_ int64, r *discoveryv3.DeltaDiscoveryRequest) (err error) {
	st.server.locked(func() {
		if err = st.request(r.GetTypeUrl(), r.GetResponseNonce(), r.GetErrorDetail()); err != nil {
			return
		}
		s := st.subscriptions[r.GetTypeUrl()]
		if s == nil {
			// What it has from another replica, or from before a break, it has accepted.
			had := r.GetInitialResourceVersions()
			st.subscriptions[r.GetTypeUrl()] = &subscription{typeURL: r.GetTypeUrl(), held: newHeld(had), greeted: len(had) > 0}
			st.touched()
			return
		}
		if len(r.GetResourceNamesUnsubscribe()) > 0 {
			s.held.forget(r.GetResourceNamesUnsubscribe())
			st.touched()
		}
		for _, name := range r.GetResourceNamesSubscribe() {
			if s.again == nil {
				s.again = map[string]bool{}
			}
			s.again[name] = true
		}
		for _, name := range r.GetResourceNamesUnsubscribe() {
			delete(s.again, name)
		}
	})
	return err
}

// OnStreamDeltaResponse notes what goes out, to know what an ACK or a NACK is about.
func (st *stream) OnStreamDeltaResponse(_ int64, _ *discoveryv3.DeltaDiscoveryRequest, r *discoveryv3.DeltaDiscoveryResponse) {
	versions := make(map[string]string, len(r.GetResources()))
	for _, of := range r.GetResources() {
		versions[of.GetName()] = of.GetVersion()
	}
	st.server.metrics.pushes.WithLabelValues(typeName(r.GetTypeUrl())).Inc()
	st.server.locked(func() {
		st.subscriptions[r.GetTypeUrl()].sent(response{nonce: r.GetNonce(), versions: versions, removed: r.GetRemovedResources()})
	})
}

// CreateDeltaWatch opens a question.
func (st *stream) CreateDeltaWatch(r *discoveryv3.DeltaDiscoveryRequest, s cache.Subscription, answers chan cache.DeltaResponse) (func(), error) {
	return st.watch(r.GetTypeUrl(), &watch{Subscription: s, send: func(a answer) {
		of := &cache.DeltaPassthroughResponse{DeltaRequest: r, NextVersionMap: a.known, DeltaDiscoveryResponse: &discoveryv3.DeltaDiscoveryResponse{
			TypeUrl: r.GetTypeUrl(), SystemVersionInfo: a.version, Resources: a.resources, RemovedResources: a.removed,
		}}
		select {
		case answers <- of: // it has room for more than one answer for each type, and there is never more
		default:
			st.end(status.Error(codes.Internal, "xDS: the stream is stuck"))
		}
	}})
}

// OnStreamOpen is called by the library.
func (st *stream) OnStreamOpen(context.Context, int64, string) error { return nil }

// OnStreamClosed is called by the library.
func (st *stream) OnStreamClosed(int64, *corev3.Node) {}

// OnStreamRequest looks at a request before the library does: an error ends the stream.
func (st *stream) OnStreamRequest(_ int64, r *discoveryv3.DiscoveryRequest) (err error) {
	st.server.locked(func() {
		if err = st.request(r.GetTypeUrl(), r.GetResponseNonce(), r.GetErrorDetail()); err != nil {
			return
		}
		s := st.subscriptions[r.GetTypeUrl()]
		if s == nil {
			s = &subscription{typeURL: r.GetTypeUrl(), held: newHeld(nil)}
			if fullState(r.GetTypeUrl()) && (len(r.GetResourceNames()) == 0 || slices.Contains(r.GetResourceNames(), "*")) {
				s.had, s.greeted = r.GetVersionInfo(), r.GetVersionInfo() != ""
			}
			st.subscriptions[r.GetTypeUrl()] = s
			return
		}
		if !fullState(r.GetTypeUrl()) {
			subscribed := map[string]bool{}
			for _, name := range r.GetResourceNames() {
				subscribed[name] = true
			}
			for name := range s.held.accepted {
				if !subscribed[name] {
					s.held.forget([]string{name})
					st.touched()
				}
			}
		}
	})
	return err
}

// OnStreamResponse notes what goes out, to know what an ACK or a NACK is about.
func (st *stream) OnStreamResponse(_ context.Context, _ int64, _ *discoveryv3.DiscoveryRequest, r *discoveryv3.DiscoveryResponse) {
	st.server.metrics.pushes.WithLabelValues(typeName(r.GetTypeUrl())).Inc()
	st.server.locked(func() {
		s := st.subscriptions[r.GetTypeUrl()]
		if s.outgoing.message != r {
			return
		}
		out := s.outgoing
		out.nonce = r.GetNonce()
		if fullState(r.GetTypeUrl()) { // what is not in it is gone
			for name := range s.held.accepted {
				if _, has := out.versions[name]; !has {
					out.removed = append(out.removed, name)
				}
			}
		}
		s.sent(out)
	})
}

// CreateWatch opens a question.
func (st *stream) CreateWatch(r *discoveryv3.DiscoveryRequest, of cache.Subscription, answers chan cache.Response) (func(), error) {
	return st.watch(r.GetTypeUrl(), &watch{Subscription: of, full: true, send: func(a answer) {
		s := st.subscriptions[r.GetTypeUrl()]
		message := &discoveryv3.DiscoveryResponse{TypeUrl: r.GetTypeUrl(), VersionInfo: a.version}
		for _, of := range a.resources {
			message.Resources = append(message.Resources, of.GetResource())
		}
		s.outgoing = response{message: message, versions: a.known}
		select {
		case answers <- &cache.PassthroughResponse{Request: r, DiscoveryResponse: message, ReturnedResources: a.known}:
		default: // as above
			st.end(status.Error(codes.Internal, "xDS: the stream is stuck"))
		}
	}})
}

func fullState(typeURL string) bool { return cache.ResourceRequiresFullStateInSotw(typeURL) }
