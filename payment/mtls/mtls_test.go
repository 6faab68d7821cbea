package mtls

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/jia-app/paymesh/payment/config"
	"github.com/jia-app/paymesh/payment/logtest"
	"github.com/jia-app/paymesh/test/authority"
)

var (
	payments = spiffeid.RequireFromString("spiffe://jia.app/payment-service")
	contacts = spiffeid.RequireFromString("spiffe://jia.app/contact-service")
	foreign  = spiffeid.RequireFromString("spiffe://other.app/payment-service")
)

// write writes the files that whoever rotates certificates would.
func write(t *testing.T, ca *authority.Authority, svid *x509svid.SVID) config.MTLS {
	t.Helper()
	cert, key, bundle := authority.Write(t, t.TempDir(), svid, ca.Bundle())
	return config.MTLS{Enabled: true, CertFile: cert, KeyFile: key, CAFile: bundle}
}

// source is an identity with what it trusts.
type source struct {
	*x509svid.SVID
	*x509bundle.Set
}

func (s source) GetX509SVID() (*x509svid.SVID, error) { return s.SVID, nil }

// handshake connects a client to a server, and returns what each sees of the other.
func handshake(t *testing.T, server credentials.TransportCredentials, client func(net.Conn) error) (seen credentials.AuthInfo, serverErr, clientErr error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() //nolint:errcheck // the test is over
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := listener.Accept()
		if err != nil {
			serverErr = err
			return
		}
		defer conn.Close() //nolint:errcheck // the test is over
		var secured net.Conn
		if secured, seen, serverErr = server.ServerHandshake(conn); serverErr == nil {
			_, serverErr = secured.Write([]byte("."))
		}
	}()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	clientErr = client(conn)
	_ = conn.Close()
	<-done
	return seen, serverErr, clientErr
}

func as(creds credentials.TransportCredentials) func(net.Conn) error {
	return func(conn net.Conn) error {
		secured, _, err := creds.ClientHandshake(context.Background(), "payment-service:15443", conn)
		if err != nil {
			return err
		}
		_, err = secured.Read(make([]byte, 1)) // a server refuses after a client's handshake of TLS 1.3
		return err
	}
}

func TestEachSideProvesWhoItIsAndTheServerTellsOfWhoDoesNot(t *testing.T) {
	ca, stranger := authority.New(t, payments.TrustDomain().Name()), authority.New(t, payments.TrustDomain().Name())
	abroad := authority.New(t, foreign.TrustDomain().Name())
	trust := x509bundle.NewSet(ca.Bundle())
	log := &logtest.Log{}
	registry := prometheus.NewRegistry()
	server, err := Server(source{ca.Issue(payments.Path(), time.Hour), trust}, ServerOptions{log.Logger(), registry})
	if err != nil {
		t.Fatal(err)
	}
	caller := func(a *authority.Authority, id spiffeid.ID, left time.Duration, expect spiffeid.ID) func(net.Conn) error {
		return as(Client(source{a.Issue(id.Path(), left), trust}, expect))
	}
	plain := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}
	failures := 0.0
	for name, c := range map[string]struct {
		client func(net.Conn) error
		logged string // by the server, where it is who refuses
		says   string // the client, where it is who refuses
	}{
		"the right one":            {caller(ca, contacts, time.Hour, payments), "", ""},
		"it expects somebody else": {caller(ca, contacts, time.Hour, contacts), "bad certificate", `unexpected ID "spiffe://jia.app/payment-service": want "spiffe://jia.app/contact-service"`},
		"another authority":        {caller(stranger, contacts, time.Hour, payments), "x509svid", ""},
		"another trust domain":     {caller(abroad, foreign, time.Hour, payments), "other.app", ""},
		"an old certificate":       {caller(ca, contacts, -time.Minute, payments), "expired", ""},
		"no certificate": {func(conn net.Conn) error {
			secured := tls.Client(conn, plain)
			_, err := secured.Read(make([]byte, 1))
			return err
		}, "didn't provide a certificate", ""},
		"TLS 1.2": {func(conn net.Conn) error {
			old := plain.Clone()
			old.MaxVersion = tls.VersionTLS12
			return tls.Client(conn, old).Handshake()
		}, "unsupported versions", ""},
		"plaintext": {func(conn net.Conn) error {
			_, err := conn.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
			return errors.Join(err, errors.New("refused"))
		}, "first record does not look like a TLS handshake", ""},
	} {
		seen, serverErr, clientErr := handshake(t, server.Clone(), c.client)
		if c.logged == "" {
			if info, is := seen.(credentials.TLSInfo); serverErr != nil || clientErr != nil || !is || info.SPIFFEID.String() != contacts.String() {
				t.Errorf("%s: the server sees %v, %v, the client %v", name, seen, serverErr, clientErr)
			}
			continue
		}
		failures++
		if serverErr == nil || clientErr == nil || !strings.Contains(clientErr.Error(), c.says) || !strings.Contains(log.String(), c.logged) {
			t.Errorf("%s: the server ends with %v, the client with %v (want %q), the log has (want %q)\n%s", name, serverErr, clientErr, c.says, c.logged, log)
		}
	}
	if n, err := testutil.GatherAndCount(registry); err != nil || n != 1 || counter(t, registry) != failures {
		t.Errorf("%v failures are counted, want %v (%v)", counter(t, registry), failures, err)
	}
	before := log.String()
	if _, serverErr, _ := handshake(t, server, func(net.Conn) error { return nil }); serverErr == nil || log.String() != before {
		t.Errorf("a look whether the port is open: %v, the log has more:\n%s", serverErr, log.String()[len(before):])
	}
}

