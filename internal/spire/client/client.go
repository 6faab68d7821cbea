// Package client reads and writes the entries of a SPIRE server: plans go in, what became of each of their entries comes
// out. It is a thin adapter of the server's entry API, which knows how that API answers and decides nothing else.
package client

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	bundlev1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/bundle/v1"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/jia-app/paymesh/internal/svid"
)

const (
	// connectTimeout is for TCP and TLS together. A server in the same cluster needs milliseconds; a node that is gone
	// never answers.
	connectTimeout = 5 * time.Second
	// maxReconnectDelay keeps gRPC from waiting longer (two minutes by default) than the registry between its probes.
	maxReconnectDelay = time.Second
	// readTimeout is for one entry or one page: a page of 1,000 takes SPIRE about 25 ms of an idle SQLite, and seconds of
	// a loaded database.
	readTimeout = 10 * time.Second
	// writeTimeout is for one batch, whose entries SPIRE writes in a transaction each: 50 take 0.1 s on SQLite, and a
	// replicated database takes up to 0.2 s for each.
	writeTimeout = 20 * time.Second
	// maxAnswerBytes bounds a page. 1,000 entries of the largest kind have about 20 MB; gRPC's default of 4 MB is
	// exceeded at 4 KB an entry.
	maxAnswerBytes = 64 << 20
)

// retries are gRPC's own (gRPC proposal A6): SPIRE ends each TCP connection after three minutes, and what is under way on
// a connection that breaks fails with UNAVAILABLE. Every write may be repeated, for its entry ID says what it is: a second
// create finds the entry, a second delete finds nothing, a second update sets the same again.
const retries = `{"methodConfig": [{
	"name": [{"service": "spire.api.server.entry.v1.Entry"}, {"service": "spire.api.server.bundle.v1.Bundle"}],
	"retryPolicy": {"maxAttempts": 3, "initialBackoff": "0.1s", "maxBackoff": "0.5s", "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}
}]}`

// Client speaks to one SPIRE server, or to several behind one name. Calls fail with a clear error
// until there is a connection.
type Client struct {
	address  string
	conn     *grpc.ClientConn
	entries  entryv1.EntryClient
	bundles  bundlev1.BundleClient
	svid     *svid.Source // nil on the admin socket
	lines    lines
	timeouts timeouts
}

// timeouts are those of a client's calls; tests shorten them.
type timeouts struct{ read, write time.Duration }

// TCPOptions say which SPIRE server to speak to, and as whom.
type TCPOptions struct {
	// Address is host:port of the server's TCP endpoint.
	Address string
	// SVID is what to present. The server must have its ID in its admin_ids, or an entry with it must be an admin entry.
	// The server itself must be spiffe://<trust domain of the ID>/spire/server.
	SVID *svid.Source
	// Registerer takes the metrics of the calls; nil for none.
	Registerer prometheus.Registerer
}

// NewTCP makes a client of the server's TCP endpoint, with mutual TLS by an SVID of our own (SPIFFE X509-SVID). It neither
// connects nor waits: calls fail with a clear error as long as there is no SVID.
func NewTCP(o TCPOptions) (*Client, error) {
	server, err := spiffeid.FromPath(o.SVID.ID().TrustDomain(), "/spire/server")
	if err != nil {
		return nil, fmt.Errorf("the ID to present to the SPIRE server, %q: %w", o.SVID.ID(), err)
	}
	c := &Client{address: o.Address, svid: o.SVID}
	tls := tlsconfig.MTLSClientConfig(c.svid, c.svid, tlsconfig.AuthorizeID(server))
	return c.connect("dns:///"+o.Address, "tcp", credentials.NewTLS(tls), o.Registerer)
}

// NewUnix makes a client of the server's admin socket, which takes whoever may open it for an administrator.
func NewUnix(socket string, registerer prometheus.Registerer) (*Client, error) {
	c := &Client{address: socket}
	return c.connect("passthrough:///"+socket, "unix", insecure.NewCredentials(), registerer)
}

func (c *Client) connect(target, network string, creds credentials.TransportCredentials, registerer prometheus.Registerer) (*Client, error) {
	c.timeouts = timeouts{read: readTimeout, write: writeTimeout}
	conn, err := grpc.NewClient(target,
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return c.lines.dial(ctx, network, address)
		}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: maxReconnectDelay},
			MinConnectTimeout: connectTimeout,
		}),
		grpc.WithDefaultServiceConfig(retries), grpc.WithDisableServiceConfig(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswerBytes)),
		grpc.WithChainUnaryInterceptor(newMetrics(registerer).observe, c.guard),
	)
	if err != nil {
		return nil, fmt.Errorf("the address of the SPIRE server, %q: %w", c.address, err)
	}
	c.conn, c.entries, c.bundles = conn, entryv1.NewEntryClient(conn), bundlev1.NewBundleClient(conn)
	return c, nil
}

// Start hangs up when ctx ends. It is a controller-runtime Runnable.
func (c *Client) Start(ctx context.Context) error {
	<-ctx.Done()
	return c.Close()
}

// NeedLeaderElection is false: a manager that only waits to lead reads what there is, and knows it when it does.
func (c *Client) NeedLeaderElection() bool { return false }

// Close ends the connection. Calls fail from then on.
func (c *Client) Close() error { return c.conn.Close() }

// guard keeps calls from waiting: for an SVID that is not there, and for a server that does not answer.
func (c *Client) guard(ctx context.Context, method string, request, answer any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if c.svid != nil {
		if err := c.svid.Ready(); err != nil {
			return status.Error(codes.Unavailable, err.Error())
		}
	}
	limited, cancel := context.WithTimeout(ctx, c.timeouts.of(method))
	defer cancel()
	err := call(limited, method, request, answer, conn, opts...)
	if status.Code(err) == codes.DeadlineExceeded && !sameDeadline(ctx, limited) {
		// A peer that vanished without a word (its node lost power) is noticed by TCP after a quarter of an hour, and
		// SPIRE forbids keepalive pings more often than every five minutes.
		c.lines.cut()
	}
	return err
}

// sameDeadline reports whether it is the caller's deadline that limits a call, which says nothing about the server.
func sameDeadline(caller, limited context.Context) bool {
	callers, has := caller.Deadline()
	ours, _ := limited.Deadline()
	return has && callers.Equal(ours)
}

func (t timeouts) of(method string) time.Duration {
	switch method {
	case entryv1.Entry_BatchCreateEntry_FullMethodName, entryv1.Entry_BatchUpdateEntry_FullMethodName, entryv1.Entry_BatchDeleteEntry_FullMethodName:
		return t.write
	}
	return t.read
}

// lines are the connections that gRPC has open.
type lines struct {
	mu   sync.Mutex
	open map[*line]struct{}
}

type line struct {
	net.Conn
	lines *lines
}

func (l *lines) dial(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: connectTimeout}
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err // gRPC adds what it was doing, and net the address
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == nil {
		l.open = map[*line]struct{}{}
	}
	opened := &line{Conn: conn, lines: l}
	l.open[opened] = struct{}{}
	return opened, nil
}

// cut closes what is open; gRPC connects again by itself.
func (l *lines) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for open := range l.open {
		_ = open.Conn.Close()
	}
	clear(l.open)
}

// Close closes the connection and forgets it.
func (l *line) Close() error {
	l.lines.mu.Lock()
	delete(l.lines.open, l)
	l.lines.mu.Unlock()
	return l.Conn.Close()
}
