package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statusv3 "github.com/envoyproxy/go-control-plane/envoy/service/status/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

const (
	// windowBytes bounds what is kept of a stream that is not read from; gRPC by itself lets that grow to 16 MB.
	windowBytes = 64 << 10
	// maxHeaderBytes bounds the headers of a call, which are kept as long as it takes; gRPC by itself takes 16 MB.
	maxHeaderBytes = 16 << 10
	// maxConnectionStreams is for one connection: Envoy opens one, a replica asks for status beside it.
	maxConnectionStreams = 16
	// maxConnectionAge bounds how long a connection outlives what it was let in by, and spreads proxies over replicas that
	// came later. It stays below half an hour, half of the default life of an X.509-SVID, with the 10 percent that gRPC
	// varies it by.
	maxConnectionAge = 25 * time.Minute
	// maxConnectionGrace is short, since an ADS stream never ends by itself.
	maxConnectionGrace = 5 * time.Second
	// maxConnectionIdle ends connections without a stream, of which there can be any number.
	maxConnectionIdle = time.Minute
	// keepaliveTime and keepaliveTimeout find a proxy whose node is gone.
	keepaliveTime    = 30 * time.Second
	keepaliveTimeout = 10 * time.Second
	// minPingInterval has to be below the interval of the proxies' own pings, which is 30 s (connection_keepalive); gRPC's
	// default of five minutes would end the connection for them.
	minPingInterval = 10 * time.Second
	// handshakeTimeout frees what somebody occupies who says nothing.
	handshakeTimeout = 10 * time.Second
	// stopTimeout is for what is under way when the server stops.
	stopTimeout = 5 * time.Second
)

// Start listens and serves until ctx is done. Then no stream is accepted any more and the open ones are ended, so that
// proxies go to another replica at once.
func (s *Server) Start(ctx context.Context) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.options.Address)
	if err != nil {
		return fmt.Errorf("listen for xDS on %q: %w", s.options.Address, err)
	}
	server := s.grpcServer()
	s.locked(func() { s.listener = listener })
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve xDS on %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	stopped := make(chan struct{})
	s.locked(func() { s.stopping = true })
	go func() {
		server.GracefulStop() // closes the listener first
		close(stopped)
	}()
	s.locked(func() {
		for st := range s.streams {
			st.end(errStopping)
		}
	})
	select {
	case <-stopped:
	case <-time.After(stopTimeout):
		server.Stop()
		<-stopped
	}
	<-served
	return nil
}

// Address is where the server listens, as host:port; empty before it does.
func (s *Server) Address() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return ""
	}
	return s.listener.Addr().String()
}

// Ready is nil while the server listens. It is a check as controller-runtime has them.
func (s *Server) Ready(*http.Request) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil || s.stopping {
		return errors.New("xDS is not served (yet)")
	}
	return nil
}

func (s *Server) grpcServer() *grpc.Server {
	server := grpc.NewServer(
		grpc.Creds(s.credentials()),
		grpc.MaxRecvMsgSize(maxRequestBytes),
		grpc.StaticStreamWindowSize(windowBytes), grpc.StaticConnWindowSize(maxConnectionStreams*windowBytes),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.MaxConcurrentStreams(maxConnectionStreams),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionAge: maxConnectionAge, MaxConnectionAgeGrace: maxConnectionGrace, MaxConnectionIdle: maxConnectionIdle,
			Time: keepaliveTime, Timeout: keepaliveTimeout,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPingInterval, PermitWithoutStream: true}),
		grpc.ChainStreamInterceptor(func(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) (err error) {
			defer s.recover(info.FullMethod, &err)
			return handle(service, stream)
		}),
		grpc.ChainUnaryInterceptor(func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (_ any, err error) {
			defer s.recover(info.FullMethod, &err)
			return handle(ctx, request)
		}),
	)
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(server, ads{server: s})
	statusv3.RegisterClientStatusDiscoveryServiceServer(server, csds{server: s})
	return server
}

// recover keeps one stream's bug from ending all others.
func (s *Server) recover(method string, err *error) {
	if r := recover(); r != nil {
		s.metrics.refused.WithLabelValues(reasonPanic).Inc()
		s.options.Log.Error(fmt.Errorf("panic: %v", r), "a call of the xDS server panicked", "method", method, "stack", string(debug.Stack()))
		*err = status.Error(codes.Internal, "xDS: internal error")
	}
}

// credentials take connections of any SPIFFE ID of the trust domain, by TLS 1.3. Whose config a stream gets its first
// request decides.
func (s *Server) credentials() credentials.TransportCredentials {
	config := tlsconfig.MTLSServerConfig(s.options.Source, s.options.Source, tlsconfig.AuthorizeMemberOf(s.options.Cluster.TrustDomain))
	config.MinVersion = tls.VersionTLS13
	// Go verifies no certificate in a resumed session, so that go-spiffe would let in again who is no longer trusted
	// (https://github.com/spiffe/go-spiffe/pull/378).
	config.SessionTicketsDisabled = true
	return &auditedCredentials{TransportCredentials: credentials.NewTLS(config), server: s, logged: rate.NewLimiter(1, handshakeLogBurst)}
}

// handshakeLogBurst bounds the log, where a line a second goes on: whoever reaches the port can fail as often as they like.
const handshakeLogBurst = 20

// auditedCredentials log and count the handshakes that fail.
type auditedCredentials struct {
	credentials.TransportCredentials
	server *Server
	logged *rate.Limiter
}

func (c *auditedCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secured, info, err := c.TransportCredentials.ServerHandshake(conn)
	if err != nil {
		c.server.metrics.refused.WithLabelValues(reasonHandshake).Inc()
		if c.logged.Allow() {
			c.server.options.Log.Info("refused an xDS connection", "reason", reasonHandshake, "remote", conn.RemoteAddr().String(), "error", err.Error())
		}
	}
	return secured, info, err
}

func (c *auditedCredentials) Clone() credentials.TransportCredentials {
	return &auditedCredentials{TransportCredentials: c.TransportCredentials.Clone(), server: c.server, logged: c.logged}
}

// caller is who is at the other end of a connection.
type caller struct {
	id       spiffeid.ID
	notAfter time.Time
	address  string
}

func peerOf(ctx context.Context) (caller, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return caller{}, status.Error(codes.Unauthenticated, "xDS: no peer")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return caller{}, status.Error(codes.Unauthenticated, "xDS: no client certificate")
	}
	id, err := x509svid.IDFromCert(info.State.PeerCertificates[0])
	if err != nil {
		return caller{}, status.Error(codes.Unauthenticated, "xDS: the client certificate has no SPIFFE ID")
	}
	return caller{id: id, notAfter: info.State.PeerCertificates[0].NotAfter, address: p.Addr.String()}, nil
}
