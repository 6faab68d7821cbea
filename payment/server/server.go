// Package server is the payment service as a process runs it: a configuration goes in, and the payment API, /health and
// /metrics come out, until the context ends.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"buf.build/go/protovalidate"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/jia-app/paymesh/payment/config"
	"github.com/jia-app/paymesh/payment/interceptor"
	"github.com/jia-app/paymesh/payment/mtls"
	"github.com/jia-app/paymesh/payment/paymentv1"
	"github.com/jia-app/paymesh/payment/policy"
	"github.com/jia-app/paymesh/payment/services"
	"github.com/jia-app/paymesh/payment/store"
	"github.com/jia-app/paymesh/payment/tracing"
)

const (
	// sweepInterval is how often old idempotency keys are forgotten.
	sweepInterval = time.Hour
	// storeWait is for the process before this one, whose pod ends: on top of the time that its calls have, for that which a
	// pod goes on before it tells its process. A process that ended instead would be started again later each time.
	storeWait = 40 * time.Second
	// maxRequest is what a gateway passes on, below what gRPC takes by default: the rules of the protos say what in it is too
	// long. An error of gRPC's own would be 429 to a client of JSON, which invites to try again.
	maxRequest = 1 << 20
	// maxConnectionAge makes callers connect, and prove who they are, again: half of an SVID's hour.
	maxConnectionAge = 30 * time.Minute
	// maxConnectionAgeGrace is for calls under way on a connection of that age, and ends streams that a rule let in before.
	maxConnectionAgeGrace = time.Minute
	// minKeepalive lets callers ask more often than every 5 minutes, gRPC's default, whether the process is there.
	minKeepalive = 10 * time.Second
	// handshakeTimeout is for a connection to prove who it is; gRPC's default holds silent ones for two minutes.
	handshakeTimeout = 10 * time.Second
	httpTimeout      = 10 * time.Second
)

// Server is a wired payment service.
type Server struct {
	config   config.Config
	log      *slog.Logger
	store    *store.Store // there once opened is closed
	opened   chan struct{}
	grpc     *grpc.Server
	http     *http.Server
	health   *health.Server
	end      context.CancelFunc // of streams
	payments *payments
	services *services.Manager
	tracer   *tracing.Tracer
	identity mtls.Identity // nil where a sidecar has it
	policy   *policy.File  // nil where there is none
	serving  atomic.Bool
	registry *prometheus.Registry
	closers  []func() error // in the order of opening

	grpcListener, httpListener net.Listener
}

// New wires the service, opens its store and binds its addresses; Run serves. While the Workload API has no certificate yet,
// or the process before this one has the store, Run waits for them, and binds the address of the payment API then.
func New(ctx context.Context, c config.Config, log *slog.Logger) (_ *Server, err error) {
	s := &Server{config: c, log: log, registry: prometheus.NewRegistry(), payments: &payments{now: time.Now, log: log}, health: health.NewServer(), opened: make(chan struct{})}
	s.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if err := s.openIdentity(); err != nil {
		return nil, err
	}
	if err := s.openStore(ctx, 0); err != nil && !errors.Is(err, store.ErrInUse) {
		return nil, err
	}
	if err := s.connect(ctx); err != nil {
		return nil, err
	}
	if err := s.wire(); err != nil {
		return nil, err
	}
	return s, s.listen(ctx)
}

// openIdentity begins to keep the process's certificate, where it speaks mTLS itself.
func (s *Server) openIdentity() error {
	if !s.config.MTLS.Enabled {
		return nil
	}
	own, err := spiffeid.FromString(s.config.ServiceMesh.SPIFFEID)
	if err != nil {
		return fmt.Errorf("service_mesh.spiffe_id: %w", err)
	}
	if s.identity, err = mtls.Open(s.config.MTLS, own, s.log); err != nil {
		return err
	}
	s.closers = append(s.closers, s.identity.Close)
	return nil
}

// openStore opens the store, and waits so long for the process that has it.
func (s *Server) openStore(ctx context.Context, wait time.Duration) error {
	opened, err := store.Open(ctx, s.config.Store.Path, store.Options{Retention: s.config.Store.IdempotencyRetention(), Wait: wait})
	if err != nil {
		return err
	}
	s.closers = append(s.closers, opened.Close)
	s.store, s.payments.store = opened, opened
	close(s.opened)
	return nil
}

// credentials are the server's: SPIFFE mTLS, or plaintext on loopback, where the sidecar is.
func (s *Server) credentials() (credentials.TransportCredentials, error) {
	if s.identity == nil {
		return insecure.NewCredentials(), nil
	}
	return mtls.Server(s.identity, mtls.ServerOptions{Log: s.log, Registerer: s.registry})
}

// transport bounds what callers may do with their connections, and how long they may have one.
func transport(age time.Duration) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxRequest), grpc.ConnectionTimeout(handshakeTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: age, MaxConnectionAgeGrace: maxConnectionAgeGrace}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minKeepalive, PermitWithoutStream: true}),
	}
}

