package discovery

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"

	"github.com/jia-app/paymesh/payment/config"
	"github.com/jia-app/paymesh/payment/discovery/dnstest"
)

const contactSRV = "_grpc._tcp.contact-service.people.svc"

func serve(t *testing.T, records dnstest.Records) *dnstest.Server {
	t.Helper()
	server, err := dnstest.Start(records)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	return server
}

func hosts(records map[string][]string) map[string][]netip.Addr {
	all := map[string][]netip.Addr{}
	for name, texts := range records {
		for _, text := range texts {
			all[name] = append(all[name], netip.MustParseAddr(text))
		}
	}
	return all
}

func TestAServiceIsFoundByItsRecords(t *testing.T) {
	a := hosts(map[string][]string{"contact-service.people.svc": {"10.0.0.2", "10.0.0.1", "fd00::1"}, "pod-1": {"10.0.0.3"}, "pod-2": {"10.0.0.4"}})
	for name, c := range map[string]struct {
		scheme, address string
		records         dnstest.Records
		want, err       string
	}{
		"A and AAAA":                   {DNS, "contact-service:50051", dnstest.Records{Hosts: a}, "[10.0.0.1:50051 10.0.0.2:50051 [fd00::1]:50051]", ""},
		"a whole name":                 {DNS, "contact-service.people.svc:1", dnstest.Records{Hosts: a}, "[10.0.0.1:1 10.0.0.2:1 [fd00::1]:1]", ""},
		"an address":                   {SRV, "127.0.0.1:1", dnstest.Records{}, "[127.0.0.1:1]", ""},
		"SRV, with its own port":       {SRV, "contact-service:50051", dnstest.Records{Hosts: a, SRV: map[string][]dnstest.SRV{contactSRV: {{Target: "pod-1", Port: 15443}, {Target: "pod-2", Port: 15444}}}}, "[10.0.0.3:15443 10.0.0.4:15444]", ""},
		"SRV of the lowest priority":   {SRV, "contact-service:50051", dnstest.Records{Hosts: a, SRV: map[string][]dnstest.SRV{contactSRV: {{Target: "pod-1", Port: 1, Priority: 2}, {Target: "pod-2", Port: 2, Priority: 1}}}}, "[10.0.0.4:2]", ""},
		"one of two targets is gone":   {SRV, "contact-service:50051", dnstest.Records{Hosts: a, SRV: map[string][]dnstest.SRV{contactSRV: {{Target: "pod-9", Port: 1}, {Target: "pod-2", Port: 2}}}}, "[10.0.0.4:2]", ""},
		"no SRV, so A and AAAA":        {SRV, "contact-service:50051", dnstest.Records{Hosts: a}, "[10.0.0.1:50051 10.0.0.2:50051 [fd00::1]:50051]", ""},
		"SRV that leads nowhere":       {SRV, "contact-service:50051", dnstest.Records{Hosts: a, SRV: map[string][]dnstest.SRV{contactSRV: {{Target: "pod-9", Port: 1}}}}, "[]", "lead nowhere"},
		"SRV of a service that is off": {SRV, "contact-service:50051", dnstest.Records{Hosts: a, SRV: map[string][]dnstest.SRV{contactSRV: {{Target: "."}}}}, "[]", "no such"},
		"DNS that is broken":           {SRV, "contact-service:50051", dnstest.Records{Hosts: a, Broken: true}, "[]", "SRV records of _grpc._tcp.contact-service.people.svc"},
		"nobody":                       {DNS, "nobody:1", dnstest.Records{Hosts: a}, "[]", "find the addresses of nobody.people.svc"},
		"no port":                      {DNS, "nobody", dnstest.Records{}, "[]", "want host:port"},
		"a port that is no number":     {DNS, "nobody:grpc", dnstest.Records{}, "[]", "want a number"},
	} {
		d := New(config.Discovery{Scheme: c.scheme, Namespace: "people"}, Options{Resolver: serve(t, c.records).Resolver()})
		got, err := d.Resolve(t.Context(), c.address)
		if fmt.Sprint(got) != c.want || (err == nil) != (c.err == "") || (err != nil && !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: got %v, %v, want %s, %q", name, got, err, c.want, c.err)
		}
	}
}

func TestATargetSaysHowGRPCFindsTheService(t *testing.T) {
	for name, c := range map[string]struct{ scheme, namespace, address, want string }{
		"the sidecar's address": {XDS, "people", "127.0.0.1:50051", "passthrough:///127.0.0.1:50051"},
		"a bare name":           {DNS, "people", "contact-service:1", "dns:///contact-service.people.svc:1"},
		"a bare name, SRV":      {SRV, "people", "contact-service:1", "srv:///contact-service.people.svc:1"},
		"no namespace":          {DNS, "", "contact-service:1", "dns:///contact-service:1"},
		"a whole name":          {DNS, "people", "a.b:1", "dns:///a.b:1"},
		"an IPv6 address":       {DNS, "people", "[::1]:1", "dns:///[::1]:1"},
		"this machine":          {DNS, "people", "localhost:1", "dns:///localhost:1"},
	} {
		got, err := New(config.Discovery{Scheme: c.scheme, Namespace: c.namespace}, Options{}).Target(c.address)
		if err != nil || got != c.want {
			t.Errorf("%s: got %s, %v, want %s", name, got, err, c.want)
		}
	}
	if _, err := New(config.Discovery{Scheme: DNS}, Options{}).Target("x"); err == nil {
		t.Error("an address without a port has a target")
	}
}

