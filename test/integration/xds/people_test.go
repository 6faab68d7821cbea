package xds_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/payment/contacttest"
	"github.com/jia-app/paymesh/payment/contactv1"
)

// contacts is the process of a callee: a contact service on loopback, in plaintext, that remembers what reached it.
type contacts struct {
	*contacttest.Service
	port int32
}

func startContacts(t *testing.T) contacts {
	t.Helper()
	s := contacttest.Start(t, contacttest.Options{Answer: answer})
	return contacts{s, int32(netip.MustParseAddrPort(s.Address).Port())}
}

// answer is UNAVAILABLE to user_broken, and to user_slow nothing before its deadline; all others are known.
func answer(ctx context.Context, who string) error {
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

// ports are those of a service with this process.
func (c contacts) ports() []mesh.Port {
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
