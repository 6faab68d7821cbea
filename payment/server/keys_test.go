package server

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/jia-app/paymesh/payment/config"
	"github.com/jia-app/paymesh/payment/logtest"
	"github.com/jia-app/paymesh/payment/paymentv1"
	"github.com/jia-app/paymesh/payment/store"
)

var ann = store.Caller{Issuer: "https://issuer", Subject: "ann"}

// remember stores a payment with the answer to its key, as a process did that ran so long ago. It returns the payment's ID.
func remember(t *testing.T, path string, caller store.Caller, key string, ago time.Duration) string {
	t.Helper()
	s, err := store.Open(t.Context(), path, store.Options{Now: func() time.Time { return time.Now().Add(-ago) }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	fingerprint, err := fingerprintOf(order(key))
	if err != nil {
		t.Fatal(err)
	}
	claim, _, err := s.Claim(t.Context(), store.Key{Caller: caller, Method: paymentv1.PaymentService_CreatePayment_FullMethodName, Key: key}, fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	defer claim.Release()
	p := store.Payment{ID: "pay_" + uuid.NewString(), Caller: caller, MerchantReference: "before-" + key, PayerUserID: "user_1", Currency: "EUR", MinorUnits: 1050, CreateTime: time.Now().Add(-ago)}
	if _, err := claim.Create(t.Context(), p, store.Answer{Body: []byte{}}, store.Answer{Failed: true, Body: []byte{}}); err != nil {
		t.Fatal(err)
	}
	return p.ID
}

func TestAKeyIsReplayedForAsLongAsTheConfigurationSaysAndThenForgotten(t *testing.T) {
	l := start(t, func(c *config.Config) {
		c.Store.Path, c.Store.IdempotencyRetentionHours = filepath.Join(t.TempDir(), "payments.db"), 48
		remember(t, c.Store.Path, ann, "kept", 47*time.Hour)
		remember(t, c.Store.Path, ann, "old", 49*time.Hour)
	}, insecure.NewCredentials())
	logtest.Eventually(t, func() bool { return strings.Contains(l.log.String(), `"old idempotency keys are forgotten","keys":1`) })
	for key, want := range map[string]int{"kept": 1, "old": 0} {
		var header metadata.MD
		if _, err := l.client().CreatePayment(l.as("ann", key), order(key), grpc.Header(&header)); err != nil || len(header.Get(replayedKey)) != want {
			t.Errorf("%s: %v, replayed %v, want %d", key, err, header.Get(replayedKey), want)
		}
	}
}

func TestWhoASubjectIsDependsOnItsIssuer(t *testing.T) {
	id := ""
	l := start(t, func(c *config.Config) {
		c.Store.Path = filepath.Join(t.TempDir(), "payments.db")
		id = remember(t, c.Store.Path, store.Caller{Issuer: "https://before", Subject: "ann"}, "k", 0)
	}, insecure.NewCredentials())
	client := l.client()
	_, err := client.GetPayment(l.as("ann", ""), &paymentv1.GetPaymentRequest{PaymentId: id})
	wantError(t, err, codes.NotFound, "PAYMENT_NOT_FOUND")
	if page, err := client.ListPayments(l.as("ann", ""), &paymentv1.ListPaymentsRequest{}); err != nil || len(page.GetPayments()) != 0 {
		t.Errorf("got %v, %v", page, err)
	}
	var header metadata.MD
	if _, err := client.CreatePayment(l.as("ann", "k"), order("k"), grpc.Header(&header)); err != nil || len(header.Get(replayedKey)) != 0 {
		t.Errorf("the other's key: %v, %v", err, header)
	}
}

func TestAPageGoesOnFromTheCallersOwnPaymentAlone(t *testing.T) {
	l := start(t, nil, insecure.NewCredentials())
	client := l.client()
	for i, subject := range []string{"ann", "bob", "ann", "bob", "ann"} {
		if _, err := client.CreatePayment(l.as(subject, fmt.Sprint(i)), order(fmt.Sprint("order-", i))); err != nil {
			t.Fatal(err)
		}
	}
	first, err := client.ListPayments(l.as("ann", ""), &paymentv1.ListPaymentsRequest{PageSize: 2})
	if err != nil || len(first.GetPayments()) != 2 || first.GetNextPageToken() == "" {
		t.Fatalf("got %v, %v", first, err)
	}
	next := &paymentv1.ListPaymentsRequest{PageSize: 2, PageToken: first.GetNextPageToken()}
	if second, err := client.ListPayments(l.as("ann", ""), next); err != nil || len(second.GetPayments()) != 1 || second.GetPayments()[0].GetMerchantReference() != "order-0" || second.GetNextPageToken() != "" {
		t.Errorf("got %v, %v", second, err)
	}
	_, err = client.ListPayments(l.as("bob", ""), next)
	wantError(t, err, codes.InvalidArgument, "PAGE_TOKEN_INVALID")
	// What a token says is about a payment that its caller has, and not about how many there are.
	if said, err := afterToken(first.GetNextPageToken()); err != nil || said != first.GetPayments()[1].GetPaymentId() {
		t.Errorf("the token says %q, %v", said, err)
	}
}
