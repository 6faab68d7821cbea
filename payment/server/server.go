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
	"os"
	"sync"
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
	"github.com/jia-app/paymesh/payment/services"
	"github.com/jia-app/paymesh/payment/store"
	"github.com/jia-app/paymesh/payment/tracing"
)

const (
	// sweepInterval is how often old idempotency keys are forgotten.
	sweepInterval = time.Hour
	// maxRequest is far above any payment, and far below what gRPC takes by default.
	maxRequest = 64 << 10
	// maxConnectionAge makes callers connect, and prove who they are, again: half of an SVID's hour.
	maxConnectionAge = 30 * time.Minute
	httpTimeout      = 10 * time.Second
)

// Server is a wired payment service.
type Server struct {
	config   config.Config
	log      *slog.Logger
	source   mtls.Source // nil without mtls.enabled
	store    *store.Store
	grpc     *grpc.Server
	http     *http.Server
	health   *health.Server
	services *services.Manager
	tracer   *tracing.Tracer
	registry *prometheus.Registry
	closers  []func() error // in the order of opening

	grpcListener, httpListener net.Listener
}

// New wires the service, opens its store and binds its addresses; Run serves.
func New(ctx context.Context, c config.Config, log *slog.Logger) (_ *Server, err error) {
	s := &Server{config: c, log: log, registry: prometheus.NewRegistry(), health: health.NewServer()}
	s.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	creds, err := s.credentials(ctx)
	if err != nil {
		return nil, err
	}
	if s.tracer, err = tracing.Start(ctx, "payment-service", os.LookupEnv); err != nil {
		return nil, err
	}
	s.closers = append(s.closers, s.stopTracing)
	if s.store, err = store.Open(ctx, c.Store.Path, store.Options{Retention: c.Store.IdempotencyRetention()}); err != nil {
		return nil, err
	}
	s.closers = append(s.closers, s.store.Close)
	if err := s.connect(); err != nil {
		return nil, err
	}
	if err := s.wire(creds); err != nil {
		return nil, err
	}
	return s, s.listen(ctx)
}

// credentials are the server's: SPIFFE mTLS, or plaintext on loopback, where the sidecar is.
func (s *Server) credentials(ctx context.Context) (credentials.TransportCredentials, error) {
	if !s.config.MTLS.Enabled {
		return insecure.NewCredentials(), nil
	}
	own, err := spiffeid.FromString(s.config.ServiceMesh.SPIFFEID)
	if err != nil {
		return nil, fmt.Errorf("service_mesh.spiffe_id: %w", err)
	}
	source, closeSource, err := mtls.NewSource(ctx, s.config.MTLS, own)
	if err != nil {
		return nil, err
	}
	s.source, s.closers = source, append(s.closers, closeSource)
	return mtls.Server(source), nil
}

// connect makes the connections to the other services, with the same identity.
func (s *Server) connect() (err error) {
	s.services, err = services.New(services.Options{
		Services: s.config.ExternalServices, Discovery: s.config.ServiceMesh.Discovery, CircuitBreaker: s.config.CircuitBreaker,
		Source: s.source, Registerer: s.registry, Log: s.log, Dial: []grpc.DialOption{s.tracer.Client()},
	})
	if err != nil {
		return err
	}
	s.closers = append(s.closers, s.services.Close)
	return nil
}

// stopTracing ends before the log does: a collector that is away is no error of the service.
func (s *Server) stopTracing() error {
	if err := s.tracer.Stop(); err != nil {
		s.log.Warn("traces are lost", "error", err.Error())
	}
	return nil
}

func (s *Server) wire(creds credentials.TransportCredentials) error {
	auth, err := newAuth(s.config, s.log)
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
	contacts, err := s.services.Contact()
	if err != nil {
		return err
	}
	s.grpc = grpc.NewServer(grpc.Creds(creds), s.tracer.Server(), grpc.MaxRecvMsgSize(maxRequest), grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: maxConnectionAge}),
		grpc.ChainUnaryInterceptor(calls.Server, interceptor.Log(s.log), auth.Unary, interceptor.Validate(validator), interceptor.Recover(s.log)),
		grpc.ChainStreamInterceptor(auth.Stream))
	paymentv1.RegisterPaymentServiceServer(s.grpc, &payments{store: s.store, contacts: contacts, now: time.Now, log: s.log})
	healthv1.RegisterHealthServer(s.grpc, s.health)
	if s.config.GRPC.EnableReflection {
		reflection.Register(s.grpc)
	}
	s.http = &http.Server{Handler: s.pages(), ReadHeaderTimeout: httpTimeout, WriteTimeout: httpTimeout}
	return nil
}

func newAuth(c config.Config, log *slog.Logger) (*interceptor.Auth, error) {
	tokens, err := interceptor.NewTokens(interceptor.TokenOptions{
		Issuer: c.Auth.JWT.Issuer, Audience: c.Auth.JWT.Audience, KeysFile: c.Auth.JWT.JWKSFile, Leeway: c.Auth.JWT.Leeway(),
	})
	if err != nil {
		return nil, err
	}
	auth := &interceptor.Auth{TrustXFCC: c.ServiceMesh.TrustXFCC, Tokens: tokens, Log: log, Methods: []string{
		paymentv1.PaymentService_CreatePayment_FullMethodName, paymentv1.PaymentService_GetPayment_FullMethodName, paymentv1.PaymentService_ListPayments_FullMethodName,
	}}
	if c.GRPC.EnableReflection {
		auth.Methods = append(auth.Methods, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
	}
	if !c.ServiceMesh.Enabled {
		return auth, nil
	}
	auth.Callers = []spiffeid.ID{}
	for _, text := range c.Auth.AllowedSPIFFEIDs {
		id, err := spiffeid.FromString(text)
		if err != nil {
			return nil, fmt.Errorf("auth.allowed_spiffe_ids: %w", err)
		}
		auth.Callers = append(auth.Callers, id)
	}
	return auth, nil
}

func (s *Server) listen(ctx context.Context) (err error) {
	var listen net.ListenConfig
	if s.grpcListener, err = listen.Listen(ctx, "tcp", s.config.GRPC.Address); err != nil {
		return fmt.Errorf("grpc.address: %w", err)
	}
	s.closers = append(s.closers, func() error { return ignoreClosed(s.grpcListener.Close()) })
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

// GRPCAddress is where the payment API is, with the port that was free where the configuration says 0.
func (s *Server) GRPCAddress() string { return s.grpcListener.Addr().String() }

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
		if err := s.grpc.Serve(s.grpcListener); err != nil {
			cancel(fmt.Errorf("serve the payment API: %w", err))
		}
	})
	running.Go(func() {
		if err := s.http.Serve(s.httpListener); err != nil && !errors.Is(err, http.ErrServerClosed) {
			cancel(fmt.Errorf("serve /health and /metrics: %w", err))
		}
	})
	running.Go(func() { s.sweep(ctx) })
	running.Go(func() { s.services.Run(ctx) })
	s.log.Info("serving", "grpc", s.GRPCAddress(), "http", s.HTTPAddress())
	<-ctx.Done()
	s.stop()
	running.Wait()
	err := s.close()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		err = errors.Join(cause, err)
	}
	return err
}

func (s *Server) stop() {
	s.health.Shutdown() // before the calls end: whoever watches sends no new ones
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
