package payment_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/jia-app/paymesh/payment/contactv1"
	"github.com/jia-app/paymesh/payment/mtls"
	"github.com/jia-app/paymesh/payment/paymentv1"
	"github.com/jia-app/paymesh/payment/policy"
	"github.com/jia-app/paymesh/test/lab"
)

// asks lets a caller ask for users.
func asks(caller spiffeid.ID) policy.Rules {
	return policy.Rules{{Name: "payments", SPIFFEID: caller.String(), Methods: []string{"contact.v1.ContactService/GetUserInfo"}}}
}

func TestAPaymentCrossesTwoProcessesWithoutSidecarsAndEachRefusalIsExplained(t *testing.T) {
	payments, contacts := enter(t, name(t, "payment-service")), enter(t, name(t, "contact-service"))
	till, auditor, stranger := enter(t, name(t, "till")), enter(t, name(t, "auditor")), enter(t, name(t, "stranger"))
	c := startContact(t, contacts, asks(payments))
	p := prepare(t, payments, contacts, c, rule("auditors", auditor, list), rule("till", till, create))
	p.start(t)
	p.await(t, http.StatusOK, "SERVING")

	if err := p.pay(t.Context(), p.client(t, till, payments), "order-1"); err != nil {
		t.Errorf("an allowed call: %v", err)
	}
	if code, text, err := p.page("/health/services"); err != nil || code != http.StatusOK || !strings.Contains(text, `"healthy":true`) {
		t.Errorf("/health/services: %d %s, %v", code, text, err)
	}
	denied := func(call string, err error, log fmt.Stringer, want codes.Code, line ...string) {
		t.Helper()
		if status.Code(err) != want {
			t.Errorf("%s: got %v, want %s", call, err, want)
		}
		awaitLine(t, log, line...)
		for _, secret := range []string{"rule", "spiffe://", "till", "auditor"} {
			if want == codes.PermissionDenied && strings.Contains(status.Convert(err).Message(), secret) {
				t.Errorf("%s: the caller is told %q", call, status.Convert(err).Message())
			}
		}
	}
	_, err := p.client(t, till, payments).ListPayments(p.user(t.Context(), ""), &paymentv1.ListPaymentsRequest{})
	denied("a method that the caller's rule does not have", err, p.log, codes.PermissionDenied,
		`"call denied"`, till.String(), `"/`+list+`"`, `"service":"`+payments.String()+`"`, `"nearest_rule":"till (this caller, other methods)"`)
	denied("a caller that no rule names", p.pay(t.Context(), p.client(t, stranger, payments), "order-2"), p.log, codes.PermissionDenied,
		`"call denied"`, stranger.String(), `"nearest_rule":"till (this method, other callers)"`)
	denied("a caller in plaintext", p.pay(t.Context(), plaintext(t, p.address), "order-3"), p.log, codes.Unavailable,
		`"connection refused"`, "first record does not look like a TLS handshake")
	err = p.pay(t.Context(), p.client(t, till, contacts), "order-4")
	denied("a caller that expects somebody else", err, p.log, codes.Unavailable, `"connection refused"`, "bad certificate")
	if !strings.Contains(err.Error(), "unexpected ID") {
		t.Errorf("the caller is not told whom it met: %v", err)
	}
	conn, err := grpc.NewClient(c.address, grpc.WithTransportCredentials(mtls.Client(identity(t, stranger), contacts)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // the test is over
	_, err = contactv1.NewContactServiceClient(conn).GetUserInfo(t.Context(), &contactv1.GetUserInfoRequest{UserId: "user_1"})
	denied("around the payment service", err, c.log, codes.PermissionDenied, `"call denied"`, stranger.String(), `"nearest_rule":"payments (this method, other callers)"`)

	_, metrics, err := p.page("/metrics")
	for _, want := range []string{
		`grpc_server_denied_total{method="ListPayments",reason="method_not_allowed",service="payment.v1.PaymentService"} 1`,
		`grpc_server_denied_total{method="CreatePayment",reason="caller_unknown",service="payment.v1.PaymentService"} 1`,
		"grpc_server_handshakes_failed_total", `grpc_client_requests_total{code="OK",method="GetUserInfo",service="contact.v1.ContactService"} 1`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics has no %s (%v)", want, err)
		}
	}
	if err := p.stop(t); err != nil {
		t.Errorf("the process ends with %v", err)
	}
}

func TestTheContactServiceMustBeWhoTheConfigurationExpects(t *testing.T) {
	payments, contacts, till := enter(t, name(t, "payment-service")), enter(t, name(t, "contact-service")), enter(t, name(t, "till"))
	impostor := startContact(t, enter(t, name(t, "impostor")), asks(payments))
	p := prepare(t, payments, contacts, impostor, rule("till", till, create))
	p.start(t)
	p.await(t, http.StatusOK, "SERVING")
	err := p.pay(t.Context(), p.client(t, till, payments), "order-1")
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "no payment was taken") {
		t.Errorf("got %v", err)
	}
	awaitLine(t, p.log, "the contact service does not answer", "unexpected ID", impostor.id.String(), contacts.String())
}

