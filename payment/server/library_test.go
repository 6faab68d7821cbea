package server

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/jia-app/paymesh/payment/config"
	"github.com/jia-app/paymesh/payment/logtest"
	"github.com/jia-app/paymesh/payment/paymentv1"
	"github.com/jia-app/paymesh/test/authority"
	"github.com/jia-app/paymesh/test/lab"
)

// issue writes the certificate, key and authorities of a workload.
func issue(t *testing.T, ca *authority.Authority, path string) config.MTLS {
	t.Helper()
	cert, key, bundle := authority.Write(t, t.TempDir(), ca.Issue(path, time.Hour), ca.Bundle())
	return config.MTLS{Enabled: true, CertFile: cert, KeyFile: key, CAFile: bundle}
}

func (m material) config(t *testing.T) *tls.Config {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(m.CertFile, m.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	// The server's name is its SPIFFE ID, which crypto/tls cannot check; that it is ours is not what these tests are about.
	return &tls.Config{Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13}
}

type material config.MTLS

func TestTheCertificateSaysWhoCalls(t *testing.T) {
	ca := authority.New(t, "jia.app")
	contact := material(issue(t, ca, "/contact-service")).config(t)
	l := start(t, func(c *config.Config) {
		c.ServiceMesh.TrustXFCC, c.MTLS = false, issue(t, ca, "/payment-service")
		c.ExternalServices.ContactService.SPIFFEID = "spiffe://jia.app/contact-service"
	}, credentials.NewTLS(contact))
	call := func(m config.MTLS, pairs ...string) error {
		settings := material(m).config(t)
		ctx := metadata.AppendToOutgoingContext(t.Context(), append(pairs, "authorization", "Bearer "+l.token("ann"), "idempotency-key", "k")...)
		_, err := paymentv1.NewPaymentServiceClient(l.dial(credentials.NewTLS(settings))).CreatePayment(ctx, order("order-1"))
		return err
	}
	if err := call(issue(t, ca, "/api-gateway")); err != nil {
		t.Errorf("an allowed caller: %v", err)
	}
	if err := call(issue(t, ca, "/other")); status.Code(err) != codes.PermissionDenied {
		t.Errorf("another caller: %v", err)
	}
	if err := call(issue(t, ca, "/other"), "x-forwarded-client-cert", gateway); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a forged XFCC: %v", err)
	}
	if err := call(issue(t, authority.New(t, "jia.app"), "/api-gateway")); status.Code(err) != codes.Unavailable {
		t.Errorf("a caller of another authority: %v", err)
	}
	_, err := l.client().CreatePayment(l.as("ann", "k"), order("order-1"))
	if status.Code(err) != codes.Unavailable {
		t.Errorf("a caller in plaintext: %v", err)
	}
}

func TestASessionIsNotResumedSoThatEachCertificateIsVerified(t *testing.T) {
	ca := authority.New(t, "jia.app")
	l := start(t, func(c *config.Config) {
		c.ServiceMesh.TrustXFCC, c.MTLS = false, issue(t, ca, "/payment-service")
		c.ExternalServices.ContactService.SPIFFEID = "spiffe://jia.app/contact-service"
	}, insecure.NewCredentials())
	settings := material(issue(t, ca, "/api-gateway")).config(t)
	settings.ClientSessionCache, settings.ServerName = tls.NewLRUClientSessionCache(4), "payment-service"
	for range 2 {
		conn, err := tls.Dial("tcp", l.server.GRPCAddress(), settings)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := conn.Read(make([]byte, 1)); err != nil { // tickets come with the first bytes
			t.Fatal(err)
		}
		if conn.ConnectionState().DidResume {
			t.Error("the server resumed a session")
		}
		_ = conn.Close()
	}
}

// library is a service that is its own mTLS endpoint, by a policy file.
func library(t *testing.T, ca *authority.Authority, policy string, change func(*config.Config)) *running {
	t.Helper()
	contact := material(issue(t, ca, "/contact-service")).config(t)
	return start(t, func(c *config.Config) {
		c.ServiceMesh.TrustXFCC, c.MTLS = false, issue(t, ca, "/payment-service")
		c.ExternalServices.ContactService.SPIFFEID = "spiffe://jia.app/contact-service"
		c.Auth.AllowedSPIFFEIDs, c.Auth.PolicyFile = nil, write(t, filepath.Join(t.TempDir(), "policy.yaml"), []byte(policy))
		if change != nil {
			change(c)
		}
	}, credentials.NewTLS(contact))
}

