package load

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jia-app/paymesh/test/lab"
)

// bank answers payments, as decide says: a status, or 0 for a connection that breaks. It counts what arrives.
type bank struct {
	mu     sync.Mutex
	seen   map[string]int
	protos map[string]int
	decide func(n int) int
}

func (b *bank) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	b.mu.Lock()
	b.seen[r.Header.Get("Idempotency-Key")]++
	b.protos[r.Proto]++
	code := b.decide(len(b.seen))
	b.mu.Unlock()
	if code == 0 {
		panic(http.ErrAbortHandler)
	}
	w.WriteHeader(code)
	_, _ = w.Write(body)
}

func pay(t *testing.T, calls int, decide func(int) int) (*bank, Report) {
	t.Helper()
	b := &bank{seen: map[string]int{}, protos: map[string]int{}, decide: decide}
	server := httptest.NewUnstartedServer(b)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	l := Start(Options{Address: server.Listener.Addr().String(), Host: "example.com", Roots: roots, Token: "t", Rate: 200, Timeout: 5 * time.Second})
	lab.Eventually(t, time.Minute, func() error {
		if sent := l.Sent(); sent < calls {
			return fmt.Errorf("%d of %d calls are sent", sent, calls)
		}
		return nil
	})
	return b, l.Stop()
}

func TestEveryCallIsCountedByItsAnswerAndItsProtocol(t *testing.T) {
	b, r := pay(t, 40, func(n int) int {
		if n%10 == 0 {
			return http.StatusServiceUnavailable
		}
		return http.StatusOK
	})
	counted := 0
	for _, n := range r.Answers {
		counted += n
	}
	if counted != r.Sent || r.Sent < 40 || r.Failed != r.Sent/10 || len(r.Failures) != r.Failed {
		t.Errorf("got %s", r)
	}
	if b.protos["HTTP/1.1"] == 0 || b.protos["HTTP/2.0"] == 0 {
		t.Errorf("got %v, want calls by both protocols", b.protos)
	}
	if r.Rate <= 0 || r.Rate > 250 { // a machine that is busy may be slower
		t.Errorf("got %s, want at most 200 calls a second, and the rate that was reached", r)
	}
}

func TestABodyCanBeHadAgainAsLongAsNothingOfItHasLeft(t *testing.T) {
	request := httptest.NewRequest(http.MethodPost, "https://example.com", nil)
	sendOnce(request, []byte("pay"))
	request.Body, _ = request.GetBody()
	if text, err := io.ReadAll(request.Body); err != nil || string(text) != "pay" {
		t.Fatalf("the body is %q (%v)", text, err)
	}
	if _, err := request.GetBody(); !errors.Is(err, errSent) {
		t.Errorf("a body that has left can be had again (%v)", err)
	}
}

func TestACallWhoseConnectionBreaksIsLostAndNotRepeated(t *testing.T) {
	b, r := pay(t, 40, func(n int) int {
		if n == 20 {
			return 0
		}
		return http.StatusOK
	})
	if r.Failed == 0 {
		t.Errorf("got %s, want a failure", r)
	}
	for key, n := range b.seen {
		if n != 1 {
			t.Errorf("%s arrived %d times", key, n)
		}
	}
	if !strings.Contains(r.String(), "error: ") {
		t.Errorf("got %s, want the error in it", r)
	}
}