func TestAnAllowThatIsTakenBackIsRefusedSoonAndWithoutARestart(t *testing.T) {
	payments, contacts, till := enter(t, name(t, "payment-service")), enter(t, name(t, "contact-service")), enter(t, name(t, "till"))
	p := prepare(t, payments, contacts, startContact(t, contacts, asks(payments)), rule("till", till, create))
	p.start(t)
	p.await(t, http.StatusOK, "SERVING")
	client := p.client(t, till, payments)
	nobody := p.render(t, payments, contacts)["policy.yaml"]
	allowed := p.fromHere["policy.yaml"]
	n := 0
	until := func(want codes.Code) time.Duration {
		t.Helper()
		begin := time.Now()
		lab.Eventually(t, patience, func() error {
			n++
			if got := status.Code(p.pay(t.Context(), client, fmt.Sprintf("order-%d", n))); got != want {
				return fmt.Errorf("call %d: got %s, want %s", n, got, want)
			}
			return nil
		})
		return time.Since(begin)
	}
	until(codes.OK)
	var refused []time.Duration
	for range 2 {
		p.allow(t, nobody)
		refused = append(refused, until(codes.PermissionDenied))
		p.allow(t, "rules: [")
		lab.Eventually(t, patience, func() error {
			_, page, err := p.page("/metrics")
			if err == nil && !strings.Contains(page, "\nauth_policy_outdated 1\n") {
				err = errors.New("a broken policy is not told")
			}
			return err
		})
		if err := p.pay(t.Context(), client, "order-of-a-broken-policy"); status.Code(err) != codes.PermissionDenied {
			t.Errorf("with a broken policy: %v: the one before it holds", err)
		}
		p.allow(t, allowed)
		until(codes.OK)
	}
	slices.Sort(refused)
	t.Logf("from the swap of the file to the first refusal: %s (the file is read every %s)", refused, policy.Interval)
	for _, line := range []string{"nobody may call", "the policy before it stays in force", `"rules":1`} {
		awaitLine(t, p.log, line)
	}
	if n := strings.Count(p.log.String(), `"serving"`); n != 1 {
		t.Errorf("it began to serve %d times", n)
	}
}

func TestTheProcessWaitsForItsIdentityAndServesAsSoonAsThereIsAnEntry(t *testing.T) {
	payments, contacts, till := name(t, "payment-service"), enter(t, name(t, "contact-service")), enter(t, name(t, "till"))
	p := prepare(t, payments, contacts, startContact(t, contacts, asks(payments)), rule("till", till, create))
	p.start(t)
	// The agent gives the process what is of others, and not yet its own.
	p.await(t, http.StatusServiceUnavailable, "and not "+payments.String()+", which service_mesh.spiffe_id wants")
	if conn, err := net.Dial("tcp", p.address); err == nil {
		_ = conn.Close()
		t.Error("the port of the payment API is open before there is a certificate")
	}
	begin := time.Now()
	enter(t, payments)
	p.await(t, http.StatusOK, "SERVING")
	t.Logf("ready %s after its entry", time.Since(begin).Round(time.Millisecond))
	if err := p.pay(t.Context(), p.client(t, till, payments), "order-1"); err != nil {
		t.Error(err)
	}
	for _, line := range [][]string{{"no certificate yet", payments.String()}, {"the certificate is there", payments.String()}, {`"serving"`, p.address}} {
		awaitLine(t, p.log, line...)
	}
}