const policyOfTwo = `rules:
- {name: gateway, spiffe_id: spiffe://jia.app/api-gateway, methods: [payment.v1.PaymentService/CreatePayment]}
- {name: gateway, spiffe_id: spiffe://jia.app/api-gateway, methods: [payment.v1.PaymentService/CreatePayment]}
- {name: monitor, spiffe_id: spiffe://jia.app/monitor, methods: [grpc.health.v1.Health/*, grpc.reflection.v1.ServerReflection/*]}
`

func TestAPolicyIsEnforcedForEachMethodAndStreamOfAProcessWithoutASidecar(t *testing.T) {
	ca := authority.New(t, "jia.app")
	l := library(t, ca, policyOfTwo, func(c *config.Config) { c.GRPC.EnableReflection = true })
	as := func(path string) credentials.TransportCredentials {
		return credentials.NewTLS(material(issue(t, ca, path)).config(t))
	}
	user := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+l.token("ann"), "idempotency-key", "k")
	gateway, monitor := l.dial(as("/api-gateway")), l.dial(as("/monitor"))
	watch := func(conn *healthv1.HealthClient) error {
		stream, err := (*conn).Watch(t.Context(), &healthv1.HealthCheckRequest{Service: paymentv1.PaymentService_ServiceDesc.ServiceName})
		if err != nil {
			return err
		}
		answer, err := stream.Recv()
		if err == nil && answer.GetStatus() != healthv1.HealthCheckResponse_SERVING {
			err = fmt.Errorf("it is %s", answer.GetStatus())
		}
		return err
	}
	reflect := func(ctx context.Context) error {
		stream, err := reflectionv1.NewServerReflectionClient(monitor).ServerReflectionInfo(ctx)
		if err != nil {
			return err
		}
		_ = stream.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}) // Recv tells
		_, err = stream.Recv()
		return err
	}
	gatewayHealth, monitorHealth := healthv1.NewHealthClient(gateway), healthv1.NewHealthClient(monitor)
	for name, c := range map[string]struct {
		call func() error
		want codes.Code
	}{
		"a method of the rule": {func() error {
			_, err := paymentv1.NewPaymentServiceClient(gateway).CreatePayment(user, order("order-1"))
			return err
		}, codes.OK},
		"another method": {func() error {
			_, err := paymentv1.NewPaymentServiceClient(gateway).ListPayments(user, &paymentv1.ListPaymentsRequest{})
			return err
		}, codes.PermissionDenied},
		"another caller": {func() error {
			_, err := paymentv1.NewPaymentServiceClient(l.dial(as("/other"))).CreatePayment(user, order("order-1"))
			return err
		}, codes.PermissionDenied},
		"a stream of the rule":               {func() error { return watch(&monitorHealth) }, codes.OK},
		"a stream of no rule":                {func() error { return watch(&gatewayHealth) }, codes.PermissionDenied},
		"reflection without a user":          {func() error { return reflect(t.Context()) }, codes.Unauthenticated},
		"reflection, with a rule and a user": {func() error { return reflect(user) }, codes.OK},
		"a certificate of another trust domain": {func() error {
			_, err := paymentv1.NewPaymentServiceClient(l.dial(credentials.NewTLS(material(issue(t, authority.New(t, "jia.app"), "/api-gateway")).config(t)))).CreatePayment(user, order("order-1"))
			return err
		}, codes.Unavailable},
	} {
		if err := c.call(); status.Code(err) != c.want {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
	}
	for _, want := range []string{
		`"nearest_rule":"gateway (this caller, other methods)"`, `"nearest_rule":"gateway (this method, other callers)"`, `"caller":"spiffe://jia.app/other"`,
		`"service":"spiffe://jia.app/payment-service"`, `"connection refused"`, `"caller":"spiffe://jia.app/api-gateway","rule":"gateway"`, `"method":"/grpc.health.v1.Health/Watch","reason":"method_not_allowed"`,
	} {
		logtest.Eventually(t, func() bool { return strings.Contains(l.log.String(), want) }) // a refused handshake is told after its alert
	}
	for _, want := range []string{
		`grpc_server_denied_total{method="ListPayments",reason="method_not_allowed",service="payment.v1.PaymentService"} 1`, "grpc_server_handshakes_failed_total 1",
		`auth_policy_changes_total{result="loaded"} 1`, "auth_policy_outdated 0", `grpc_server_requests_total{code="PermissionDenied",method="Watch",service="grpc.health.v1.Health"} 1`,
	} {
		if got := l.page("/metrics", http.StatusOK); !strings.Contains(got, want) {
			t.Errorf("/metrics has no %s:\n%s", want, got)
		}
	}
}

