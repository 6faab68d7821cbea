package xds_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/payment/contactv1"
)

// contacts is the process of a callee: a contact service on loopback, in plaintext, that remembers what reached it.
// user_broken gets UNAVAILABLE and user_slow nothing before its deadline; all others are known.
type contacts struct {
	contactv1.UnimplementedContactServiceServer
	port   int32
	server *grpc.Server

	mu    sync.Mutex
	calls []metadata.MD
}

func startContacts(t *testing.T) *contacts {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &contacts{port: int32(listener.Addr().(*net.TCPAddr).Port), server: grpc.NewServer()}
	contactv1.RegisterContactServiceServer(c.server, c)
	go c.server.Serve(listener) //nolint:errcheck // it ends with the test
	t.Cleanup(c.server.Stop)
	return c
}

func (c *contacts) GetUserInfo(ctx context.Context, r *contactv1.GetUserInfoRequest) (*contactv1.GetUserInfoResponse, error) {
	if err := c.called(ctx, r.GetUserId()); err != nil {
		return nil, err
	}
	return &contactv1.GetUserInfoResponse{User: &contactv1.User{UserId: r.GetUserId()}}, nil
}

func (c *contacts) GetFamilyMembers(ctx context.Context, r *contactv1.GetFamilyMembersRequest) (*contactv1.GetFamilyMembersResponse, error) {
	return &contactv1.GetFamilyMembersResponse{}, c.called(ctx, r.GetFamilyId())
}

func (c *contacts) called(ctx context.Context, who string) error {
	md, _ := metadata.FromIncomingContext(ctx)
	c.mu.Lock()
	c.calls = append(c.calls, md)
	c.mu.Unlock()
	switch who {
	case "user_broken":
		return status.Error(codes.Unavailable, "broken")
	case "user_slow":
		<-ctx.Done()
		return status.FromContextError(ctx.Err()).Err()
	case "user_100ms":
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return nil
}

// seen are the calls that have reached it.
func (c *contacts) seen() []metadata.MD {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]metadata.MD{}, c.calls...)
}

func (c *contacts) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = nil
}

// ports are those of a service with this process.
func (c *contacts) ports() []mesh.Port {
	return []mesh.Port{{Name: "grpc", Port: c.port, MeshPort: mesh.FirstMeshPort, Protocol: "GRPC"}}
}

// dependency is an upstream of a caller.
func dependency(t *testing.T, callee mesh.Service) mesh.Upstream {
	t.Helper()
	u := mesh.Upstream{Name: "contacts", Service: callee.Key, ID: callee.ID, PortName: "grpc", MeshPort: mesh.FirstMeshPort, LocalPort: freePort(t)}
	u.Timeout.Duration = 2 * time.Second
	return u
}

// dial is how a process reaches a dependency: 127.0.0.1:localPort, in plaintext, with no retries of its own.
func dial(t *testing.T, target string) contactv1.ContactServiceClient {
	t.Helper()
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry(), grpc.WithDisableServiceConfig())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return contactv1.NewContactServiceClient(conn)
}

func userInfo(ctx context.Context, client contactv1.ContactServiceClient, user string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := client.GetUserInfo(ctx, &contactv1.GetUserInfoRequest{UserId: user})
	return err
}

func family(ctx context.Context, client contactv1.ContactServiceClient) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := client.GetFamilyMembers(ctx, &contactv1.GetFamilyMembersRequest{FamilyId: "family_1"})
	return err
}
