// Package contacttest is for tests: answers go in, and a contact service that gives them is at an address, and remembers who
// asked. Where what counts is what a contact service says, payment/people is the real one.
package contacttest

import (
	"context"
	"net"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/jia-app/paymesh/payment/contactv1"
)

// Options say how the service behaves.
type Options struct {
	// Address is where it listens (host:port); empty, at a free port of loopback.
	Address string
	// Answer is what comes of a call about a user, or a family: nil, it is known. Without one, all are.
	Answer func(ctx context.Context, id string) error
	// Server are options of its gRPC server.
	Server []grpc.ServerOption
}

// Call is one that reached the service.
type Call struct {
	Metadata metadata.MD
	// Caller is the SPIFFE ID of its connection; empty, there is none.
	Caller string
}

// Service serves contacts, and says that it is healthy.
type Service struct {
	contactv1.UnimplementedContactServiceServer
	// Address is where it listens.
	Address string
	// Stop ends it, with the calls under way.
	Stop func()

	answer func(context.Context, string) error
	mu     sync.Mutex
	calls  []Call
}

// T is what of a testing.TB is needed here: the testing package is linked into tests alone.
type T interface {
	Helper()
	Cleanup(f func())
	Fatalf(format string, args ...any)
}

// Start starts a service that ends with the test.
func Start(t T, o Options) *Service {
	t.Helper()
	if o.Address == "" {
		o.Address = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", o.Address) //nolint:noctx // it returns at once
	if err != nil {
		t.Fatalf("start a contact service: %v", err)
	}
	server := grpc.NewServer(o.Server...)
	s := &Service{Address: listener.Addr().String(), Stop: server.Stop, answer: o.Answer}
	contactv1.RegisterContactServiceServer(server, s)
	healthv1.RegisterHealthServer(server, health.NewServer())
	go server.Serve(listener) //nolint:errcheck // it ends with the test
	t.Cleanup(server.Stop)
	return s
}

// Calls are those that have reached it, in their order.
func (s *Service) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

// Forget forgets the calls.
func (s *Service) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = nil
}

// GetUserInfo knows a user by nothing but the ID.
func (s *Service) GetUserInfo(ctx context.Context, r *contactv1.GetUserInfoRequest) (*contactv1.GetUserInfoResponse, error) {
	if err := s.called(ctx, r.GetUserId()); err != nil {
		return nil, err
	}
	return &contactv1.GetUserInfoResponse{User: &contactv1.User{UserId: r.GetUserId()}}, nil
}

// GetFamilyMembers knows a family, and nobody in it.
func (s *Service) GetFamilyMembers(ctx context.Context, r *contactv1.GetFamilyMembersRequest) (*contactv1.GetFamilyMembersResponse, error) {
	if err := s.called(ctx, r.GetFamilyId()); err != nil {
		return nil, err
	}
	return &contactv1.GetFamilyMembersResponse{}, nil
}

func (s *Service) called(ctx context.Context, id string) error {
	var call Call
	call.Metadata, _ = metadata.FromIncomingContext(ctx)
	if from, found := peer.FromContext(ctx); found {
		if info, is := from.AuthInfo.(credentials.TLSInfo); is && info.SPIFFEID != nil {
			call.Caller = info.SPIFFEID.String()
		}
	}
	s.mu.Lock()
	s.calls = append(s.calls, call)
	s.mu.Unlock()
	if s.answer == nil {
		return nil
	}
	return s.answer(ctx, id)
}
