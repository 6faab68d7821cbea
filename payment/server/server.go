// Package server is the payment service as a process runs it: a configuration goes in, and the payment API, /health and
// /metrics come out, until the context ends.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"buf.build/go/protovalidate"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/jia-app/paymesh/payment/config"
	"github.com/jia-app/paymesh/payment/mtls"
	"github.com/jia-app/paymesh/payment/paymentv1"
	"github.com/jia-app/paymesh/payment/policy"
	"github.com/jia-app/paymesh/payment/process"
	"github.com/jia-app/paymesh/payment/services"
	"github.com/jia-app/paymesh/payment/store"
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
)

// Server is a wired payment service.
type Server struct {
	config   config.Config
	log      *slog.Logger
	process  *process.Process
	store    *store.Store // there once opened is closed
	opened   chan struct{}
	payments *payments
	services *services.Manager
	identity mtls.Identity // nil where a sidecar has it
	policy   *policy.File  // nil where there is none
	serving  atomic.Bool
	listener net.Listener // of the payment API; nil until there are a certificate and a store
}

// New wires the service, opens its store and binds its addresses; Run serves. While the Workload API has no certificate yet,
// or the process before this one has the store, Run waits for them, and binds the address of the payment API then.
func New(ctx context.Context, c config.Config, log *slog.Logger) (_ *Server, err error) {
	s := &Server{config: c, log: log, payments: &payments{now: time.Now, log: log}, opened: make(chan struct{})}
	if s.process, err = process.New(ctx, "payment-service", c.GRPC.ShutdownTimeout(), log); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.process.Close())
		}
	}()
	if err := s.openIdentity(); err != nil {
		return nil, err
	}
	if err := s.openStore(ctx, 0); err != nil && !errors.Is(err, store.ErrInUse) {
		return nil, err
	}
	if err := s.connect(); err != nil {
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
	s.process.OnClose(s.identity.Close)
	return nil
}

// openStore opens the store, and waits so long for the process that has it.
func (s *Server) openStore(ctx context.Context, wait time.Duration) error {
	opened, err := store.Open(ctx, s.config.Store.Path, store.Options{Retention: s.config.Store.IdempotencyRetention(), Wait: wait})
	if err != nil {
		return err
	}
	s.process.OnClose(opened.Close)
	s.store, s.payments.store = opened, opened
	close(s.opened)
	return nil
}

// credentials are the server's: SPIFFE mTLS, or plaintext on loopback, where the sidecar is.
func (s *Server) credentials() (credentials.TransportCredentials, error) {
	if s.identity == nil {
		return insecure.NewCredentials(), nil
	}
	return mtls.Server(s.identity, mtls.ServerOptions{Log: s.log, Registerer: s.process.Registry})
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
	s.payments.contacts = contacts
	register := func(server *grpc.Server) { paymentv1.RegisterPaymentServiceServer(server, s.payments) }
	if err := s.process.NewGRPC(auth, validator, register, append(transport(maxConnectionAge), grpc.Creds(creds))...); err != nil {
		return err
	}
	if s.config.GRPC.EnableReflection {
		reflection.Register(s.process.GRPC)
	}
	return nil
}

func (s *Server) listen(ctx context.Context) (err error) {
	if s.store != nil && (s.identity == nil || s.identity.Ready() == nil) {
		if s.listener, err = s.process.Listen(ctx, s.config.GRPC.Address); err != nil {
			return fmt.Errorf("grpc.address: %w", err)
		}
	}
	if err := s.process.ListenHTTP(ctx, s.config.HTTP.Address, s.process.Pages(s.state, s.services)); err != nil {
		return fmt.Errorf("http.address: %w", err)
	}
	return nil
}

// GRPCAddress is where the payment API is, with the port that was free where the configuration says 0; while New had no
// certificate or no store yet, it is what the configuration says.
func (s *Server) GRPCAddress() string {
	if s.listener == nil {
		return s.config.GRPC.Address
	}
	return s.listener.Addr().String()
}

// Services are the other services, for a process that has more to ask of them.
func (s *Server) Services() *services.Manager { return s.services }

// HTTPAddress is where /health and /metrics are.
func (s *Server) HTTPAddress() string { return s.process.HTTPAddress() }

// Run serves until ctx ends or a server fails. Then calls under way may end, for as long as the configuration says; the
// identity and the store are closed after all calls.
func (s *Server) Run(ctx context.Context) error {
	beside := []func(context.Context){s.sweep, s.watchServices}
	if s.policy != nil {
		beside = append(beside, s.policy.Watch)
	}
	return s.process.Run(ctx, s.serve, beside...)
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
	listener := s.listener
	if listener == nil {
		if listener, err = s.process.Listen(ctx, s.config.GRPC.Address); err != nil {
			return fmt.Errorf("grpc.address: %w", err)
		}
	}
	s.serving.Store(true)
	s.log.Info("serving", "grpc", listener.Addr().String(), "http", s.HTTPAddress())
	if err := s.process.GRPC.Serve(listener); err != nil {
		return fmt.Errorf("serve the payment API: %w", err)
	}
	return nil
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
