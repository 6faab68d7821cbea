package server

import (
	"context"
	"os"

	"google.golang.org/grpc"

	"github.com/jia-app/paymesh/payment/services"
	"github.com/jia-app/paymesh/payment/tracing"
)

// connect makes the connections to the other services, with the process's own identity, and begins to trace calls.
func (s *Server) connect(ctx context.Context) (err error) {
	if s.tracer, err = tracing.Start(ctx, "payment-service", os.LookupEnv); err != nil {
		return err
	}
	s.closers = append(s.closers, s.stopTracing)
	options := services.Options{
		Services: s.config.ExternalServices, Discovery: s.config.ServiceMesh.Discovery, CircuitBreaker: s.config.CircuitBreaker,
		Registerer: s.registry, Log: s.log, Dial: []grpc.DialOption{s.tracer.Client()},
	}
	if s.identity != nil { // an interface that holds a nil one is not nil
		options.Source = s.identity
	}
	if s.services, err = services.New(options); err != nil {
		return err
	}
	s.closers = append(s.closers, s.services.Close)
	return nil
}

// watchServices asks the others how they are, as soon as the process can prove who asks.
func (s *Server) watchServices(ctx context.Context) {
	if s.identity == nil || s.identity.Wait(ctx) == nil {
		s.services.Run(ctx)
	}
}

// stopTracing makes no error of a collector that is away: payments do not need it.
func (s *Server) stopTracing() error {
	if err := s.tracer.Stop(); err != nil {
		s.log.Warn("traces are lost", "error", err.Error())
	}
	return nil
}
