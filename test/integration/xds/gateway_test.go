package xds_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/payment/paymentv1"
	"github.com/jia-app/paymesh/test/lab"
)

const paymentsURL = "https://" + hostname + "/v1/payments"

func order(reference, payer string) string {
	return fmt.Sprintf(`{"merchantReference":%q,"payerUserId":%q,"amount":{"currencyCode":"EUR","minorUnits":"1050"}}`, reference, payer)
}

func TestAPaymentCrossesTheGatewayAndTwoSidecars(t *testing.T) {
	d := newDoor(t, nil)
	paid := d.call(t, "POST", paymentsURL, order("order-1", "user_1"), d.token(nil), "Idempotency-Key: k1")
	var answer struct {
		Payment struct{ PaymentID, AmountDisplay string }
	}
	if err := json.Unmarshal([]byte(paid.body), &answer); err != nil || paid.status != 200 || answer.Payment.AmountDisplay != "10.50 EUR" {
		t.Fatalf("got %d %s (%v)", paid.status, paid.body, err)
	}
	if again := d.call(t, "POST", paymentsURL, order("order-1", "user_1"), d.token(nil), "Idempotency-Key: k1"); again.body != paid.body || again.header.Get("idempotent-replayed") != "true" || paid.header.Get("idempotent-replayed") != "" {
		t.Errorf("the same key again: %d %s, with the headers %v", again.status, again.body, again.header)
	}
	for _, replayed := range []string{"", "true"} { // a refusal that is remembered is marked, too
		refused := d.call(t, "POST", paymentsURL, order("order-1", "user_1"), d.token(nil), "Idempotency-Key: k-other")
		if refused.status != 409 || !strings.Contains(refused.body, "MERCHANT_REFERENCE_EXISTS") || refused.header.Get("idempotent-replayed") != replayed {
			t.Errorf("a payment that is there, by another key: %d %s, with the headers %v", refused.status, refused.body, refused.header)
		}
	}
	if found := d.call(t, "GET", paymentsURL+"/"+answer.Payment.PaymentID, "", d.token(nil)); found.body != paid.body {
		t.Errorf("asked for: %d %s, want %s", found.status, found.body, paid.body)
	}
	// What only a client of gRPC means is not passed on: the answer would be compressed, which the transcoder cannot read.
	compressed := []string{"grpc-encoding: gzip", "grpc-accept-encoding: gzip"}
	if again := d.call(t, "POST", paymentsURL, order("order-compressed", "user_1"), append(compressed, d.token(nil), "Idempotency-Key: k-compressed")...); again.status != 200 || !strings.Contains(again.body, "10.50 EUR") {
		t.Errorf("a client that names gRPC's compression: %d %s", again.status, again.body)
	}
	// The service has the token and takes the subject from it.
	bob := d.token(func(c jwt.MapClaims) { c["sub"] = "bob" })
	if found := d.call(t, "GET", paymentsURL+"/"+answer.Payment.PaymentID, "", bob); found.status != 404 || !strings.Contains(found.body, "PAYMENT_NOT_FOUND") {
		t.Errorf("another user: %d %s", found.status, found.body)
	}
	awaitLine(t, d.pod, map[string]any{
		"log": "gateway", "host": hostname, "http_method": "GET", "path": "/v1/payments/" + answer.Payment.PaymentID, "code": 200.0,
		"service": d.payment.Key.String(), "route": d.payment.Key.String() + "/api/payment.v1.PaymentService.GetPayment",
	})
	awaitLine(t, d.payments, map[string]any{"log": "inbound", "caller": d.gateway.ID.String(), "rule": "expose:api", "method": "/payment.v1.PaymentService/CreatePayment"})

	t.Run("and what is wrong is answered as google.rpc.Status", func(t *testing.T) { d.refusals(t) })
	t.Run("and no secret is in a log", func(t *testing.T) {
		for _, p := range []*pod{d.pod, d.payments} {
			for _, line := range p.AccessLog() {
				text, _ := json.Marshal(line)
				for _, secret := range []string{"eyJ", "k1", "access_token"} {
					if strings.Contains(string(text), secret) {
						t.Errorf("%s logs %s", p.key, text)
					}
				}
			}
		}
	})
}

