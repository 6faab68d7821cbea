package pool

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/jia-app/paymesh/payment/config"
	"github.com/jia-app/paymesh/payment/contactv1"
	"github.com/jia-app/paymesh/payment/discovery"
	"github.com/jia-app/paymesh/payment/discovery/dnstest"
	"github.com/jia-app/paymesh/test/lab"
)

type contacts struct {
	contactv1.UnimplementedContactServiceServer
	calls atomic.Int32
	stop  func()
}

func (c *contacts) GetUserInfo(_ context.Context, r *contactv1.GetUserInfoRequest) (*contactv1.GetUserInfoResponse, error) {
	c.calls.Add(1)
	if r.GetUserId() == "user_broken" {
		return nil, status.Error(codes.Unavailable, "broken")
	}
	return &contactv1.GetUserInfoResponse{}, nil
}

func serve(t *testing.T, at string) (*contacts, string) {
	t.Helper()
	listener, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	c := &contacts{stop: server.Stop}
	contactv1.RegisterContactServiceServer(server, c)
	healthv1.RegisterHealthServer(server, health.NewServer())
	go server.Serve(listener) //nolint:errcheck // it ends with the test
	t.Cleanup(server.Stop)
	return c, listener.Addr().String()
}

func newPool(t *testing.T, names *net.Resolver) *Pool {
	t.Helper()
	p, err := New(Options{Discovery: discovery.New(config.Discovery{Scheme: discovery.DNS}, discovery.Options{Resolver: names}), Registerer: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func TestAServiceHasOneConnection(t *testing.T) {
	_, address := serve(t, "127.0.0.1:0")
	proxy := lab.StartProxy(t, address)
	p := newPool(t, nil)
	service := config.ExternalService{Name: "contact-service", Address: proxy.Address, TimeoutSeconds: 2}
	first, err := p.Connect(service)
	if err != nil {
		t.Fatal(err)
	}
	again, err := p.Connect(service)
	if err != nil || again != first {
		t.Errorf("got another connection (%v)", err)
	}
	for range 3 {
		if told, err := first.Check(t.Context()); !told || err != nil {
			t.Errorf("got %t, %v", told, err)
		}
	}
	if n := proxy.Connections(); n != 1 {
		t.Errorf("%d connections", n)
	}
	if first.Breaker() != "" {
		t.Errorf("a circuit breaker that is off is %q", first.Breaker())
	}
}

func TestCallsGoToAllAddressesOfANameInTurnAndNoneIsRepeated(t *testing.T) {
	one, at := serve(t, "127.0.0.2:0")
	_, port, _ := net.SplitHostPort(at)
	two, _ := serve(t, "127.0.0.3:"+port)
	names, err := dnstest.Start(dnstest.Records{Hosts: map[string][]netip.Addr{"contact-service.people.svc": {netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.3")}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = names.Close() })
	conn, err := newPool(t, names.Resolver()).Connect(config.ExternalService{Name: "contact-service", Address: "contact-service.people.svc:" + port, TimeoutSeconds: 20})
	if err != nil {
		t.Fatal(err)
	}
	client := contactv1.NewContactServiceClient(conn)
	ask := func(user string) error {
		_, err := client.GetUserInfo(t.Context(), &contactv1.GetUserInfoRequest{UserId: user})
		return err
	}
	lab.Eventually(t, time.Minute, func() error { // the second connection takes a moment longer than the first
		if err := ask("user_1"); err != nil {
			t.Fatal(err)
		}
		if one.calls.Load() == 0 || two.calls.Load() == 0 {
			return errors.New("one of two is not called")
		}
		return nil
	})
	before := [2]int32{one.calls.Load(), two.calls.Load()}
	for range 10 {
		if err := ask("user_broken"); status.Code(err) != codes.Unavailable {
			t.Errorf("got %v", err)
		}
	}
	if got := [2]int32{one.calls.Load() - before[0], two.calls.Load() - before[1]}; got != [2]int32{5, 5} {
		t.Errorf("10 calls that fail reached the two %v times, want 5 and 5: in turn, and none twice", got)
	}
	one.stop()
	failed := 0
	for range 20 { // one that was sent as it stopped may fail; all others go to the other
		if ask("user_1") != nil {
			failed++
		}
	}
	if failed > 1 {
		t.Errorf("%d calls failed after one of two was gone", failed)
	}
}

func TestAConnectionThatSwallowsEverythingIsGivenUpAndNoCallIsRepeated(t *testing.T) {
	t.Parallel() // gRPC asks a silent connection after 10 seconds at the earliest
	c, address := serve(t, "127.0.0.1:0")
	proxy := lab.StartProxy(t, address)
	p := newPool(t, nil)
	p.keepalive = keepalive.ClientParameters{Time: 10 * time.Second, Timeout: time.Second}
	conn, err := p.Connect(config.ExternalService{Name: "contact-service", Address: proxy.Address, TimeoutSeconds: 1})
	if err != nil {
		t.Fatal(err)
	}
	client := contactv1.NewContactServiceClient(conn)
	ask := func() error {
		_, err := client.GetUserInfo(t.Context(), &contactv1.GetUserInfoRequest{UserId: "user_123"})
		return err
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	proxy.Silence()
	if err := ask(); err == nil || !conn.Failing() {
		t.Errorf("got %v", err)
	}
	lab.Eventually(t, time.Minute, ask)
	if conn.Failing() || proxy.Connections() != 2 || c.calls.Load() != 2 {
		t.Errorf("%d connections, %d calls came: want a second connection, and the two calls that were answered", proxy.Connections(), c.calls.Load())
	}
}