func TestAPolicyThatChangesIsFollowed(t *testing.T) {
	ca := authority.New(t, "jia.app")
	l := library(t, ca, "rules: []\n", nil)
	conn := l.dial(credentials.NewTLS(material(issue(t, ca, "/api-gateway")).config(t)))
	for i, step := range []struct {
		policy string
		want   codes.Code
	}{{policyOfTwo, codes.OK}, {"rules: []\n", codes.PermissionDenied}} {
		write(t, l.config.Auth.PolicyFile, []byte(step.policy))
		logtest.Eventually(t, func() bool {
			ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+l.token("ann"), "idempotency-key", fmt.Sprint(i))
			_, err := paymentv1.NewPaymentServiceClient(conn).CreatePayment(ctx, order(fmt.Sprintf("order-%d", i)))
			return status.Code(err) == step.want
		})
	}
}

func TestNothingIsServedBeforeThereIsACertificateAndHealthSaysSo(t *testing.T) {
	ca := authority.New(t, "jia.app")
	l := library(t, ca, policyOfTwo, func(c *config.Config) {
		c.MTLS = config.MTLS{Enabled: true, WorkloadAPI: "unix://" + filepath.Join(t.TempDir(), "agent.sock")}
		c.GRPC.Address = lab.FreeAddress(t)
	})
	var page map[string]string
	if err := json.Unmarshal([]byte(l.page("/health", http.StatusServiceUnavailable)), &page); err != nil {
		t.Fatal(err)
	}
	if page["status"] != "WAITING_FOR_IDENTITY" || !strings.Contains(page["reason"], "wait for the certificate of spiffe://jia.app/payment-service from the Workload API at unix://") {
		t.Errorf("/health has %v", page)
	}
	if conn, err := net.Dial("tcp", l.server.GRPCAddress()); err == nil {
		t.Error("the port of the payment API is open")
		_ = conn.Close()
	}
	if got := l.page("/health/services", http.StatusOK); !strings.Contains(got, `"healthy":false`) {
		t.Errorf("/health/services has %s", got)
	}
	if err := l.stop(); err != nil {
		t.Errorf("a process that is told to stop while it waits ends with %v", err)
	}
	if got := l.log.String(); strings.Contains(got, `"serving"`) || !strings.Contains(got, "no certificate yet") {
		t.Errorf("the log has %s", got)
	}
}

func TestAtTheStartTheProcessSaysWhatIsMissing(t *testing.T) {
	ca := authority.New(t, "jia.app")
	l := library(t, ca, policyOfTwo, nil)
	if err := l.stop(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*config.Config){
		"auth.policy_file: read the policy: open /none":          func(c *config.Config) { c.Auth.PolicyFile = "/none" },
		"mtls.cert_file: it is the certificate of spiffe://jia.": func(c *config.Config) { c.MTLS = issue(t, ca, "/other") },
		"read the keys of https://issuer from /none":             func(c *config.Config) { c.Auth.JWT.JWKSFile = "/none" },
		"grpc.address: listen tcp":                               func(c *config.Config) { c.GRPC.Address = l.people.Address },
	} {
		c := l.config
		change(&c)
		if _, err := New(t.Context(), c, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestBehindASidecarWithoutAListWhoeverItLetInMayCall(t *testing.T) {
	l := start(t, func(c *config.Config) { c.Auth.AllowedSPIFFEIDs = nil }, insecure.NewCredentials())
	call := func(uri string) error {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "x-forwarded-client-cert", uri, "authorization", "Bearer "+l.token("ann"))
		_, err := l.client().ListPayments(ctx, &paymentv1.ListPaymentsRequest{})
		return err
	}
	if err := call("URI=spiffe://jia.app/anybody"); err != nil {
		t.Errorf("one of the trust domain: %v", err)
	}
	if err := call("URI=spiffe://other.app/anybody"); status.Code(err) != codes.PermissionDenied || !strings.Contains(l.log.String(), "those of jia.app may call") {
		t.Errorf("one of another: %v, the log has %s", err, l.log)
	}
}
