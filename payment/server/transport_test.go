package server

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

func TestAConnectionEndsAtItsAgeSoThatItsCallerProvesAgainWhoItIs(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(transport(200 * time.Millisecond)...)
	go s.Serve(listener) //nolint:errcheck // it ends with the test
	t.Cleanup(s.Stop)
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	conn.Connect()
	for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
		if !conn.WaitForStateChange(ctx, state) {
			t.Fatalf("the connection is %s", state)
		}
	}
	if !conn.WaitForStateChange(ctx, connectivity.Ready) {
		t.Error("the connection goes on")
	}
}

func TestWhatIsTooLongIsRefusedByTheRulesUpToWhatTheGatewayPassesOn(t *testing.T) {
	l := start(t, nil, insecure.NewCredentials())
	for size, want := range map[int]codes.Code{maxRequest - 1024: codes.InvalidArgument, maxRequest: codes.ResourceExhausted} {
		long := order("order-1")
		long.Description = strings.Repeat("x", size)
		if _, err := l.client().CreatePayment(l.as("ann", "k"), long); status.Code(err) != want {
			t.Errorf("%d bytes: got %v, want %s", size, err, want)
		}
	}
}
