package server

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/jia-app/paymesh/payment/config"
	"github.com/jia-app/paymesh/payment/contacttest"
	"github.com/jia-app/paymesh/payment/logtest"
	"github.com/jia-app/paymesh/payment/paymentv1"
	"github.com/jia-app/paymesh/test/tokens"
)

// answers know user_1, and hold calls about user_slow until they are told.
func answers(hold chan struct{}) func(context.Context, string) error {
	return func(_ context.Context, user string) error {
		switch user {
		case "user_slow":
			<-hold
		case "user_1":
		case "user_secret":
			return status.Error(codes.PermissionDenied, "no rule admits you")
		default:
			return status.Error(codes.NotFound, "no such user")
		}
		return nil
	}
}

type running struct {
	t      *testing.T
	config config.Config
	server *Server
	people *contacttest.Service
	hold   chan struct{} // of calls about user_slow
	log    *logtest.Log
	issuer *tokens.Issuer
	stop   func() error
}

// start runs a service behind a sidecar, which the test plays, with a contact service on loopback.
func start(t *testing.T, change func(*config.Config), contactCreds credentials.TransportCredentials) *running {
	t.Helper()
	l := &running{t: t, hold: make(chan struct{}), log: &logtest.Log{}, issuer: tokens.NewIssuer(t, "https://issuer", "payments")}
	l.people = contacttest.Start(t, contacttest.Options{Answer: answers(l.hold), Server: []grpc.ServerOption{grpc.Creds(contactCreds)}})
	dir := t.TempDir()
	c := config.Default()
	c.GRPC.Address, c.HTTP.Address = "127.0.0.1:0", "127.0.0.1:0"
	c.ServiceMesh.Enabled, c.ServiceMesh.TrustXFCC, c.ServiceMesh.SPIFFEID = true, true, "spiffe://jia.app/payment-service"
	c.ExternalServices.ContactService.Address = l.people.Address
	c.Store.Path = filepath.Join(dir, "payments.db")
	c.Auth.AllowedSPIFFEIDs = []string{"spiffe://jia.app/api-gateway"}
	c.Auth.JWT.Issuer, c.Auth.JWT.Audience, c.Auth.JWT.JWKSFile = "https://issuer", "payments", write(t, filepath.Join(dir, "jwks.json"), l.issuer.Keys())
	if change != nil {
		change(&c)
	}
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
	l.config = c
	l.run()
	return l
}

func (l *running) run() {
	l.t.Helper()
	s, err := New(l.t.Context(), l.config, slog.New(slog.NewJSONHandler(l.log, nil)))
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	l.server = s
	l.stop = sync.OnceValue(func() error { cancel(); return <-done })
	l.t.Cleanup(func() {
		if err := l.stop(); err != nil {
			l.t.Errorf("the service ends with %v", err)
		}
	})
}

