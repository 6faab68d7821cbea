package people

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/jia-app/paymesh/payment/interceptor"
	"github.com/jia-app/paymesh/payment/services"
	"github.com/jia-app/paymesh/payment/tracing"
)

const (
	// maxRequest is far above any request of these services, and far below what gRPC takes by default.
	maxRequest = 64 << 10
	// stopTimeout bounds how long calls under way may take to end when the process is told to.
	stopTimeout = 20 * time.Second
	httpTimeout = 10 * time.Second
)

// Options say which service to run, and where.
type Options struct {
	// Service is contact, family or document, or several of them with commas between.
	Service string
	// Address is host:port of the gRPC server, HTTPAddress that of /health, /health/services and /metrics.
	Address, HTTPAddress string
	// TrustXFCC refuses calls without a caller's SPIFFE ID, which the sidecar on loopback says (x-forwarded-client-cert).
	TrustXFCC bool
	// FamilyAddress is where the contact service finds the family service (host:port): the sidecar's address for it. Empty,
	// there is none.
	FamilyAddress string
	Data          Data
	Log           *slog.Logger
}

// Server is a wired service.
type Server struct {
	options  Options
	grpc     *grpc.Server
	http     *http.Server
	health   *health.Server
	end      context.CancelFunc // of streams
	services *services.Manager
	tracer   *tracing.Tracer
	registry *prometheus.Registry
	closers  []func() error // in the order of opening

	grpcListener, httpListener net.Listener
}

// New wires the service and binds its addresses; Run serves.
func New(ctx context.Context, o Options) (_ *Server, err error) {
	s := &Server{options: o, registry: prometheus.NewRegistry(), health: health.NewServer()}
	s.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if err := o.check(); err != nil {
		return nil, err
	}
	if err := s.connect(ctx); err != nil {
		return nil, err
	}
	chosen, err := s.chosen()
	if err != nil {
		return nil, err
	}
	validator, err := validatorOf(chosen)
	if err != nil {
		return nil, err
	}
	calls, err := interceptor.NewCalls("server", s.registry)
	if err != nil {
		return nil, fmt.Errorf("register the metrics of calls: %w", err)
	}
	auth, err := s.newAuth()
	if err != nil {
		return nil, err
	}
	ending, end := context.WithCancel(context.Background())
	s.end = end
	// Plaintext on loopback: who may call is decided by the sidecar, which alone can connect.
	s.grpc = grpc.NewServer(grpc.MaxRecvMsgSize(maxRequest), s.tracer.Server(), grpc.ChainUnaryInterceptor(
		calls.Server, interceptor.Recover(o.Log), auth.Unary, interceptor.Log(o.Log), interceptor.Validate(validator)),
		grpc.ChainStreamInterceptor(calls.ServerStream, interceptor.EndStreams(ending), interceptor.RecoverStream(o.Log), auth.Stream, interceptor.LogStream(o.Log)))
	for _, one := range chosen {
		one.register(s.grpc)
	}
	for name, info := range s.grpc.GetServiceInfo() {
		s.health.SetServingStatus(name, healthv1.HealthCheckResponse_SERVING)
		for _, method := range info.Methods {
			auth.Methods["/"+name+"/"+method.Name] = interceptor.Workload
		}
	}
	healthv1.RegisterHealthServer(s.grpc, s.health)
	s.http = &http.Server{Handler: s.pages(), ReadHeaderTimeout: httpTimeout, WriteTimeout: httpTimeout}
	return s, s.listen(ctx)
}

func (s *Server) listen(ctx context.Context) (err error) {
	var listen net.ListenConfig
	if s.grpcListener, err = listen.Listen(ctx, "tcp", s.options.Address); err != nil {
		return fmt.Errorf("listen for gRPC: %w", err)
	}
	s.closers = append(s.closers, func() error { return ignoreClosed(s.grpcListener.Close()) })
	if s.httpListener, err = listen.Listen(ctx, "tcp", s.options.HTTPAddress); err != nil {
		return fmt.Errorf("listen for /health and /metrics: %w", err)
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

// pages are /health, /health/services and /metrics.
func (s *Server) pages() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, r *http.Request) {
		state, code := "UNKNOWN", http.StatusServiceUnavailable
		if answer, err := s.health.Check(r.Context(), &healthv1.HealthCheckRequest{}); err == nil {
			state = answer.GetStatus().String()
		}
		if state == healthv1.HealthCheckResponse_SERVING.String() {
			code = http.StatusOK
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		if err := json.NewEncoder(w).Encode(map[string]string{"status": state}); err != nil {
			s.options.Log.Debug("a page was not read to its end", "error", err.Error())
		}
	})
	mux.Handle("GET /health/services", s.services)
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{}))
	return mux
}

// GRPCAddress is where the service is, with the port that was free where the options say 0.
func (s *Server) GRPCAddress() string { return s.grpcListener.Addr().String() }

// HTTPAddress is where /health and /metrics are.
func (s *Server) HTTPAddress() string { return s.httpListener.Addr().String() }

// Run serves until ctx ends or a server fails. Then calls under way may end.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.grpc.Serve(s.grpcListener); err != nil {
			cancel(fmt.Errorf("serve gRPC: %w", err))
		}
	})
	running.Go(func() {
		if err := s.http.Serve(s.httpListener); err != nil && !errors.Is(err, http.ErrServerClosed) {
			cancel(fmt.Errorf("serve /health and /metrics: %w", err))
		}
	})
	running.Go(func() { s.services.Run(ctx) })
	s.options.Log.Info("serving", "service", s.options.Service, "grpc", s.GRPCAddress(), "http", s.HTTPAddress())
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
	s.end()
	s.options.Log.Info("stopping", "within", stopTimeout.String())
	hurry := time.AfterFunc(stopTimeout, s.grpc.Stop)
	s.grpc.GracefulStop()
	hurry.Stop()
	limited, cancel := context.WithTimeout(context.Background(), httpTimeout)
	defer cancel()
	if err := s.http.Shutdown(limited); err != nil {
		s.options.Log.Warn("the HTTP server does not end", "error", err.Error())
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
