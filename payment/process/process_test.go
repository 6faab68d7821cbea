package process

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"buf.build/go/protovalidate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/jia-app/paymesh/payment/interceptor"
	"github.com/jia-app/paymesh/payment/logtest"
)

const patience = 20 * time.Second

// bare is a process that serves nothing.
func bare(t *testing.T, log *slog.Logger) *Process {
	t.Helper()
	p, err := New(t.Context(), "test", patience, log)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// newProcess has gRPC's health service alone, and pages; its address is that of gRPC.
func newProcess(t *testing.T, log *logtest.Log) (p *Process, serve func(context.Context) error, address string) {
	t.Helper()
	p = bare(t, log.Logger())
	validator, err := protovalidate.New()
	if err != nil {
		t.Fatal(err)
	}
	auth := &interceptor.Auth{Log: log.Logger(), Methods: map[string]interceptor.Proof{
		healthv1.Health_Check_FullMethodName: interceptor.Nothing, healthv1.Health_Watch_FullMethodName: interceptor.Nothing,
	}}
	if err := p.NewGRPC(auth, validator, func(*grpc.Server) {}); err != nil {
		t.Fatal(err)
	}
	listener, err := p.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.ListenHTTP(t.Context(), "127.0.0.1:0", p.Pages(p.State, http.NotFoundHandler())); err != nil {
		t.Fatal(err)
	}
	return p, func(context.Context) error { return p.GRPC.Serve(listener) }, listener.Addr().String()
}

func TestAProcessThatIsToldToStopSaysSoToWhoWatchesAndClosesTheLastFirst(t *testing.T) {
	p, serve, address := newProcess(t, &logtest.Log{})
	var closed []string
	for _, name := range []string{"first", "second"} {
		p.OnClose(func() error { closed = append(closed, name); return nil })
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	besideEnded := false
	go func() { ended <- p.Run(ctx, serve, func(ctx context.Context) { <-ctx.Done(); besideEnded = true }) }()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // the test is over
	watch, err := healthv1.NewHealthClient(conn).Watch(t.Context(), &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []healthv1.HealthCheckResponse_ServingStatus{healthv1.HealthCheckResponse_SERVING, healthv1.HealthCheckResponse_NOT_SERVING} {
		answer, err := watch.Recv()
		if err != nil || answer.GetStatus() != want {
			t.Fatalf("the watch has %v, %v, want %s", answer, err, want)
		}
		stop()
	}
	if err := <-ended; err != nil || !besideEnded {
		t.Errorf("it ends with %v, what is beside it has ended: %t", err, besideEnded)
	}
	if !slices.Equal(closed, []string{"second", "first"}) {
		t.Errorf("closed %v", closed)
	}
}

func TestAServerThatFailsEndsTheProcessAndNothingStaysOpen(t *testing.T) {
	p, _, address := newProcess(t, &logtest.Log{})
	fault, other := errors.New("a fault"), errors.New("another")
	p.OnClose(func() error { return other })
	if err := p.Run(t.Context(), func(context.Context) error { return fault }); !errors.Is(err, fault) || !errors.Is(err, other) {
		t.Errorf("it ends with %v", err)
	}
	again := bare(t, slog.New(slog.DiscardHandler))
	for _, address := range []string{address, p.HTTPAddress()} {
		if _, err := again.Listen(t.Context(), address); err != nil {
			t.Error(err)
		}
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

func TestHealthSaysWhyAProcessIsNotToBeSentCalls(t *testing.T) {
	p := bare(t, slog.New(slog.DiscardHandler))
	var state string
	var reason error
	pages := p.Pages(func(context.Context) (string, error) { return state, reason }, http.NotFoundHandler())
	for _, c := range []struct {
		state, page string
		reason      error
		code        int
	}{
		{state: Serving, code: http.StatusOK, page: `{"status":"SERVING"}`},
		{state: "WAITING", reason: errors.New("for a test"), code: http.StatusServiceUnavailable, page: `{"reason":"for a test","status":"WAITING"}`},
	} {
		state, reason = c.state, c.reason
		got := httptest.NewRecorder()
		pages.ServeHTTP(got, httptest.NewRequest(http.MethodGet, "/health", nil))
		if got.Code != c.code || strings.TrimSpace(got.Body.String()) != c.page {
			t.Errorf("got %d %s, want %d %s", got.Code, got.Body, c.code, c.page)
		}
	}
}

func TestASignalEndsWhatIsServedAndAFailureIsTheLogsLastLine(t *testing.T) {
	var log logtest.Log
	if code := Main(&log, "service", func(ctx context.Context, _ *slog.Logger) error {
		if err := syscall.Kill(syscall.Getpid(), syscall.SIGTERM); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(patience):
			return errors.New("nothing came of the signal")
		}
	}); code != 0 || log.String() != "" {
		t.Errorf("exit %d, %s", code, log.String())
	}
	code := Main(&log, "service", func(context.Context, *slog.Logger) error { return io.ErrUnexpectedEOF })
	var line map[string]any
	if err := json.Unmarshal([]byte(log.String()), &line); err != nil {
		t.Fatal(err)
	}
	if code != 1 || line["msg"] != "the service ends" || line["error"] != "unexpected EOF" {
		t.Errorf("exit %d, %v", code, line)
	}
}
