package interceptor

import (
	"context"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/jia-app/paymesh/payment/policy"
)

const (
	createMethod = "/payment.v1.PaymentService/CreatePayment"
	getMethod    = "/payment.v1.PaymentService/GetPayment"
	healthMethod = "/grpc.health.v1.Health/Check"
)

var till = spiffeid.RequireFromString("spiffe://jia.app/till")

// tillReads lets the till read, and look at the health.
var tillReads = policy.Rules{{Name: "till", SPIFFEID: till.String(), Methods: []string{"payment.v1.PaymentService/GetPayment", "grpc.health.v1.Health/Check"}}}

// guard is an Auth with what it tells.
type guard struct {
	*Auth
	log *strings.Builder
}

func newGuard(t *testing.T, rules Rules, change func(*Auth)) *guard {
	t.Helper()
	denied, err := NewDenials(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	g := &guard{log: &strings.Builder{}}
	g.Auth = &Auth{
		Service: "spiffe://jia.app/payment-service", Rules: rules, Denied: denied, Log: slog.New(slog.NewJSONHandler(g.log, nil)),
		Methods: map[string]Proof{createMethod: WorkloadAndUser, getMethod: Workload, healthMethod: Workload},
	}
	if change != nil {
		change(g.Auth)
	}
	return g
}

// call is a call over mTLS from an address, where an ID is given, and in plaintext else. It returns who it was let in as.
func (g *guard) call(t *testing.T, method, from, id string, headers ...string) (*Identity, error) {
	t.Helper()
	address, err := net.ResolveTCPAddr("tcp", from)
	if err != nil {
		t.Fatal(err)
	}
	caller := &peer.Peer{Addr: address}
	if id != "" {
		uri, err := url.Parse(id)
		if err != nil {
			t.Fatal(err)
		}
		caller.AuthInfo = credentials.TLSInfo{SPIFFEID: uri}
	}
	ctx := metadata.NewIncomingContext(peer.NewContext(t.Context(), caller), metadata.Pairs(headers...))
	var got *Identity
	_, err = g.Unary(ctx, nil, &grpc.UnaryServerInfo{FullMethod: method}, func(ctx context.Context, _ any) (any, error) {
		identity, _ := IdentityOf(ctx)
		got = &identity
		return nil, nil
	})
	var streamed *Identity
	streamErr := g.Stream(nil, &streamWith{nil, ctx}, &grpc.StreamServerInfo{FullMethod: method}, func(_ any, stream grpc.ServerStream) error {
		identity, _ := IdentityOf(stream.Context())
		streamed = &identity
		return nil
	})
	if status.Code(err) != status.Code(streamErr) || (got == nil) != (streamed == nil) || (got != nil && *got != *streamed) {
		t.Errorf("%s: a call is judged as %v, %v, a stream as %v, %v", method, got, err, streamed, streamErr)
	}
	return got, err
}

const remote, loopback = "10.0.0.7:4711", "127.0.0.1:4711"

func TestAPolicyIsEnforcedByCallerAndMethodAndEachDenialIsExplainedToTheOperatorAlone(t *testing.T) {
	for name, c := range map[string]struct {
		method, id    string
		headers       []string
		want          codes.Code
		logged        []string
		reason        policy.Reason
		service, verb string
	}{
		"a method of its rule": {getMethod, till.String(), nil, codes.OK, nil, "", "", ""},
		"health, by its rule":  {healthMethod, till.String(), nil, codes.OK, nil, "", "", ""},
		"another method": {
			createMethod, till.String(), nil, codes.PermissionDenied,
			[]string{`"caller":"spiffe://jia.app/till"`, `"method":"` + createMethod + `"`, `"service":"spiffe://jia.app/payment-service"`, `"nearest_rule":"till (this caller, other methods)"`},
			policy.MethodNotAllowed, "payment.v1.PaymentService", "CreatePayment",
		},
		"another caller": {
			getMethod, "spiffe://jia.app/other", nil, codes.PermissionDenied,
			[]string{`"caller":"spiffe://jia.app/other"`, `"nearest_rule":"till (this method, other callers)"`, `"peer":"10.0.0.7:4711"`},
			policy.CallerUnknown, "payment.v1.PaymentService", "GetPayment",
		},
		"health, by nobody's rule": {healthMethod, "spiffe://jia.app/other", nil, codes.PermissionDenied, []string{`"reason":"caller_unknown"`}, policy.CallerUnknown, "grpc.health.v1.Health", "Check"},
		"a method that is not on the list": {
			"/payment.v1.PaymentService/Delete", till.String(), nil, codes.PermissionDenied,
			[]string{`"caller":"spiffe://jia.app/till"`, "not on the list"},
			methodUnknown, "payment.v1.PaymentService", "Delete",
		},
		"a path without its slash": {getMethod[1:], till.String(), nil, codes.PermissionDenied, []string{"not on the list"}, methodUnknown, "payment.v1.PaymentService", "GetPayment"},
		"no certificate":           {getMethod, "", nil, codes.Unauthenticated, []string{"no certificate with a SPIFFE ID"}, noWorkload, "payment.v1.PaymentService", "GetPayment"},
		"an XFCC, as of a sidecar": {getMethod, "spiffe://jia.app/other", []string{xfccHeader, "URI=" + till.String()}, codes.Unauthenticated, []string{"there is no sidecar that sets it"}, noWorkload, "payment.v1.PaymentService", "GetPayment"},
		"an ID in metadata":        {getMethod, till.String(), []string{"x-spiffe-id", till.String()}, codes.Unauthenticated, []string{"an identity is proved, not sent"}, noWorkload, "payment.v1.PaymentService", "GetPayment"},
	} {
		g := newGuard(t, tillReads, nil)
		got, err := g.call(t, c.method, remote, c.id, c.headers...)
		if status.Code(err) != c.want {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
		if c.want == codes.OK {
			if got == nil || got.Workload != till || g.log.Len() > 0 {
				t.Errorf("%s: let in as %v; the log has %s", name, got, g.log)
			}
			continue
		}
		for _, want := range c.logged {
			if !strings.Contains(g.log.String(), want) {
				t.Errorf("%s: the log has no %s: %s", name, want, g.log)
			}
		}
		if n := testutil.ToFloat64(g.Denied.total.WithLabelValues(c.service, c.verb, string(c.reason))); n != 2 { // the call, and the stream
			t.Errorf("%s: %v denials are counted for %s, want 2", name, n, c.reason)
		}
		for _, secret := range []string{"till", "rule ", "spiffe", "service/"} {
			if strings.Contains(status.Convert(err).Message(), secret) {
				t.Errorf("%s: the caller is told %q", name, status.Convert(err).Message())
			}
		}
	}
}

func TestWhoMayNotCallIsNotAskedForItsUser(t *testing.T) {
	ec, rsaKey := keys(t)
	path := filepath.Join(t.TempDir(), "jwks.json")
	publish(t, path, ec, rsaKey)
	tokens, err := NewTokens(TokenOptions{Issuer: "https://issuer", Audience: "payments", KeysFile: path, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	all := policy.Rules{{Name: "till", SPIFFEID: till.String(), Methods: []string{"*"}}}
	g := newGuard(t, all, func(a *Auth) { a.Tokens = tokens })
	good := "Bearer " + sign(t, jwt.SigningMethodES256, "ec", ec, nil)
	if got, err := g.call(t, createMethod, remote, till.String(), "authorization", good); err != nil || *got != (Identity{till, "till", User{"https://issuer", "ann"}}) {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := g.call(t, createMethod, remote, till.String()); status.Code(err) != codes.Unauthenticated || !strings.Contains(g.log.String(), "0 headers authorization") {
		t.Errorf("without a user: %v, the log has %s", err, g.log)
	}
	if _, err := g.call(t, createMethod, remote, "spiffe://jia.app/other"); status.Code(err) != codes.PermissionDenied {
		t.Errorf("another caller, without a user: %v", err)
	}
	if strings.Contains(g.log.String(), good[7:]) {
		t.Error("the log shows a token")
	}
	bare := newGuard(t, all, nil)
	if _, err := bare.call(t, createMethod, remote, till.String(), "authorization", good); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a service without keys: %v", err)
	}
}

func TestASidecarIsBelievedOnLoopbackOnly(t *testing.T) {
	const xfcc = "By=spiffe://jia.app/payment-service;Hash=ab;URI=spiffe://jia.app/till"
	open := func(a *Auth) { a.TrustXFCC, a.Methods[healthMethod] = true, Nothing }
	for name, c := range map[string]struct {
		method, from, id string
		headers          []string
		want             codes.Code
	}{
		"the sidecar":                            {getMethod, loopback, "", []string{xfccHeader, xfcc}, codes.OK},
		"the sidecar, over IPv6":                 {getMethod, "[::1]:4711", "", []string{xfccHeader, xfcc}, codes.OK},
		"the sidecar, IPv4 in IPv6":              {getMethod, "[::ffff:127.0.0.1]:4711", "", []string{xfccHeader, xfcc}, codes.OK},
		"another pod":                            {getMethod, remote, "", []string{xfccHeader, xfcc}, codes.Unauthenticated},
		"another pod, with a certificate":        {getMethod, remote, till.String(), []string{xfccHeader, xfcc}, codes.Unauthenticated},
		"a certificate, and no header":           {getMethod, loopback, till.String(), nil, codes.Unauthenticated},
		"a certificate, and another's header":    {getMethod, loopback, till.String(), []string{xfccHeader, strings.ReplaceAll(xfcc, "till", "other")}, codes.PermissionDenied},
		"two headers":                            {getMethod, loopback, "", []string{xfccHeader, xfcc, xfccHeader, xfcc}, codes.Unauthenticated},
		"the header of a workload without rules": {getMethod, loopback, "", []string{xfccHeader, "URI=spiffe://jia.app/other"}, codes.PermissionDenied},
		"health, which the sidecar has judged":   {healthMethod, loopback, "", nil, codes.OK},
	} {
		if _, err := newGuard(t, tillReads, open).call(t, c.method, c.from, c.id, c.headers...); status.Code(err) != c.want {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
	}
	if _, err := newGuard(t, tillReads, open).Unary(metadata.NewIncomingContext(t.Context(), metadata.Pairs(xfccHeader, xfcc)), nil, &grpc.UnaryServerInfo{FullMethod: getMethod}, nil); status.Code(err) != codes.Unauthenticated {
		t.Errorf("an unknown connection: %v", err)
	}
}

func TestWithoutRulesNoWorkloadIsMadeOfWhatACallerSays(t *testing.T) {
	g := newGuard(t, nil, nil)
	got, err := g.call(t, getMethod, loopback, "", xfccHeader, "URI="+till.String())
	if err != nil || got.Workload != (spiffeid.ID{}) {
		t.Errorf("got %v, %v", got, err)
	}
}