func counter(t *testing.T, registry *prometheus.Registry) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families[0].GetMetric()[0].GetCounter().GetValue()
}

func TestFilesMustBeThereAndBeTheWantedIdentity(t *testing.T) {
	ca := authority.New(t, payments.TrustDomain().Name())
	good := write(t, ca, ca.Issue(payments.Path(), time.Hour))
	missing, noAuthorities := good, good
	missing.CertFile += ".none"
	noAuthorities.CAFile += ".none"
	for name, c := range map[string]struct {
		files config.MTLS
		want  string
	}{
		"good":                  {write(t, ca, ca.Issue(payments.Path(), time.Hour)), ""},
		"no certificate":        {missing, "mtls.cert_file and mtls.key_file: "},
		"no authorities":        {noAuthorities, "mtls.ca_file: "},
		"an old one":            {write(t, ca, ca.Issue(payments.Path(), -time.Minute)), "nobody has renewed it"},
		"that of somebody else": {write(t, ca, ca.Issue(contacts.Path(), time.Hour)), "it is the certificate of spiffe://jia.app/contact-service: service_mesh.spiffe_id wants spiffe://jia.app/payment-service"},
	} {
		identity, err := Open(c.files, payments, slog.New(slog.DiscardHandler))
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: got %v, want %s", name, err, c.want)
			}
			continue
		}
		if err != nil || identity.Wait(t.Context()) != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := identity.GetX509BundleForTrustDomain(foreign.TrustDomain()); err == nil {
			t.Errorf("%s: it trusts another trust domain", name)
		}
		rotated, err := os.ReadFile(write(t, ca, ca.Issue(contacts.Path(), time.Hour)).CertFile)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(c.files.CertFile, rotated, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := identity.GetX509SVID(); err == nil {
			t.Errorf("%s: a certificate that does not belong to the key is taken", name)
		}
		_ = identity.Close()
	}
}

func TestWithoutAnAgentTheProcessWaitsAndSaysForWhat(t *testing.T) {
	log := &logtest.Log{}
	socket := "unix://" + filepath.Join(t.TempDir(), "none.sock")
	identity, err := Open(config.MTLS{WorkloadAPI: socket}, payments, log.Logger())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	waited := make(chan error, 1)
	go func() { waited <- identity.Wait(ctx) }()
	logtest.Eventually(t, func() bool { return strings.Contains(log.String(), "no certificate yet") })
	want := "wait for the certificate of spiffe://jia.app/payment-service from the Workload API at " + socket + ": "
	if err := identity.Ready(); err == nil || !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), "none.sock: connect: no such file") {
		t.Errorf("got %v", err)
	}
	if _, err := identity.GetX509SVID(); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v", err)
	}
	cancel(errors.New("stopped"))
	if err := <-waited; err == nil || !strings.Contains(err.Error(), "given up: stopped") {
		t.Errorf("got %v", err)
	}
	if err := identity.Close(); err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "level=WARN"); n != 1 {
		t.Errorf("%d lines, want one for all attempts that fail alike:\n%s", n, log)
	}
	if _, err := Open(config.MTLS{WorkloadAPI: "/run/agent.sock"}, payments, log.Logger()); err == nil || !strings.Contains(err.Error(), "mtls.workload_api: ") {
		t.Errorf("an address without a scheme: %v", err)
	}
}

