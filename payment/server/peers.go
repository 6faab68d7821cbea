package server

import (
	"context"

	"google.golang.org/grpc"

	"github.com/jia-app/paymesh/payment/services"
)

// connect makes the connections to the other services, with the process's own identity.
func (s *Server) connect() (err error) {
	options := services.Options{
		Services: s.config.ExternalServices, Discovery: s.config.ServiceMesh.Discovery, CircuitBreaker: s.config.CircuitBreaker,
		Registerer: s.process.Registry, Log: s.log, Dial: []grpc.DialOption{s.process.Tracer.Client()},
	}
	if s.identity != nil { // an interface that holds a nil one is not nil
		options.Source = s.identity
	}
	if s.services, err = services.New(options); err != nil {
		return err
	}
	s.process.OnClose(s.services.Close)
	return nil
}

// watchServices asks the others how they are, as soon as the process can prove who asks.
func (s *Server) watchServices(ctx context.Context) {
	if s.identity == nil || s.identity.Wait(ctx) == nil {
		s.services.Run(ctx)
	}
}
