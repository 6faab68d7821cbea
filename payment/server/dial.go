package server

import (
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/jia-app/paymesh/payment/breaker"
	"github.com/jia-app/paymesh/payment/config"
	"github.com/jia-app/paymesh/payment/interceptor"
	"github.com/jia-app/paymesh/payment/mtls"
)

const (
	// maxReconnectDelay keeps gRPC from waiting two minutes for a service that is back.
	maxReconnectDelay = time.Second
	// keepaliveTime is when a call that hears nothing asks whether its peer is there, and keepaliveTimeout how long the answer,
	// or the acknowledgement of what was sent, may take: without it a node that lost power is found out after minutes. The
	// longest call that config.yaml allows asks once, which servers with gRPC's defaults take.
	keepaliveTime    = 30 * time.Second
	keepaliveTimeout = 10 * time.Second
	// roundRobin sends calls to all addresses of a name in turn: a headless Service has one for each pod.
	roundRobin = `{"loadBalancingConfig": [{"round_robin": {}}]}`
)

func (s *Server) dialContact() error {
	calls, err := interceptor.NewCalls("client", s.registry)
	if err != nil {
		return fmt.Errorf("register the metrics of calls: %w", err)
	}
	contact := s.config.ExternalServices.ContactService
	creds, err := s.clientCredentials("external_services.contact_service.spiffe_id", contact)
	if err != nil {
		return err
	}
	chain := []grpc.UnaryClientInterceptor{calls.Client}
	if breakers := s.config.CircuitBreaker; breakers.Enabled {
		guard, err := breaker.New(breaker.Options{Target: contact.Name, FailureThreshold: breakers.FailureThreshold, Open: breakers.OpenTimeout(), Log: s.log}, s.registry)
		if err != nil {
			return fmt.Errorf("register the metrics of the circuit breaker: %w", err)
		}
		chain = append(chain, guard)
	}
	chain = append(chain, interceptor.Timeout(contact.Timeout()))
	if s.contact, err = dial(contact, creds, grpc.WithChainUnaryInterceptor(chain...), grpc.WithChainStreamInterceptor(calls.ClientStream)); err != nil {
		return fmt.Errorf("external_services.contact_service.address: %w", err)
	}
	s.closers = append(s.closers, s.contact.Close)
	return nil
}

// clientCredentials are those of calls to a service that must prove to be itself.
func (s *Server) clientCredentials(key string, service config.ExternalService) (credentials.TransportCredentials, error) {
	if s.identity == nil {
		return insecure.NewCredentials(), nil
	}
	peer, err := spiffeid.FromString(service.SPIFFEID)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return mtls.Client(s.identity, peer), nil
}

// dial makes a connection that is opened at its first call. It repeats no call that may have reached the peer: gRPC by itself
// repeats only what the peer says that it has not looked at.
func dial(service config.ExternalService, creds credentials.TransportCredentials, more ...grpc.DialOption) (*grpc.ClientConn, error) {
	return grpc.NewClient("dns:///"+service.Address, append(more,
		grpc.WithTransportCredentials(creds), grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(), grpc.WithDefaultServiceConfig(roundRobin),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: maxReconnectDelay},
			MinConnectTimeout: service.Timeout(),
		}))...)
}