func TestTheProcessWaitsForItsAgent(t *testing.T) {
	payments, contacts := enter(t, name(t, "payment-service")), enter(t, name(t, "contact-service"))
	p := prepare(t, payments, contacts, &contact{address: lab.FreeAddress(t)})
	socket := filepath.Join(t.TempDir(), "agent.sock")
	p.env["MTLS_WORKLOAD_API"] = "unix://" + socket
	p.start(t)
	p.await(t, http.StatusServiceUnavailable, "no such file or directory")
	begin := time.Now()
	if err := os.Symlink(strings.TrimPrefix(agent.WorkloadAPI, "unix://"), socket); err != nil {
		t.Fatal(err)
	}
	p.await(t, http.StatusOK, "SERVING")
	t.Logf("ready %s after its agent", time.Since(begin).Round(time.Millisecond))
}

func TestAProcessThatIsToldToEndWhileItWaitsEnds(t *testing.T) {
	contacts := enter(t, name(t, "contact-service"))
	p := prepare(t, name(t, "payment-service"), contacts, &contact{address: lab.FreeAddress(t)})
	p.start(t)
	p.await(t, http.StatusServiceUnavailable, "WAITING_FOR_IDENTITY")
	if err := p.stop(t); err != nil {
		t.Errorf("it ends with %v:\n%s", err, p.log)
	}
}

func TestARenewedCertificateIsServedAndNoCallFails(t *testing.T) {
	payments, contacts, till := enter(t, name(t, "payment-service")), enter(t, name(t, "contact-service")), enter(t, name(t, "till"))
	p := prepare(t, payments, contacts, startContact(t, contacts, asks(payments)), rule("till", till, create))
	p.start(t)
	p.await(t, http.StatusOK, "SERVING")
	client := p.client(t, till, payments)
	ctx, cancel := context.WithCancel(t.Context())
	paying := make(chan error, 1)
	calls := 0
	go func() {
		var failed error
		for ctx.Err() == nil {
			calls++
			failed = errors.Join(failed, p.pay(t.Context(), client, fmt.Sprintf("order-%d", calls)))
		}
		paying <- failed
	}()
	rotate(t, payments, "renewed.example.com")
	lab.Eventually(t, patience, func() error {
		names, err := served(p.address)
		if err == nil && !slices.Contains(names, "renewed.example.com") {
			err = fmt.Errorf("the certificate has the names %q", names)
		}
		return err
	})
	if err := p.pay(t.Context(), p.client(t, till, payments), "order-of-a-new-connection"); err != nil {
		t.Errorf("on a new connection: %v", err)
	}
	cancel()
	if err := <-paying; err != nil {
		t.Errorf("of %d calls: %v", calls, err)
	}
	awaitLine(t, p.log, "the certificate is there", `"renewed":true`)
	t.Logf("%d payments meanwhile", calls)
}

// served are the DNS names of the certificate that a server shows.
func served(address string) ([]string, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // it was only looked at
	secured := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err := secured.Handshake(); err != nil {
		return nil, err
	}
	return secured.ConnectionState().PeerCertificates[0].DNSNames, nil
}

func TestWithoutAPolicyTheProcessDoesNotStart(t *testing.T) {
	for text, want := range map[string]string{"rules:\n": "rules: want a list, not nothing", "rules: [{name: a}]\n": "rules[0].spiffe_id: is"} {
		p := prepare(t, name(t, "payment-service"), name(t, "contact-service"), &contact{address: lab.FreeAddress(t)})
		p.allow(t, text)
		p.start(t)
		if err := <-p.ended; err == nil || !contains(p.log, "the payment service ends", "auth.policy_file: ", want) {
			t.Errorf("%q: it ends with %v:\n%s", text, err, p.log)
		}
		p.ended <- nil
	}
}

func plaintext(t *testing.T, address string) paymentv1.PaymentServiceClient {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return paymentv1.NewPaymentServiceClient(conn)
}
