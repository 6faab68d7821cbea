// Package load pays, all the while: an address and a rate go in, and how each call ended comes out. It is an open-loop
// client: calls leave at their time, whether or not earlier ones have been answered. It repeats nothing.
package load

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Options say whom to pay, and how often.
type Options struct {
	// Address is host:port to connect to; Host is the name in the URL and in TLS.
	Address, Host string
	// Roots vouch for the server.
	Roots *x509.CertPool
	// Token is the caller's JWT.
	Token string
	// Rate is calls a second, half of them by HTTP/2 and half by HTTP/1.1 with keep-alive.
	Rate int
	// Timeout bounds one call.
	Timeout time.Duration
}

// Load is a client that is paying.
type Load struct {
	options Options
	run     string // makes the keys and references of a run its own
	clients []*http.Client
	stop    context.CancelFunc
	ended   chan struct{}

	mu       sync.Mutex
	sent     int
	answers  map[string]int
	failures []Failure
	took     []time.Duration
	began    time.Time
	last     time.Time
}

// Failure is a call that was not answered with 200.
type Failure struct {
	At     time.Time
	Proto  string
	Answer string
}

// Report is what became of the calls.
type Report struct {
	Sent int
	// Answers counts them: by HTTP/2 200, HTTP/1.1 503 and so on, or by the error where there was no answer.
	Answers map[string]int
	// Failed are those that were not answered with 200, and Failures the first of them.
	Failed   int
	Failures []Failure
	// Rate is calls a second, as reached.
	Rate          float64
	P50, P99, Max time.Duration
}

// maxFailures is how many failures are kept: the first ones tell the most.
const maxFailures = 20

// Start begins to pay. Stop ends it.
func Start(o Options) *Load {
	ctx, stop := context.WithCancel(context.Background())
	l := &Load{
		options: o, run: rand.Text()[:8], clients: []*http.Client{client(o, true), client(o, false)},
		stop: stop, ended: make(chan struct{}), answers: map[string]int{}, began: time.Now(),
	}
	go l.loop(ctx)
	return l
}

// client speaks one of the two protocols, and no other.
func client(o Options, http2 bool) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	dialer := &net.Dialer{Timeout: o.Timeout}
	return &http.Client{
		Timeout:       o.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dialer.DialContext(ctx, "tcp", o.Address)
			},
			TLSClientConfig: &tls.Config{RootCAs: o.Roots, ServerName: o.Host, MinVersion: tls.VersionTLS12},
			Protocols:       protocols, MaxIdleConnsPerHost: 100, DisableCompression: true,
		},
	}
}

func (l *Load) loop(ctx context.Context) {
	defer close(l.ended)
	var calls sync.WaitGroup
	defer calls.Wait()
	tick := time.NewTicker(time.Second / time.Duration(l.options.Rate))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			// A ticker drops ticks that nobody takes; what is due by the clock is sent all the same.
			for due := int(time.Since(l.began).Seconds() * float64(l.options.Rate)); l.Sent() < due; {
				n := l.count()
				calls.Go(func() { l.pay(n) })
			}
		}
	}
}

func (l *Load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent++
	return l.sent
}

// Sent is how many calls have left.
func (l *Load) Sent() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sent
}

// pay takes one payment, with a key and a reference of its own.
func (l *Load) pay(n int) {
	client, proto := l.clients[n%2], []string{"HTTP/2", "HTTP/1.1"}[n%2]
	start := time.Now()
	answer := l.answer(client, n)
	took := time.Since(start)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answers[proto+" "+answer]++
	l.took = append(l.took, took)
	l.last = time.Now()
	if answer != "200" && len(l.failures) < maxFailures {
		l.failures = append(l.failures, Failure{At: start, Proto: proto, Answer: answer})
	}
}

func (l *Load) answer(client *http.Client, n int) string {
	name := fmt.Sprintf("load-%s-%d", l.run, n)
	body, err := json.Marshal(map[string]any{
		"merchant_reference": name, "payer_user_id": "user_123", "amount": map[string]string{"currency_code": "EUR", "minor_units": "1050"},
	})
	if err != nil {
		return err.Error()
	}
	request, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "https://"+l.options.Host+"/v1/payments", nil)
	if err != nil {
		return err.Error()
	}
	sendOnce(request, body)
	request.Header.Set("Authorization", "Bearer "+l.options.Token)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Idempotency-Key", name)
	response, err := client.Do(request)
	if err != nil {
		return "error: " + cause(err)
	}
	defer response.Body.Close() //nolint:errcheck // it was read
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	if err != nil {
		return "error: the answer breaks off: " + cause(err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Sprintf("%d %s", response.StatusCode, bytes.TrimSpace(text))
	}
	if !bytes.Contains(text, []byte(name)) {
		return fmt.Sprintf("200 with another payment: %s", text)
	}
	return "200"
}

var errSent = errors.New("the connection was lost after the call had left")

// sendOnce gives a request a body that leaves once at most. The HTTP library would repeat a POST that has an idempotency key, and
// hide what was lost; without any way to have the body again it also fails a call of which no byte has left, since a connection
// that the server is closing was the one to be used.
func sendOnce(request *http.Request, body []byte) {
	var left atomic.Bool
	request.ContentLength = int64(len(body))
	request.GetBody = func() (io.ReadCloser, error) {
		if left.Load() {
			return nil, errSent
		}
		return io.NopCloser(&noted{bytes.NewReader(body), &left}), nil
	}
	request.Body, _ = request.GetBody()
}

// noted notes that it was read from.
type noted struct {
	reader io.Reader
	read   *atomic.Bool
}

func (n *noted) Read(p []byte) (int, error) {
	n.read.Store(true)
	return n.reader.Read(p)
}

// cause is the innermost of an error, without addresses, so that the same ones count together.
func cause(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return "timeout"
	}
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}

// Stop sends no more calls, waits for the answers and returns what became of all.
func (l *Load) Stop() Report {
	l.stop()
	<-l.ended
	for _, client := range l.clients {
		client.CloseIdleConnections()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r := Report{Sent: l.sent, Answers: l.answers, Failures: l.failures}
	if seconds := l.last.Sub(l.began).Seconds(); seconds > 0 {
		r.Rate = float64(l.sent) / seconds
	}
	for answer, n := range l.answers {
		if !strings.HasSuffix(answer, " 200") {
			r.Failed += n
		}
	}
	if slices.Sort(l.took); len(l.took) > 0 {
		r.P50, r.P99, r.Max = l.took[len(l.took)/2], l.took[len(l.took)*99/100], l.took[len(l.took)-1]
	}
	return r
}

// String is the report as a log has it.
func (r Report) String() string {
	var text strings.Builder
	fmt.Fprintf(&text, "%d of %d calls failed, at %.0f calls a second (median %s, 99%% within %s, longest %s)", r.Failed, r.Sent, r.Rate,
		r.P50.Round(time.Millisecond), r.P99.Round(time.Millisecond), r.Max.Round(time.Millisecond))
	for _, answer := range slices.Sorted(maps.Keys(r.Answers)) {
		fmt.Fprintf(&text, "\n%6d  %s", r.Answers[answer], answer)
	}
	for _, f := range r.Failures {
		fmt.Fprintf(&text, "\n  %s %s %s", f.At.UTC().Format("15:04:05.000"), f.Proto, f.Answer)
	}
	return text.String()
}
