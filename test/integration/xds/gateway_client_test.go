package xds_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/payment/config"
	"github.com/jia-app/paymesh/payment/discovery"
	"github.com/jia-app/paymesh/payment/gateway"
	"github.com/jia-app/paymesh/payment/paymentv1"
	"github.com/jia-app/paymesh/test/lab"
)

func TestTheGatewayClientPaysThroughTheGateway(t *testing.T) {
	d := newDoor(t, func(g *mesh.Gateway) { g.Routes[0].GRPC = true })
	c := config.Default().APIGateway
	c.Address, c.CAFile = d.at(), filepath.Join(t.TempDir(), "ca.pem")
	certificate, err := os.ReadFile(filepath.Join(d.tls, fmt.Sprint(mesh.FirstGatewayPort), "tls.crt"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.CAFile, certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	client, err := gateway.New(c, gateway.Options{Hosts: map[string]string{"payment-service": hostname}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	pay := func(ctx context.Context, key string) (*paymentv1.CreatePaymentResponse, error) {
		answer := &paymentv1.CreatePaymentResponse{}
		ctx = metadata.AppendToOutgoingContext(ctx, "idempotency-key", key)
		return answer, client.CallService(ctx, "payment-service", "/payment.v1.PaymentService/CreatePayment", &paymentv1.CreatePaymentRequest{
			MerchantReference: "client-" + key, PayerUserId: "user_1", Amount: &paymentv1.Money{CurrencyCode: "EUR", MinorUnits: 1050},
		}, answer)
	}
	with := func(change func(jwt.MapClaims)) context.Context {
		return gateway.WithToken(t.Context(), config.NewSecret(strings.TrimPrefix(d.token(change), "Authorization: Bearer ")))
	}
	first, err := pay(with(nil), "k1")
	if err != nil || first.GetPayment().GetAmountDisplay() != "10.50 EUR" {
		t.Fatalf("got %v, %v", first, err)
	}
	if again, err := pay(with(nil), "k1"); err != nil || again.GetPayment().GetPaymentId() != first.GetPayment().GetPaymentId() {
		t.Errorf("the same key again: %v, %v", again, err)
	}
	if _, err := pay(t.Context(), "k2"); status.Code(err) != codes.Unauthenticated {
		t.Errorf("without a token: %v", err)
	}
	if _, err := pay(with(func(c jwt.MapClaims) { c["aud"] = "other" }), "k2"); status.Code(err) != codes.Unauthenticated {
		t.Errorf("for another audience: %v", err)
	}

	// What the page /health/services tells of the sidecar, from a real one.
	contacts := d.payment.Upstreams[0].Service.String() + "/grpc"
	lab.Eventually(t, patience, func() error {
		sidecar, err := discovery.AskSidecar(t.Context(), http.DefaultClient, fmt.Sprintf("%s:%d", d.payments.ip, mesh.AdminPort))
		if err == nil && (sidecar.State != "LIVE" || sidecar.Clusters[contacts] != (discovery.Cluster{Endpoints: 1, Usable: 1})) {
			err = fmt.Errorf("the sidecar says %+v", sidecar)
		}
		return err
	})
}
