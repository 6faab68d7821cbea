package server

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/jia-app/paymesh/payment/config"
	"github.com/jia-app/paymesh/payment/logtest"
	"github.com/jia-app/paymesh/payment/paymentv1"
	"github.com/jia-app/paymesh/payment/store"
)

// remember stores an answer to a key of ann's, as a process did that ran so long ago.
func remember(t *testing.T, path, key string, ago time.Duration) {
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
	caller := store.Caller{Issuer: "https://issuer", Subject: "ann"}
	fingerprint, err := fingerprintOf(order(key))
	if err != nil {
		t.Fatal(err)
	}
	claim, _, err := s.Claim(t.Context(), store.Key{Caller: caller, Method: paymentv1.PaymentService_CreatePayment_FullMethodName, Key: key}, fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	defer claim.Release()
	p := store.Payment{ID: "pay_" + key, Caller: caller, MerchantReference: "before-" + key, PayerUserID: "user_1", Currency: "EUR", MinorUnits: 1050, CreateTime: time.Now().Add(-ago)}
	if _, err := claim.Create(t.Context(), p, store.Answer{Body: []byte{}}, store.Answer{Failed: true, Body: []byte{}}); err != nil {
		t.Fatal(err)
	}
}

func TestAKeyIsReplayedForAsLongAsTheConfigurationSaysAndThenForgotten(t *testing.T) {
	l := start(t, func(c *config.Config) {
		c.Store.Path, c.Store.IdempotencyRetentionHours = filepath.Join(t.TempDir(), "payments.db"), 48
		remember(t, c.Store.Path, "kept", 47*time.Hour)
		remember(t, c.Store.Path, "old", 49*time.Hour)
	}, insecure.NewCredentials())
	logtest.Eventually(t, func() bool { return strings.Contains(l.log.String(), `"old idempotency keys are forgotten","keys":1`) })
	for key, want := range map[string]int{"kept": 1, "old": 0} {
		var header metadata.MD
		if _, err := l.client().CreatePayment(l.as("ann", key), order(key), grpc.Header(&header)); err != nil || len(header.Get(replayedKey)) != want {
			t.Errorf("%s: %v, replayed %v, want %d", key, err, header.Get(replayedKey), want)
		}
	}
}
