package pool

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/jia-app/paymesh/payment/config"
	"github.com/jia-app/paymesh/payment/contacttest"
	"github.com/jia-app/paymesh/payment/contactv1"
	"github.com/jia-app/paymesh/payment/discovery"
	"github.com/jia-app/paymesh/payment/discovery/dnstest"
	"github.com/jia-app/paymesh/test/lab"
)

// serve starts a contact service at an address; to user_broken it answers UNAVAILABLE.
func serve(t *testing.T, at string) *contacttest.Service {
	t.Helper()
	return contacttest.Start(t, contacttest.Options{Address: at, Answer: func(_ context.Context, user string) error {
		if user == "user_broken" {
			return status.Error(codes.Unavailable, "broken")
		}
		return nil
	}})
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
	proxy := lab.StartProxy(t, serve(t, "127.0.0.1:0").Address)
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
	one := serve(t, "127.0.0.2:0")
	_, port, _ := net.SplitHostPort(one.Address)
	two := serve(t, "127.0.0.3:"+port)
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
		if len(one.Calls()) == 0 || len(two.Calls()) == 0 {
			return errors.New("one of two is not called")
		}
		return nil
	})
	before := [2]int{len(one.Calls()), len(two.Calls())}
	for range 10 {
		if err := ask("user_broken"); status.Code(err) != codes.Unavailable {
			t.Errorf("got %v", err)
		}
	}
	if got := [2]int{len(one.Calls()) - before[0], len(two.Calls()) - before[1]}; got != [2]int{5, 5} {
		t.Errorf("10 calls that fail reached the two %v times, want 5 and 5: in turn, and none twice", got)
	}
	one.Stop()
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
	c := serve(t, "127.0.0.1:0")
	proxy := lab.StartProxy(t, c.Address)
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
	if conn.Failing() || proxy.Connections() != 2 || len(c.Calls()) != 2 {
		t.Errorf("%d connections, %d calls came: want a second connection, and the two calls that were answered", proxy.Connections(), len(c.Calls()))
	}
}
