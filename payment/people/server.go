package people

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/jia-app/paymesh/payment/interceptor"
	"github.com/jia-app/paymesh/payment/process"
	"github.com/jia-app/paymesh/payment/services"
)

const (
	// maxRequest is far above any request of these services, and far below what gRPC takes by default.
	maxRequest = 64 << 10
	// stopTimeout bounds how long calls under way may take to end when the process is told to.
	stopTimeout = 20 * time.Second
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
	process  *process.Process
	services *services.Manager
	listener net.Listener // of gRPC
}

// New wires the service and binds its addresses; Run serves.
func New(ctx context.Context, o Options) (_ *Server, err error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	s := &Server{options: o}
	if s.process, err = process.New(ctx, strings.ReplaceAll(o.Service, ",", "-")+"-service", stopTimeout, o.Log); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.process.Close())
		}
	}()
	if err := s.connect(); err != nil {
		return nil, err
	}
	if err := s.wire(); err != nil {
		return nil, err
	}
	return s, s.listen(ctx)
}

func (s *Server) wire() error {
	chosen, err := s.chosen()
	if err != nil {
		return err
	}
	validator, err := validatorOf(chosen)
	if err != nil {
		return err
	}
	auth, err := s.newAuth()
	if err != nil {
		return err
	}
	// Plaintext on loopback: who may call is decided by the sidecar, which alone can connect.
	return s.process.NewGRPC(auth, validator, func(server *grpc.Server) {
		for _, one := range chosen {
			one.register(server)
		}
		for name, info := range server.GetServiceInfo() {
			for _, method := range info.Methods {
				auth.Methods["/"+name+"/"+method.Name] = interceptor.Workload
			}
		}
	}, grpc.MaxRecvMsgSize(maxRequest))
}

func (s *Server) listen(ctx context.Context) (err error) {
	if s.listener, err = s.process.Listen(ctx, s.options.Address); err != nil {
		return fmt.Errorf("listen for gRPC: %w", err)
	}
	if err := s.process.ListenHTTP(ctx, s.options.HTTPAddress, s.process.Pages(s.process.State, s.services)); err != nil {
		return fmt.Errorf("listen for /health and /metrics: %w", err)
	}
	return nil
}

// GRPCAddress is where the service is, with the port that was free where the options say 0.
func (s *Server) GRPCAddress() string { return s.listener.Addr().String() }

// HTTPAddress is where /health and /metrics are.
func (s *Server) HTTPAddress() string { return s.process.HTTPAddress() }

// Run serves until ctx ends or a server fails. Then calls under way may end.
func (s *Server) Run(ctx context.Context) error {
	s.options.Log.Info("serving", "service", s.options.Service, "grpc", s.GRPCAddress(), "http", s.HTTPAddress())
	return s.process.Run(ctx, s.serve, s.services.Run)
}

func (s *Server) serve(context.Context) error {
	if err := s.process.GRPC.Serve(s.listener); err != nil {
		return fmt.Errorf("serve gRPC: %w", err)
	}
	return nil
}
