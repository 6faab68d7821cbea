package server

import (
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/credentials/insecure"

	"github.com/jia-app/paymesh/payment/config"
	"github.com/jia-app/paymesh/payment/logtest"
	"github.com/jia-app/paymesh/payment/store"
	"github.com/jia-app/paymesh/test/lab"
)

// late runs a service whose store another process has.
func late(t *testing.T) (*running, *store.Store) {
	t.Helper()
	var before *store.Store
	l := start(t, func(c *config.Config) {
		c.GRPC.Address, c.Store.Path = lab.FreeAddress(t), filepath.Join(t.TempDir(), "payments.db")
		var err error
		if before, err = store.Open(t.Context(), c.Store.Path, store.Options{}); err != nil {
			t.Fatal(err)
		}
	}, insecure.NewCredentials())
	t.Cleanup(func() { _ = before.Close() })
	logtest.Eventually(t, func() bool { return strings.Contains(l.log.String(), `"waiting for the process that has the store`) })
	return l, before
}

func TestAProcessWaitsForTheOneBeforeItAndServesThen(t *testing.T) {
	l, before := late(t)
	var page map[string]string
	if err := json.Unmarshal([]byte(l.page("/health", http.StatusServiceUnavailable)), &page); err != nil {
		t.Fatal(err)
	}
	if page["status"] != "WAITING_FOR_STORE" || page["reason"] != "wait for the process that holds "+l.config.Store.Path+".lock to end" {
		t.Errorf("/health has %v", page)
	}
	if conn, err := net.Dial("tcp", l.server.GRPCAddress()); err == nil {
		t.Error("the port of the payment API is open")
		_ = conn.Close()
	}
	if err := before.Close(); err != nil {
		t.Fatal(err)
	}
	logtest.Eventually(t, func() bool { return strings.Contains(l.log.String(), `"serving"`) })
	if _, err := l.client().CreatePayment(l.as("ann", "k"), order("order-1")); err != nil {
		t.Error(err)
	}
	if got := l.page("/health", http.StatusOK); !strings.Contains(got, `"SERVING"`) {
		t.Errorf("/health has %s", got)
	}
}

func TestAProcessThatWaitsForItsStoreEndsWhenItIsTold(t *testing.T) {
	l, _ := late(t)
	if err := l.stop(); err != nil {
		t.Errorf("it ends with %v", err)
	}
	if got := l.log.String(); strings.Contains(got, `"serving"`) {
		t.Errorf("the log has %s", got)
	}
}