func TestTheWantedCertificateIsTakenAmongOthersAndKeptWhenItIsNotRenewed(t *testing.T) {
	ca := authority.New(t, payments.TrustDomain().Name())
	log := &logtest.Log{}
	w := &watched{address: "unix:///agent.sock", want: payments, log: log.Logger(), bundles: x509bundle.NewSet(), changed: make(chan struct{})}
	give := func(svids ...*x509svid.SVID) {
		w.OnX509ContextUpdate(&workloadapi.X509Context{SVIDs: svids, Bundles: x509bundle.NewSet(ca.Bundle())})
	}
	other, first, second := ca.Issue(contacts.Path(), time.Hour), ca.Issue(payments.Path(), time.Hour), ca.Issue(payments.Path(), time.Hour)
	serial := func() *x509svid.SVID { svid, _ := w.GetX509SVID(); return svid }
	steps := []struct {
		do     func()
		want   *x509svid.SVID
		logged string
	}{
		{func() { give(other) }, nil, "it gives this process spiffe://jia.app/contact-service and not spiffe://jia.app/payment-service"},
		{func() { give(other, first) }, first, "renewed=false"},
		{func() { give(first, other) }, first, ""},
		{func() { w.OnX509ContextWatchError(status.Error(codes.Canceled, "stopped")) }, first, ""},
		{func() { w.OnX509ContextWatchError(status.Error(codes.Unavailable, "the agent is away")) }, first, "the certificate cannot be renewed"},
		{func() { give(first) }, first, "can be renewed again"},
		{func() { give(other) }, first, "the one before it stays until it ends"},
		{func() { give(second) }, second, "renewed=true"},
	}
	for i, step := range steps {
		before := len(log.String())
		changed, _ := w.ready()
		step.do()
		if serial() != step.want || (w.Ready() == nil) != (step.want != nil) {
			t.Errorf("step %d: the certificate is another: %v", i, w.Ready())
		}
		if line := log.String()[before:]; !strings.Contains(line, step.logged) || (step.logged == "") != (line == "") {
			t.Errorf("step %d: the log has %q, want %q", i, line, step.logged)
		}
		select {
		case <-changed:
		default:
			if i != 3 {
				t.Errorf("step %d: who waits is not told", i)
			}
		}
	}
	w.take(ca.Issue(payments.Path(), -time.Second))
	if err := w.Ready(); err == nil || !strings.Contains(err.Error(), "nobody has renewed it") {
		t.Errorf("after its end: %v", err)
	}
}

func TestAProcessThatWaitsLongSaysSoFromTimeToTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := authority.New(t, payments.TrustDomain().Name())
		log := &logtest.Log{}
		w := &watched{address: "unix:///agent.sock", want: payments, log: log.Logger(), bundles: x509bundle.NewSet(), failure: "no identity issued", changed: make(chan struct{})}
		var reminding sync.WaitGroup
		reminding.Go(func() { w.remind(t.Context()) })
		<-time.After(2*reminder + time.Second)
		if n := strings.Count(log.String(), "still no certificate"); n != 2 || !strings.Contains(log.String(), "for=1m0s") || !strings.Contains(log.String(), "no identity issued") {
			t.Errorf("after a minute the log has\n%s", log)
		}
		w.OnX509ContextUpdate(&workloadapi.X509Context{SVIDs: []*x509svid.SVID{ca.Issue(payments.Path(), time.Hour)}, Bundles: x509bundle.NewSet(ca.Bundle())})
		reminding.Wait()
	})
}

func TestAttemptsAreSoonAtFirst(t *testing.T) {
	backoff := retries{}.NewBackoff()
	for _, want := range []time.Duration{firstRetry, 2 * firstRetry, 4 * firstRetry, lastRetry, lastRetry} {
		if got := backoff.Next(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	backoff.Reset()
	if got := backoff.Next(); got != firstRetry {
		t.Errorf("after a success %s", got)
	}
}