func (d *door) refusals(t *testing.T) {
	token := d.token(nil)
	good := order("order-2", "user_1")
	for _, c := range []struct {
		what, method, url, body string
		headers                 []string
		status, code            int
		says                    string
	}{
		{"no token", "POST", paymentsURL, good, nil, 401, 16, "Jwt is missing"},
		{"a token in the URL", "POST", paymentsURL + "?access_token=" + strings.TrimPrefix(token, "Authorization: Bearer "), good, nil, 401, 16, "Jwt is missing"},
		{"an expired token", "POST", paymentsURL, good, []string{d.token(func(c jwt.MapClaims) { c["exp"] = time.Now().Add(-time.Minute).Unix() })}, 401, 16, "Jwt is expired"},
		{"a token for ever", "POST", paymentsURL, good, []string{d.token(func(c jwt.MapClaims) { delete(c, "exp") })}, 401, 16, "Jwt"},
		{"a token for another audience", "POST", paymentsURL, good, []string{d.token(func(c jwt.MapClaims) { c["aud"] = "other" })}, 401, 16, "Audiences in Jwt are not allowed"},
		{"a token of another issuer", "POST", paymentsURL, good, []string{d.token(func(c jwt.MapClaims) { c["iss"] = "other" })}, 401, 16, "Jwt issuer is not configured"},
		{"a token of nobody", "POST", paymentsURL, good, []string{d.token(func(c jwt.MapClaims) { c["iss"] = "(nobody)" })}, 401, 16, "Jwt"},
		{"no key", "POST", paymentsURL, good, []string{token}, 400, 3, "IDEMPOTENCY_KEY_MISSING"},
		{"a key again for another payment", "POST", paymentsURL, good, []string{token, "Idempotency-Key: k1"}, 400, 3, "IDEMPOTENCY_KEY_REUSED"},
		{"an unknown payer", "POST", paymentsURL, order("order-3", "user_broken"), []string{token, "Idempotency-Key: k2"}, 503, 14, "CONTACT_SERVICE_UNAVAILABLE"},
		{"no JSON", "POST", paymentsURL, "{", []string{token, "Idempotency-Key: k2"}, 400, 3, "Unexpected end of string"},
		{"a field that breaks a rule", "POST", paymentsURL, order("a b", "user_1"), []string{token, "Idempotency-Key: k2"}, 400, 3, "google.rpc.BadRequest"},
		{"an unknown query parameter", "POST", paymentsURL + "?x=1", good, []string{token, "Idempotency-Key: k2"}, 400, 3, "Could not find field"},
		{"a body of 100 KiB", "POST", paymentsURL, `{"description":"` + strings.Repeat("x", 100<<10) + `"}`, []string{token, "Idempotency-Key: k2"}, 400, 3, "\"field\":\"description\""},
		{"a body of 2 MiB", "POST", paymentsURL, `{"description":"` + strings.Repeat("x", 2<<20) + `"}`, []string{token, "Idempotency-Key: k2"}, 413, 8, ""},
		{"a method that is not exposed", "GET", paymentsURL, "", []string{token}, 404, 5, ""},
		{"the path of gRPC, with JSON", "POST", "https://" + hostname + "/payment.v1.PaymentService/CreatePayment", good, []string{token}, 404, 5, ""},
		{"an unknown path", "GET", "https://" + hostname + "/", "", nil, 404, 5, ""},
		{"more segments than the template has", "GET", paymentsURL + "/a/b", "", []string{token}, 404, 5, ""},
		{"an escaped slash", "GET", paymentsURL + "/a%2Fb", "", []string{token}, 400, 3, ""},
		{"another host", "GET", "https://other.example.com/v1/payments", "", []string{token}, 404, 5, "no such host here"},
	} {
		got := d.call(t, c.method, c.url, c.body, c.headers...)
		var rpc struct {
			Code    int
			Message string
		}
		err := json.Unmarshal([]byte(got.body), &rpc)
		if got.status != c.status || rpc.Code != c.code || err != nil || !strings.Contains(got.body, c.says) || got.header.Get("content-type") != "application/json" {
			t.Errorf("%s: got %d %s %s (%v), want %d, code %d and %q", c.what, got.status, got.header.Get("content-type"), got.body, err, c.status, c.code, c.says)
		}
	}
	awaitLine(t, d.pod, map[string]any{"code": 401.0, "jwt_failure": "Audiences in Jwt are not allowed"})
	awaitLine(t, d.pod, map[string]any{"code": 401.0, "jwt_failure": "Jwt is expired"})
	awaitLine(t, d.pod, map[string]any{"code": 401.0, "details": "jwt_authn_access_denied{Jwt_is_missing}"})
	if got := d.call(t, "POST", paymentsURL, order("order-5", "user_1"), token, "Idempotency-Key: k4", "content-type: application/grpc"); got.header.Get("grpc-status") != "12" {
		t.Errorf("gRPC on the path of JSON: %d %v %s", got.status, got.header, got.body)
	}
	for _, path := range []string{"/v1/payments", "/payment.v1.PaymentService/CreatePayment"} {
		if got := d.call(t, "POST", "https://"+hostname+path, order("order-5", "user_1"), token, "Idempotency-Key: k4", "content-type: application/grpc-web"); got.status != 404 {
			t.Errorf("gRPC-Web to %s: %d %s", path, got.status, got.body)
		}
	}
	client := d.client(false)
	defer client.CloseIdleConnections()
	answer, err := client.Get("https://pay.example.com:8443/v1/nothing")
	if err != nil || answer.StatusCode != http.StatusNotFound || answer.ProtoMajor != 1 {
		t.Fatalf("with HTTP/1.1: %v (%v)", answer, err)
	}
	_ = answer.Body.Close()
}