// servers are at the port of the first, each on a loopback address of its own, as pods are.
func servers(t *testing.T, addresses ...string) (port uint16) {
	t.Helper()
	for _, address := range addresses {
		listener, err := net.Listen("tcp", net.JoinHostPort(address, fmt.Sprint(port)))
		if err != nil {
			t.Fatal(err)
		}
		port = uint16(listener.Addr().(*net.TCPAddr).Port)
		server := grpc.NewServer()
		healthv1.RegisterHealthServer(server, health.NewServer())
		go server.Serve(listener) //nolint:errcheck // it ends with the test
		t.Cleanup(server.Stop)
	}
	return port
}

func TestAServerThatIsAddedIsCalledAndAnAnswerThatFailsChangesNothing(t *testing.T) {
	port := servers(t, "127.77.0.1", "127.77.0.2")
	one := dnstest.Records{Hosts: hosts(map[string][]string{"contact-service.people.svc": {"127.77.0.1"}})}
	both := dnstest.Records{Hosts: hosts(map[string][]string{"contact-service.people.svc": {"127.77.0.1", "127.77.0.2"}})}
	dns := serve(t, one)
	var log strings.Builder
	d := New(config.Discovery{Scheme: SRV, Namespace: "people"}, Options{Resolver: dns.Resolver(), Interval: 10 * time.Millisecond, Log: slog.New(slog.NewTextHandler(&log, nil))})
	target, err := d.Target(fmt.Sprintf("contact-service:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(target, grpc.WithResolvers(d.Builders()...), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // again below
	called := func() string {
		var from peer.Peer
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if _, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{}, grpc.Peer(&from), grpc.WaitForReady(true)); err != nil {
			t.Fatal(err)
		}
		host, _, _ := net.SplitHostPort(from.Addr.String())
		return host
	}
	until := func(want string) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); called() != want; {
			if time.Now().After(deadline) {
				t.Fatalf("%s is not called", want)
			}
		}
	}
	until("127.77.0.1")
	dns.Set(both)
	until("127.77.0.2")
	until("127.77.0.1")
	dns.Set(dnstest.Records{Broken: true})
	for range 50 {
		called()
	}
	dns.Set(one)
	until("127.77.0.1")
	if err := conn.Close(); err != nil { // it waits for the resolver, so that the log is whole
		t.Fatal(err)
	}
	if got := log.String(); !strings.Contains(got, `msg=discovery service=contact-service.people.svc:`) || !strings.Contains(got, "127.77.0.2") {
		t.Errorf("the log does not tell of the change: %s", got)
	}
}

func TestTheSidecarSaysHowItIs(t *testing.T) {
	pages := map[string]string{"/ready": "LIVE\n", "/clusters": `{"cluster_statuses": [
		{"name": "people/contact-service/grpc", "added_via_api": true, "host_statuses": [{"health_status": {"eds_health_status": "HEALTHY"}}, {"health_status": {"failed_outlier_check": true}}]},
		{"name": "paymesh", "host_statuses": [{}]}]}`}
	code := http.StatusOK
	envoy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/ready" {
			w.WriteHeader(code)
		}
		_, _ = w.Write([]byte(pages[r.URL.Path]))
	}))
	defer envoy.Close()
	address := strings.TrimPrefix(envoy.URL, "http://")
	got, err := AskSidecar(t.Context(), envoy.Client(), address)
	if err != nil || got.State != "LIVE" || fmt.Sprint(got.Clusters) != "map[people/contact-service/grpc:{2 1}]" {
		t.Errorf("got %+v, %v", got, err)
	}
	code, pages["/ready"] = http.StatusServiceUnavailable, "PRE_INITIALIZING\n"
	if got, err := AskSidecar(t.Context(), envoy.Client(), address); err != nil || got.State != "PRE_INITIALIZING" {
		t.Errorf("one that starts: got %+v, %v", got, err)
	}
	code = http.StatusNotFound
	if _, err := AskSidecar(t.Context(), envoy.Client(), address); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("something else: got %v", err)
	}
	envoy.Close()
	if _, err := AskSidecar(t.Context(), envoy.Client(), address); err == nil || !strings.Contains(err.Error(), "ask the sidecar at "+address) {
		t.Errorf("nobody: got %v", err)
	}
}
