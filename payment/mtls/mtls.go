// Package mtls gives a process its SPIFFE credentials: files or the Workload API go in, gRPC's transport credentials come
// out, for a server that knows its callers and for clients that know whom they call.
package mtls

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/credentials"

	"github.com/jia-app/paymesh/payment/config"
)

// Source is where certificates and trust bundles come from, at each handshake anew.
type Source interface {
	x509svid.Source
	x509bundle.Source
}

// Identity is the process's own certificate, as long as it has one.
type Identity interface {
	Source
	// Ready says why there is no certificate that peers would take, or nil.
	Ready() error
	// Wait waits until there is one.
	Wait(ctx context.Context) error
	// Close ends what keeps it current.
	Close() error
}

// Open begins to keep the identity that the configuration names. It returns at once: files must be there, and the Workload
// API gives the certificate when it can, which Wait waits for. Close it last.
func Open(m config.MTLS, want spiffeid.ID, log *slog.Logger) (Identity, error) {
	if m.WorkloadAPI == "" {
		return openFiles(m, want)
	}
	return openWorkloadAPI(m.WorkloadAPI, want, log)
}

// ServerOptions say who is told of connections that end before their caller has proved who it is.
type ServerOptions struct {
	Log *slog.Logger
	// Registerer gets the metric.
	Registerer prometheus.Registerer
}

// Server are the credentials of a server whose callers have a certificate of a trust domain that the source knows; whether
// they may call is decided for each call. They are gRPC's own TLS credentials, so that the handler finds a
// credentials.TLSInfo (those of go-spiffe's grpccredentials hide it).
func Server(source Source, o ServerOptions) (credentials.TransportCredentials, error) {
	settings := tlsconfig.MTLSServerConfig(source, source, tlsconfig.AuthorizeAny())
	settings.MinVersion = tls.VersionTLS13
	// A resumed session is not verified again (go-spiffe pull request 378): a caller whose ID or authority was taken away
	// would go on with its ticket.
	settings.SessionTicketsDisabled = true
	failed := prometheus.NewCounter(prometheus.CounterOpts{Name: "grpc_server_handshakes_failed_total", Help: "Connections whose peer did not prove who it is; the log has each."})
	return &serverCredentials{credentials.NewTLS(settings), o.Log, failed}, o.Registerer.Register(failed)
}

// Client are the credentials of a client that calls one workload.
func Client(source Source, peer spiffeid.ID) credentials.TransportCredentials {
	settings := tlsconfig.MTLSClientConfig(source, source, tlsconfig.AdaptMatcher(func(id spiffeid.ID) error {
		if id != peer {
			return fmt.Errorf("unexpected ID %q: want %q", id, peer)
		}
		return nil
	}))
	settings.MinVersion = tls.VersionTLS13
	return credentials.NewTLS(settings)
}

// serverCredentials tell of failed handshakes, which gRPC keeps to itself.
type serverCredentials struct {
	credentials.TransportCredentials
	log    *slog.Logger
	failed prometheus.Counter
}

func (s *serverCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secured, info, err := s.TransportCredentials.ServerHandshake(conn)
	switch {
	case errors.Is(err, io.EOF): // it asked whether the port is open
		s.log.Debug("a connection ended before its handshake", "peer", conn.RemoteAddr().String())
	case err != nil:
		s.failed.Inc()
		s.log.Warn("connection refused", "peer", conn.RemoteAddr().String(), "explanation", err.Error())
	}
	return secured, info, err
}

// Clone is for gRPC.
func (s *serverCredentials) Clone() credentials.TransportCredentials {
	return &serverCredentials{s.TransportCredentials.Clone(), s.log, s.failed}
}