// native is gRPC to the gateway.
func (d *door) native(t *testing.T) paymentv1.PaymentServiceClient {
	t.Helper()
	creds := credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})
	conn, err := grpc.NewClient(d.at(), grpc.WithTransportCredentials(creds), grpc.WithAuthority(hostname), grpc.WithDisableRetry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return paymentv1.NewPaymentServiceClient(conn)
}

func (d *door) nativePay(t *testing.T, client paymentv1.PaymentServiceClient, token string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	name, value, _ := strings.Cut(token, ": ")
	ctx = metadata.AppendToOutgoingContext(ctx, strings.ToLower(name), value, "idempotency-key", "native")
	_, err := client.CreatePayment(ctx, &paymentv1.CreatePaymentRequest{MerchantReference: "native", PayerUserId: "user_1", Amount: &paymentv1.Money{CurrencyCode: "EUR", MinorUnits: 1}})
	return err
}

func TestGRPCPassesTheGatewayOnlyWhereItIsExposed(t *testing.T) {
	d := newDoor(t, nil)
	client := d.native(t)
	if err := d.nativePay(t, client, d.token(nil)); status.Code(err) != codes.Unimplemented {
		t.Errorf("not exposed: %v", err)
	}
	d.gateway.Routes[0].GRPC = true
	d.set(t)
	d.pod.awaitSynced(t)
	lab.Eventually(t, patience, func() error { return d.nativePay(t, client, d.token(nil)) })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := client.ListPayments(ctx, &paymentv1.ListPaymentsRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("a method that is not exposed: %v", err)
	}
	for what, change := range map[string]func(jwt.MapClaims){
		"expired": func(c jwt.MapClaims) { c["exp"] = 1 }, "for another audience": func(c jwt.MapClaims) { c["aud"] = "other" },
	} {
		if err := d.nativePay(t, client, d.token(change)); status.Code(err) != codes.Unauthenticated || strings.Contains(err.Error(), "{") {
			t.Errorf("a token that is %s: %v", what, err)
		}
	}
	if got := d.call(t, "POST", paymentsURL, order("json", "user_1"), d.token(nil), "Idempotency-Key: json"); got.status != 200 {
		t.Errorf("JSON beside it: %d %s", got.status, got.body)
	}

	// Nobody is there: why is the log's business.
	manager.SetEndpoints(mesh.EndpointKey{Service: d.payment.Key, PortName: "grpc"}, []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")})
	lab.Eventually(t, patience, func() error {
		if err := d.nativePay(t, client, d.token(nil)); status.Code(err) != codes.Unavailable {
			return fmt.Errorf("got %w", err)
		}
		return nil
	})
	if err := d.nativePay(t, client, d.token(nil)); status.Convert(err).Message() != "the service does not answer: try again later" {
		t.Errorf("got %v", err)
	}
	if got := d.call(t, "GET", paymentsURL+"/x", "", d.token(nil)); got.status != 503 || !strings.Contains(got.body, `"message":"the service does not answer: try again later"`) {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

func TestARotatedSecretIsServed(t *testing.T) {
	d := newDoor(t, nil)
	serial := func() (int64, error) {
		conn, err := tls.Dial("tcp", d.at(), &tls.Config{InsecureSkipVerify: true, ServerName: hostname})
		if err != nil {
			return 0, err
		}
		defer conn.Close() //nolint:errcheck // nothing was sent
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64(), nil
	}
	if n, err := serial(); n != 1 || err != nil {
		t.Fatalf("certificate %d (%v)", n, err)
	}
	d.writeSecret(t, newCertificate(t, 2))
	lab.Eventually(t, patience, func() error {
		n, err := serial()
		if err == nil && n != 2 {
			err = fmt.Errorf("still certificate %d", n)
		}
		return err
	})
	if _, err := tls.Dial("tcp", d.at(), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}); err == nil {
		t.Error("TLS 1.1 is spoken")
	}
}