func write(t *testing.T, path string, text []byte) string {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (l *running) token(subject string) string {
	l.t.Helper()
	return l.issuer.Token(func(claims jwt.MapClaims) { claims["sub"] = subject })
}

func (l *running) dial(creds credentials.TransportCredentials) *grpc.ClientConn {
	l.t.Helper()
	conn, err := grpc.NewClient(l.server.GRPCAddress(), grpc.WithTransportCredentials(creds))
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (l *running) client() paymentv1.PaymentServiceClient {
	return paymentv1.NewPaymentServiceClient(l.dial(insecure.NewCredentials()))
}

const gateway = "URI=spiffe://jia.app/api-gateway"

// as is a call of a user through the gateway, as the sidecar passes it on.
func (l *running) as(subject, key string) context.Context {
	pairs := []string{"x-forwarded-client-cert", gateway, "authorization", "Bearer " + l.token(subject)}
	if key != "" {
		pairs = append(pairs, "idempotency-key", key)
	}
	return metadata.AppendToOutgoingContext(l.t.Context(), pairs...)
}

func order(reference string) *paymentv1.CreatePaymentRequest {
	return &paymentv1.CreatePaymentRequest{MerchantReference: reference, PayerUserId: "user_1", Amount: &paymentv1.Money{CurrencyCode: "EUR", MinorUnits: 1050}}
}

func wantError(t *testing.T, err error, code codes.Code, reason string) {
	t.Helper()
	got := ""
	for _, detail := range status.Convert(err).Details() {
		if info, is := detail.(*errdetails.ErrorInfo); is {
			got = info.GetReason()
		}
	}
	if status.Code(err) != code || got != reason {
		t.Errorf("got %v with reason %q, want %s with %q", err, got, code, reason)
	}
}

func TestAPaymentIsTakenOnceAndItsAnswerReplayed(t *testing.T) {
	l := start(t, nil, insecure.NewCredentials())
	client := l.client()
	first, err := client.CreatePayment(l.as("ann", "k"), order("order-1"))
	if err != nil || first.GetPayment().GetAmountDisplay() != "10.50 EUR" {
		t.Fatalf("got %v, %v", first, err)
	}
	var header, trailer metadata.MD
	again, err := client.CreatePayment(l.as("ann", "k"), order("order-1"), grpc.Header(&header), grpc.Trailer(&trailer))
	if err != nil || !proto.Equal(first, again) || len(header.Get("idempotent-replayed")) != 1 || len(trailer.Get("idempotent-replayed")) != 1 {
		t.Errorf("got %v, %v, header %v, trailer %v", again, err, header, trailer)
	}
	other := order("order-1")
	other.Amount.MinorUnits = 1
	_, err = client.CreatePayment(l.as("ann", "k"), other)
	wantError(t, err, codes.InvalidArgument, "IDEMPOTENCY_KEY_REUSED")
	for _, want := range []int{0, 1} { // a refusal is replayed, too
		var header metadata.MD
		_, err = client.CreatePayment(l.as("ann", "k2"), order("order-1"), grpc.Header(&header))
		wantError(t, err, codes.AlreadyExists, "MERCHANT_REFERENCE_EXISTS")
		if got := len(header.Get("idempotent-replayed")); got != want {
			t.Errorf("the refusal is marked as replayed %d times, want %d", got, want)
		}
	}
	_, err = client.CreatePayment(l.as("ann", ""), order("order-2"))
	wantError(t, err, codes.InvalidArgument, "IDEMPOTENCY_KEY_MISSING")
	_, err = client.CreatePayment(l.as("ann", strings.Repeat("k", 256)), order("order-2"))
	wantError(t, err, codes.InvalidArgument, "IDEMPOTENCY_KEY_INVALID")
	if bobs, err := client.CreatePayment(l.as("bob", "k"), order("order-1")); err != nil || bobs.GetPayment().GetPaymentId() == first.GetPayment().GetPaymentId() {
		t.Errorf("another user with the same key: %v, %v", bobs, err)
	}
	id := first.GetPayment().GetPaymentId()
	if got, err := client.GetPayment(l.as("ann", ""), &paymentv1.GetPaymentRequest{PaymentId: id}); err != nil || !proto.Equal(got.GetPayment(), first.GetPayment()) {
		t.Errorf("got %v, %v", got, err)
	}
	_, err = client.GetPayment(l.as("bob", ""), &paymentv1.GetPaymentRequest{PaymentId: id})
	wantError(t, err, codes.NotFound, "PAYMENT_NOT_FOUND")
	if got, err := client.ListPayments(l.as("ann", ""), &paymentv1.ListPaymentsRequest{PageSize: 1}); err != nil || len(got.GetPayments()) != 1 || got.GetNextPageToken() != "" {
		t.Errorf("got %v, %v", got, err)
	}
	_, err = client.ListPayments(l.as("ann", ""), &paymentv1.ListPaymentsRequest{PageToken: "!"})
	wantError(t, err, codes.InvalidArgument, "PAGE_TOKEN_INVALID")

	if err := l.stop(); err != nil {
		t.Fatal(err)
	}
	l.run()
	if again, err := l.client().CreatePayment(l.as("ann", "k"), order("order-1")); err != nil || !proto.Equal(first, again) {
		t.Errorf("after a restart: %v, %v", again, err)
	}
}

func TestAContactServiceThatRefusesIsTheOperatorsToMendAndNoPaymentIsTaken(t *testing.T) {
	l := start(t, nil, insecure.NewCredentials())
	refused := order("order-1")
	refused.PayerUserId = "user_secret"
	_, err := l.client().CreatePayment(l.as("ann", "k"), refused)
	wantError(t, err, codes.Unavailable, "CONTACT_SERVICE_REFUSES")
	if got := l.log.String(); !strings.Contains(got, "its allow has to name this service and GetUserInfo") {
		t.Errorf("the log does not say what to do: %s", got)
	}
	refused.PayerUserId = "user_1"
	if _, err := l.client().CreatePayment(l.as("ann", "k"), refused); err != nil {
		t.Errorf("the same key afterwards: %v", err)
	}
}

func TestWhatIsRefusedBeforeItBeginsIsNotRemembered(t *testing.T) {
	l := start(t, nil, insecure.NewCredentials())
	client := l.client()
	unknown, strange, broken := order("order-1"), order("order-1"), order("a b")
	unknown.PayerUserId, strange.Amount.CurrencyCode = "nobody", "XXX"
	_, err := client.CreatePayment(l.as("ann", "k"), unknown)
	wantError(t, err, codes.FailedPrecondition, "PAYER_UNKNOWN")
	for _, request := range []*paymentv1.CreatePaymentRequest{strange, broken} {
		_, err := client.CreatePayment(l.as("ann", "k"), request)
		wantError(t, err, codes.InvalidArgument, "")
		if details := status.Convert(err).Details(); len(details) != 1 || len(details[0].(*errdetails.BadRequest).GetFieldViolations()) != 1 {
			t.Errorf("details %v", details)
		}
	}
	if _, err := client.CreatePayment(l.as("ann", "k"), order("order-1")); err != nil {
		t.Error(err)
	}
	calls := l.people.Calls()
	for _, name := range []string{"authorization", "idempotency-key", "x-forwarded-client-cert"} {
		if len(calls[len(calls)-1].Metadata.Get(name)) > 0 {
			t.Errorf("the contact service is sent the caller's %s", name)
		}
	}
}

func TestACallUnderWayHoldsItsKeyAndEndsBeforeTheProcess(t *testing.T) {
	l := start(t, func(c *config.Config) { c.ExternalServices.ContactService.TimeoutSeconds = 60 }, insecure.NewCredentials())
	client := l.client()
	slow := order("order-1")
	slow.PayerUserId = "user_slow"
	done := make(chan error, 1)
	ctx := l.as("ann", "k")
	go func() { _, err := client.CreatePayment(ctx, slow); done <- err }()
	logtest.Eventually(t, func() bool { return len(l.people.Calls()) > 0 })
	_, err := client.CreatePayment(l.as("ann", "k"), slow)
	wantError(t, err, codes.Aborted, "IDEMPOTENCY_KEY_IN_FLIGHT")
	if details := status.Convert(err).Details(); len(details) != 2 || details[1].(*errdetails.RetryInfo).GetRetryDelay().AsDuration() <= 0 {
		t.Errorf("details %v", details)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- l.stop() }()
	logtest.Eventually(t, func() bool { return strings.Contains(l.log.String(), `"stopping"`) })
	close(l.hold)
	if err := <-done; err != nil {
		t.Errorf("the call under way: %v", err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestWhoWatchesTheHealthIsToldAndDoesNotHoldUpTheEnd(t *testing.T) {
	l := start(t, func(c *config.Config) { c.GRPC.ShutdownTimeoutSeconds = 3600 }, insecure.NewCredentials())
	watch, err := healthv1.NewHealthClient(l.dial(insecure.NewCredentials())).Watch(t.Context(), &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if answer, err := watch.Recv(); err != nil || answer.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Fatalf("got %v, %v", answer, err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- l.stop() }()
	select {
	case err := <-stopped:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		l.server.process.GRPC.Stop()
		t.Error("the process waits for who watches")
	}
	if answer, err := watch.Recv(); err == nil && answer.GetStatus() == healthv1.HealthCheckResponse_SERVING {
		t.Errorf("got %v", answer)
	}
}

func TestCallsWithoutBothProofsAreRefused(t *testing.T) {
	l := start(t, nil, insecure.NewCredentials())
	client, bearer := l.client(), "Bearer "+l.token("ann")
	cases := map[string]struct {
		metadata []string
		want     codes.Code
	}{
		"nothing":                     {nil, codes.Unauthenticated},
		"the workload alone":          {[]string{"x-forwarded-client-cert", gateway}, codes.Unauthenticated},
		"the user alone":              {[]string{"authorization", bearer}, codes.Unauthenticated},
		"two tokens":                  {[]string{"x-forwarded-client-cert", gateway, "authorization", bearer, "authorization", bearer}, codes.Unauthenticated},
		"no bearer":                   {[]string{"x-forwarded-client-cert", gateway, "authorization", "Basic YQ=="}, codes.Unauthenticated},
		"a forged token":              {[]string{"x-forwarded-client-cert", gateway, "authorization", bearer[:len(bearer)-4] + "AAAA"}, codes.Unauthenticated},
		"an XFCC with one before it":  {[]string{"x-forwarded-client-cert", gateway + ",URI=spiffe://jia.app/other", "authorization", bearer}, codes.Unauthenticated},
		"two XFCCs":                   {[]string{"x-forwarded-client-cert", gateway, "x-forwarded-client-cert", gateway, "authorization", bearer}, codes.Unauthenticated},
		"an ID in metadata":           {[]string{"x-forwarded-client-cert", gateway, "authorization", bearer, "x-spiffe-id", "spiffe://jia.app/api-gateway"}, codes.Unauthenticated},
		"a workload that may not":     {[]string{"x-forwarded-client-cert", "URI=spiffe://jia.app/other", "authorization", bearer}, codes.PermissionDenied},
		"a workload below an allowed": {[]string{"x-forwarded-client-cert", gateway + "/x", "authorization", bearer}, codes.PermissionDenied},
	}
	for name, c := range cases {
		ctx := metadata.AppendToOutgoingContext(t.Context(), append(c.metadata, "idempotency-key", "k")...)
		if _, err := client.CreatePayment(ctx, order("order-1")); status.Code(err) != c.want {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
	}
	for service, info := range l.server.process.GRPC.GetServiceInfo() {
		if service == healthv1.Health_ServiceDesc.ServiceName {
			continue // open to all: it says nothing but whether the process serves
		}
		for _, method := range info.Methods {
			err := l.dial(insecure.NewCredentials()).Invoke(t.Context(), "/"+service+"/"+method.Name, &healthv1.HealthCheckRequest{}, &healthv1.HealthCheckResponse{})
			if status.Code(err) != codes.Unauthenticated {
				t.Errorf("%s/%s without any proof: %v", service, method.Name, err)
			}
		}
	}
	if got := l.log.String(); strings.Contains(got, bearer[7:30]) || !strings.Contains(got, "auth.allowed_spiffe_ids") {
		t.Errorf("the log shows a token, or no reason: %s", got)
	}
}

func TestAPathWithoutItsSlashIsRefused(t *testing.T) { // CVE-2026-33186
	l := start(t, nil, insecure.NewCredentials())
	conn, err := net.Dial("tcp", l.server.GRPCAddress())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // the test is over
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var block strings.Builder
	encoder := hpack.NewEncoder(&block)
	for _, field := range [][2]string{
		{":method", "POST"},
		{":scheme", "http"},
		{":path", "payment.v1.PaymentService/ListPayments"},
		{":authority", "x"},
		{"content-type", "application/grpc"},
		{"te", "trailers"},
		{"x-forwarded-client-cert", gateway},
		{"authorization", "Bearer " + l.token("ann")},
	} {
		if err := encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}); err != nil {
			t.Fatal(err)
		}
	}
	_ = framer.WriteSettings()
	_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte(block.String()), EndHeaders: true})
	_ = framer.WriteData(1, true, make([]byte, 5))
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if _, reset := frame.(*http2.RSTStreamFrame); reset {
			return
		}
		if headers, is := frame.(*http2.MetaHeadersFrame); is {
			for _, field := range headers.Fields {
				if field.Name == "grpc-status" && field.Value != "12" { // UNIMPLEMENTED
					t.Errorf("answered with grpc-status %s", field.Value)
				}
			}
			if headers.StreamEnded() {
				return
			}
		}
	}
}

func (l *running) page(path string, want int) string {
	l.t.Helper()
	answer, err := http.Get("http://" + l.server.HTTPAddress() + path)
	if err != nil {
		l.t.Fatal(err)
	}
	defer answer.Body.Close() //nolint:errcheck // it was read
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != want {
		l.t.Fatalf("%s: %s, %v", path, answer.Status, err)
	}
	return string(text)
}

func TestThePagesTellTheTruthWithoutSecrets(t *testing.T) {
	l := start(t, func(c *config.Config) { c.APIGateway.APIKey = config.NewSecret("canary-key") }, insecure.NewCredentials())
	if _, err := l.client().CreatePayment(l.as("ann", "canary-idempotency"), order("canary-reference")); err != nil {
		t.Fatal(err)
	}
	for path, wants := range map[string][]string{
		"/health":          {`"SERVING"`},
		"/health/services": {`"contact-service"`, `"healthy":true`},
		"/metrics": {
			`grpc_client_requests_total{code="OK",method="GetUserInfo",service="contact.v1.ContactService"} 1`, "grpc_client_request_duration_seconds_count",
			`grpc_server_requests_total{code="OK",method="CreatePayment",service="payment.v1.PaymentService"} 1`, `circuit_breaker_state{target="contact-service"} 0`,
		},
	} {
		got := l.page(path, http.StatusOK)
		for _, want := range wants {
			if !strings.Contains(got, want) {
				t.Errorf("%s has no %s:\n%s", path, want, got)
			}
		}
		if strings.Contains(got, "canary") {
			t.Errorf("%s shows a secret", path)
		}
	}
	if strings.Contains(l.log.String(), "canary") {
		t.Errorf("the log shows a secret: %s", l.log)
	}
	if got, err := healthv1.NewHealthClient(l.dial(insecure.NewCredentials())).Check(t.Context(), &healthv1.HealthCheckRequest{}); err != nil || got.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestAContactServiceThatIsDownOpensTheBreaker(t *testing.T) {
	l := start(t, func(c *config.Config) {
		c.ExternalServices.ContactService.Address, c.ExternalServices.ContactService.TimeoutSeconds, c.CircuitBreaker.FailureThreshold = "127.0.0.1:1", 1, 2
	}, insecure.NewCredentials())
	for range 3 {
		_, err := l.client().CreatePayment(l.as("ann", "k"), order("order-1"))
		wantError(t, err, codes.Unavailable, "CONTACT_SERVICE_UNAVAILABLE")
	}
	if got := l.log.String(); !strings.Contains(got, "contact-service failed too often") {
		t.Errorf("the breaker did not open: %s", got)
	}
}