func (s *Server) wire() error {
	creds, err := s.credentials()
	if err != nil {
		return fmt.Errorf("register the metrics of handshakes: %w", err)
	}
	auth, err := s.newAuth()
	if err != nil {
		return err
	}
	contacts, err := s.services.Contact()
	if err != nil {
		return err
	}
	validator, err := protovalidate.New(protovalidate.WithMessages(&paymentv1.CreatePaymentRequest{}, &paymentv1.GetPaymentRequest{}, &paymentv1.ListPaymentsRequest{}))
	if err != nil {
		return fmt.Errorf("compile the rules of the protos: %w", err)
	}
	calls, err := interceptor.NewCalls("server", s.registry)
	if err != nil {
		return fmt.Errorf("register the metrics of calls: %w", err)
	}
	ending, end := context.WithCancel(context.Background())
	s.end = end
	s.grpc = grpc.NewServer(append(transport(maxConnectionAge), grpc.Creds(creds), s.tracer.Server(),
		grpc.ChainUnaryInterceptor(calls.Server, interceptor.Recover(s.log), auth.Unary, interceptor.Log(s.log), interceptor.Validate(validator)),
		grpc.ChainStreamInterceptor(calls.ServerStream, interceptor.EndStreams(ending), interceptor.RecoverStream(s.log), auth.Stream, interceptor.LogStream(s.log), interceptor.ValidateStream(validator)))...)
	s.payments.contacts = contacts
	paymentv1.RegisterPaymentServiceServer(s.grpc, s.payments)
	healthv1.RegisterHealthServer(s.grpc, s.health)
	s.health.SetServingStatus(paymentv1.PaymentService_ServiceDesc.ServiceName, healthv1.HealthCheckResponse_SERVING)
	if s.config.GRPC.EnableReflection {
		reflection.Register(s.grpc)
	}
	s.http = &http.Server{Handler: s.pages(), ReadHeaderTimeout: httpTimeout, WriteTimeout: httpTimeout}
	return nil
}

func (s *Server) listen(ctx context.Context) (err error) {
	var listen net.ListenConfig
	if s.store != nil && (s.identity == nil || s.identity.Ready() == nil) {
		if s.grpcListener, err = listen.Listen(ctx, "tcp", s.config.GRPC.Address); err != nil {
			return fmt.Errorf("grpc.address: %w", err)
		}
		s.closers = append(s.closers, func() error { return ignoreClosed(s.grpcListener.Close()) })
	}
	if s.httpListener, err = listen.Listen(ctx, "tcp", s.config.HTTP.Address); err != nil {
		return fmt.Errorf("http.address: %w", err)
	}
	s.closers = append(s.closers, func() error { return ignoreClosed(s.httpListener.Close()) })
	return nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// GRPCAddress is where the payment API is, with the port that was free where the configuration says 0; while New had no
// certificate or no store yet, it is what the configuration says.
func (s *Server) GRPCAddress() string {
	if s.grpcListener == nil {
		return s.config.GRPC.Address
	}
	return s.grpcListener.Addr().String()
}

// Services are the other services, for a process that has more to ask of them.
func (s *Server) Services() *services.Manager { return s.services }

// HTTPAddress is where /health and /metrics are.
func (s *Server) HTTPAddress() string { return s.httpListener.Addr().String() }

// Run serves until ctx ends or a server fails. Then calls under way may end, for as long as the configuration says; the
// identity and the store are closed last.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.serve(ctx); err != nil && ctx.Err() == nil {
			cancel(err)
		}
	})
	running.Go(func() {
		if err := s.http.Serve(s.httpListener); err != nil && !errors.Is(err, http.ErrServerClosed) {
			cancel(fmt.Errorf("serve /health and /metrics: %w", err))
		}
	})
	running.Go(func() { s.sweep(ctx) })
	running.Go(func() { s.watchServices(ctx) })
	if s.policy != nil {
		running.Go(func() { s.policy.Watch(ctx) })
	}
	<-ctx.Done()
	s.stop()
	running.Wait()
	err := s.close()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		err = errors.Join(cause, err)
	}
	return err
}

// serve serves the payment API as soon as the process can prove who it is and has its store: until then its port is closed,
// and /health says what it waits for.
func (s *Server) serve(ctx context.Context) (err error) {
	if s.identity != nil {
		if err := s.identity.Wait(ctx); err != nil {
			return err
		}
	}
	if s.store == nil {
		wait := storeWait + s.config.GRPC.ShutdownTimeout()
		s.log.Warn("waiting for the process that has the store: one whose pod ends goes on for a while", "store", s.config.Store.Path, "at_most", wait.String())
		if err := s.openStore(ctx, wait); err != nil {
			return err
		}
	}
	listener := s.grpcListener
	if listener == nil {
		var listen net.ListenConfig
		if listener, err = listen.Listen(ctx, "tcp", s.config.GRPC.Address); err != nil {
			return fmt.Errorf("grpc.address: %w", err)
		}
	}
	s.serving.Store(true)
	s.log.Info("serving", "grpc", listener.Addr().String(), "http", s.HTTPAddress())
	if err := s.grpc.Serve(listener); err != nil {
		return fmt.Errorf("serve the payment API: %w", err)
	}
	return nil
}

func (s *Server) stop() {
	s.health.Shutdown() // before the calls end: whoever watches sends no new ones
	s.end()
	s.log.Info("stopping", "within", s.config.GRPC.ShutdownTimeout().String())
	hurry := time.AfterFunc(s.config.GRPC.ShutdownTimeout(), s.grpc.Stop)
	s.grpc.GracefulStop()
	hurry.Stop()
	limited, cancel := context.WithTimeout(context.Background(), httpTimeout)
	defer cancel()
	if err := s.http.Shutdown(limited); err != nil {
		s.log.Warn("the HTTP server does not end", "error", err.Error())
	}
}

func (s *Server) close() error {
	var errs []error
	for i := len(s.closers) - 1; i >= 0; i-- {
		errs = append(errs, s.closers[i]())
	}
	s.closers = nil
	return errors.Join(errs...)
}

func (s *Server) sweep(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-s.opened:
	}
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		if n, err := s.store.Sweep(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("old idempotency keys stay", "error", err.Error())
		} else if n > 0 {
			s.log.Info("old idempotency keys are forgotten", "keys", n)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
