// Package process runs a gRPC server with /health and /metrics beside it: who may call it and what it opened go in, and it
// is served until a context ends. Then calls under way may end, and what was opened is closed.
package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"buf.build/go/protovalidate"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/jia-app/paymesh/payment/interceptor"
	"github.com/jia-app/paymesh/payment/tracing"
)

const httpTimeout = 10 * time.Second

// Main serves until the process is told to stop (SIGTERM, or an interrupt), with a log of JSON lines at stdout, and returns
// the exit code. The name stands in the log's last line, where it fails.
func Main(stdout io.Writer, name string, serve func(context.Context, *slog.Logger) error) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	log := slog.New(slog.NewJSONHandler(stdout, nil))
	if err := serve(ctx, log); err != nil {
		log.Error("the "+name+" ends", "error", err.Error())
		return 1
	}
	return 0
}

// Process is what a process has around its services. Close it, unless Run did.
type Process struct {
	// Registry has what /metrics shows.
	Registry *prometheus.Registry
	// GRPC is the server, once NewGRPC made it.
	GRPC *grpc.Server
	// Health is what gRPC's health service answers.
	Health *health.Server
	// Tracer traces calls.
	Tracer *tracing.Tracer

	log          *slog.Logger
	stopTimeout  time.Duration
	http         *http.Server
	httpListener net.Listener
	end          context.CancelFunc // of streams
	closers      []func() error     // in the order of opening
}

// New makes a process that serves nothing yet, and whose traces have the name of a service. When it is told to stop, calls
// under way may take stopTimeout to end.
func New(ctx context.Context, service string, stopTimeout time.Duration, log *slog.Logger) (*Process, error) {
	tracer, err := tracing.Start(ctx, service, os.LookupEnv)
	if err != nil {
		return nil, err
	}
	p := &Process{Registry: prometheus.NewRegistry(), Health: health.NewServer(), Tracer: tracer, log: log, stopTimeout: stopTimeout}
	p.Registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	p.OnClose(func() error {
		if err := tracer.Stop(); err != nil { // a collector that is away is no error: nobody needs it to be served
			log.Warn("traces are lost", "error", err.Error())
		}
		return nil
	})
	return p, nil
}

// NewGRPC makes the server, with the services that register registers: each call is traced, counted, authenticated, logged and
// validated. gRPC's health service is there, too, and says of those that they serve.
func (p *Process) NewGRPC(auth *interceptor.Auth, validator protovalidate.Validator, register func(*grpc.Server), options ...grpc.ServerOption) error {
	calls, err := interceptor.NewCalls("server", p.Registry)
	if err != nil {
		return fmt.Errorf("register the metrics of calls: %w", err)
	}
	ending, end := context.WithCancel(context.Background())
	p.end = end
	p.GRPC = grpc.NewServer(append(options, p.Tracer.Server(),
		grpc.ChainUnaryInterceptor(calls.Server, interceptor.Recover(p.log), auth.Unary, interceptor.Log(p.log), interceptor.Validate(validator)),
		grpc.ChainStreamInterceptor(calls.ServerStream, interceptor.EndStreams(ending), interceptor.RecoverStream(p.log), auth.Stream, interceptor.LogStream(p.log), interceptor.ValidateStream(validator)))...)
	register(p.GRPC)
	for name := range p.GRPC.GetServiceInfo() {
		p.Health.SetServingStatus(name, healthv1.HealthCheckResponse_SERVING)
	}
	healthv1.RegisterHealthServer(p.GRPC, p.Health)
	return nil
}

// Listen binds a TCP address.
func (p *Process) Listen(ctx context.Context, address string) (net.Listener, error) {
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	p.OnClose(func() error {
		if err := listener.Close(); !errors.Is(err, net.ErrClosed) { // the server that has it closes it, too
			return err
		}
		return nil
	})
	return listener, nil
}

// ListenHTTP binds the address of pages, which Run serves.
func (p *Process) ListenHTTP(ctx context.Context, address string, pages http.Handler) (err error) {
	p.http = &http.Server{Handler: pages, ReadHeaderTimeout: httpTimeout, WriteTimeout: httpTimeout}
	p.httpListener, err = p.Listen(ctx, address)
	return err
}

// HTTPAddress is where the pages are.
func (p *Process) HTTPAddress() string { return p.httpListener.Addr().String() }

// OnClose has something closed at the end, before what was opened before it.
func (p *Process) OnClose(closer func() error) { p.closers = append(p.closers, closer) }

// Close closes what was opened, the last first.
func (p *Process) Close() error {
	var errs []error
	for i := len(p.closers) - 1; i >= 0; i-- {
		errs = append(errs, p.closers[i]())
	}
	p.closers = nil
	return errors.Join(errs...)
}

// Run serves the pages, lets serve do so with GRPC, and runs what is beside it, until ctx ends or a server fails. Then calls
// under way may end, and Run waits for all and closes.
func (p *Process) Run(ctx context.Context, serve func(context.Context) error, beside ...func(context.Context)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	running.Go(func() {
		if err := serve(ctx); err != nil && ctx.Err() == nil {
			cancel(err)
		}
	})
	running.Go(func() {
		if err := p.http.Serve(p.httpListener); err != nil && !errors.Is(err, http.ErrServerClosed) {
			cancel(fmt.Errorf("serve /health and /metrics: %w", err))
		}
	})
	for _, run := range beside {
		running.Go(func() { run(ctx) })
	}
	<-ctx.Done()
	p.stop()
	running.Wait()
	err := p.Close()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		err = errors.Join(cause, err)
	}
	return err
}

func (p *Process) stop() {
	p.Health.Shutdown() // before the calls end: whoever watches sends no new ones
	p.end()
	p.log.Info("stopping", "within", p.stopTimeout.String())
	hurry := time.AfterFunc(p.stopTimeout, p.GRPC.Stop)
	p.GRPC.GracefulStop()
	hurry.Stop()
	limited, cancel := context.WithTimeout(context.Background(), httpTimeout)
	defer cancel()
	if err := p.http.Shutdown(limited); err != nil {
		p.log.Warn("the HTTP server does not end", "error", err.Error())
	}
}
