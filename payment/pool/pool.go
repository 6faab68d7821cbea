// Package pool keeps the connections to other services: a service of the configuration goes in, one connection comes out
// that proves who is at its other end, counts its calls, and ends them at once while the service is down.
package pool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/jia-app/paymesh/payment/breaker"
	"github.com/jia-app/paymesh/payment/config"
	"github.com/jia-app/paymesh/payment/discovery"
	"github.com/jia-app/paymesh/payment/interceptor"
	"github.com/jia-app/paymesh/payment/mtls"
)

const (
	// maxReconnectDelay keeps gRPC from waiting two minutes for a service that is back.
	maxReconnectDelay = time.Second
	// A connection whose other end is silent for pingAfter while a call is under way is asked, and dropped where nothing comes
	// back within pingTimeout, nor an acknowledgement of what was sent: a machine that lost power closes nothing. The longest
	// call that config.yaml allows asks once, which servers with gRPC's defaults take.
	pingAfter   = 30 * time.Second
	pingTimeout = 10 * time.Second
	// maxAnswer is far above any answer of these services.
	maxAnswer = 1 << 20
)

// inTurn sends calls to all addresses of a service in turn; one that cannot be connected is left out until it can.
const inTurn = `{"loadBalancingConfig": [{"round_robin": {}}]}`

// Options are what all connections of a pool share.
type Options struct {
	// Source is the process's identity. nil, connections are in plaintext: to the sidecar on loopback, or in development.
	Source mtls.Source
	// Discovery finds the services.
	Discovery *discovery.Discovery
	// CircuitBreaker is that of each service.
	CircuitBreaker config.CircuitBreaker
	// Registerer takes the metrics grpc_client_* and circuit_breaker_state.
	Registerer prometheus.Registerer
	// Log says when a circuit breaker opens and closes.
	Log *slog.Logger
	// Dial are more options of each connection, as tracing has them.
	Dial []grpc.DialOption
}

// Pool has one connection for each service: HTTP/2 carries all calls at once.
type Pool struct {
	options   Options
	calls     *interceptor.Calls
	keepalive keepalive.ClientParameters

	mu    sync.Mutex
	conns map[string]*Conn
}

// New makes an empty pool and registers the metrics of its calls.
func New(o Options) (*Pool, error) {
	calls, err := interceptor.NewCalls("client", o.Registerer)
	if err != nil {
		return nil, fmt.Errorf("register the metrics of calls: %w", err)
	}
	return &Pool{
		options: o, calls: calls, keepalive: keepalive.ClientParameters{Time: pingAfter, Timeout: pingTimeout}, conns: map[string]*Conn{},
	}, nil
}

// Connect returns the connection to a service, the same one for each call with the same settings. It does not wait: the
// first call connects. With a Source, whoever answers must have the service's SPIFFE ID, to the letter.
func (p *Pool) Connect(service config.ExternalService) (*Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if have := p.conns[service.Name]; have != nil {
		if have.service != service {
			return nil, fmt.Errorf("%s is connected with other settings: give one of the two services another name", service.Name)
		}
		return have, nil
	}
	if service.TimeoutSeconds < 1 {
		return nil, fmt.Errorf("the timeout_seconds of %s is %d: want 1 or more, since no call would have the time", service.Name, service.TimeoutSeconds)
	}
	creds, err := p.credentials(service)
	if err != nil {
		return nil, err
	}
	target, err := p.options.Discovery.Target(service.Address)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", service.Name, err)
	}
	c := &Conn{service: service}
	guard, err := p.guard(c)
	if err != nil {
		return nil, err
	}
	c.ClientConn, err = grpc.NewClient(target, append([]grpc.DialOption{
		grpc.WithTransportCredentials(creds), grpc.WithResolvers(p.options.Discovery.Builders()...),
		grpc.WithChainUnaryInterceptor(p.calls.Client, guard, interceptor.Timeout(service.Timeout())),
		grpc.WithChainStreamInterceptor(p.calls.ClientStream),
		grpc.WithDefaultServiceConfig(inTurn),
		// What DNS says of retries is not asked for, and there are none: with a sidecar it retries, and without one a call
		// whose bytes have left may have had its effect. gRPC itself sends again only what has not left.
		grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(),
		grpc.WithKeepaliveParams(p.keepalive),
		// A call that finds no connection waits for one, within its deadline: a service that was restarted, or a sidecar that is
		// late, fails nobody. Where it stays away, the circuit breaker keeps the others from waiting.
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer), grpc.WaitForReady(true)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: maxReconnectDelay},
			MinConnectTimeout: service.Timeout(),
		}),
	}, p.options.Dial...)...)
	if err != nil {
		return nil, fmt.Errorf("connect to %s at %s: %w", service.Name, service.Address, err)
	}
	p.conns[service.Name] = c
	return c, nil
}

func (p *Pool) credentials(service config.ExternalService) (credentials.TransportCredentials, error) {
	if p.options.Source == nil {
		return insecure.NewCredentials(), nil
	}
	id, err := spiffeid.FromString(service.SPIFFEID)
	if err != nil {
		return nil, fmt.Errorf("the spiffe_id of %s: %w", service.Name, err)
	}
	return mtls.Client(p.options.Source, id), nil
}

// guard notes the outcomes of calls, behind the service's circuit breaker. Health checks pass both by: they ask whether the
// service is back.
func (p *Pool) guard(c *Conn) (grpc.UnaryClientInterceptor, error) {
	guarded := grpc.UnaryClientInterceptor(c.note)
	if settings := p.options.CircuitBreaker; settings.Enabled {
		c.breaker.Store(closed)
		broken, err := breaker.New(breaker.Options{
			Target: c.service.Name, FailureThreshold: settings.FailureThreshold, Open: settings.OpenTimeout(),
			Log: p.options.Log, OnChange: func(state string) { c.breaker.Store(state) },
		}, p.options.Registerer)
		if err != nil {
			return nil, fmt.Errorf("register the metrics of the circuit breaker of %s: %w", c.service.Name, err)
		}
		guarded = func(ctx context.Context, method string, request, answer any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			noted := func(ctx context.Context, method string, request, answer any, conn *grpc.ClientConn, opts ...grpc.CallOption) error {
				return c.note(ctx, method, request, answer, conn, call, opts...)
			}
			return broken(ctx, method, request, answer, conn, noted, opts...)
		}
	}
	return func(ctx context.Context, method string, request, answer any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		if method == healthMethod {
			return call(ctx, method, request, answer, conn, opts...)
		}
		return guarded(ctx, method, request, answer, conn, call, opts...)
	}, nil
}

// Close ends all connections, and the calls on them.
func (p *Pool) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for name, conn := range p.conns {
		if err := conn.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close the connection to %s: %w", name, err))
		}
	}
	p.conns = map[string]*Conn{}
	return errors.Join(errs...)
}
