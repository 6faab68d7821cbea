package breaker

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const open = 5 * time.Second

type subject struct {
	t        *testing.T
	guard    grpc.UnaryClientInterceptor
	registry *prometheus.Registry
	log      *strings.Builder
	reached  int // calls that got to the service
}

func newSubject(t *testing.T, threshold int) *subject {
	t.Helper()
	s := &subject{t: t, registry: prometheus.NewRegistry(), log: &strings.Builder{}}
	var err error
	s.guard, err = New(Options{Target: "contact-service", FailureThreshold: threshold, Open: open, Log: slog.New(slog.NewTextHandler(s.log, nil))}, s.registry)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// do makes a call that the service answers with this.
func (s *subject) do(ctx context.Context, answer func() error) error {
	return s.guard(ctx, "/p.S/M", nil, nil, nil, func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
		s.reached++
		return answer()
	})
}

func (s *subject) call(code codes.Code) error {
	return s.do(s.t.Context(), func() error { return status.Error(code, "") })
}

// expect holds what the metrics say, as a scrape gives it.
func (s *subject) expect(state string, reached int, rejected string) {
	s.t.Helper()
	if s.reached != reached {
		s.t.Errorf("%d calls got to the service, want %d", s.reached, reached)
	}
	want := "# HELP circuit_breaker_rejected_total Calls that failed at once since the breaker was open, or half-open with its one call under way.\n" +
		"# TYPE circuit_breaker_rejected_total counter\ncircuit_breaker_rejected_total{target=\"contact-service\"} " + rejected + "\n" +
		"# HELP circuit_breaker_state 0 closed, 1 half-open, 2 open.\n# TYPE circuit_breaker_state gauge\ncircuit_breaker_state{target=\"contact-service\"} " + state + "\n"
	if err := testutil.GatherAndCompare(s.registry, strings.NewReader(want)); err != nil {
		s.t.Error(err)
	}
}

func TestItOpensAfterFailuresInARowAndClosesByOneCallThatSucceeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSubject(t, 3)
		_, _, _ = s.call(codes.Unavailable), s.call(codes.Unavailable), s.call(codes.OK)
		_, _ = s.call(codes.Unavailable), s.call(codes.Internal)
		s.expect("0", 5, "0") // not three in a row
		_ = s.call(codes.DeadlineExceeded)
		s.expect("2", 6, "0")
		if err := s.call(codes.OK); status.Code(err) != codes.Unavailable || status.Convert(err).Message() != "contact-service failed too often: it is asked again in at most 5s" {
			t.Errorf("got %v", err)
		}
		s.expect("2", 6, "1")

		wait(open)
		s.expect("1", 6, "1")
		_ = s.call(codes.Unavailable)
		s.expect("2", 7, "1") // one failure is enough
		wait(open)
		_ = s.call(codes.OK)
		s.expect("0", 8, "1")
		_, _ = s.call(codes.Unavailable), s.call(codes.Unavailable)
		s.expect("0", 10, "1") // it counts anew
		for _, want := range []string{"is now open", "is now half-open", "is now closed"} {
			if !strings.Contains(s.log.String(), want) {
				t.Errorf("the log has no %q: %s", want, s.log)
			}
		}
	})
}

func TestHalfOpenOneCallTriesAndTheOthersFailAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSubject(t, 1)
		_ = s.call(codes.Unavailable)
		wait(open)
		probe, done := make(chan error), make(chan error)
		go func() { done <- s.do(t.Context(), func() error { return <-probe }) }()
		synctest.Wait()
		for range 3 {
			if err := s.call(codes.OK); status.Code(err) != codes.Unavailable {
				t.Errorf("beside the one call: %v", err)
			}
		}
		s.expect("1", 2, "3")
		probe <- nil
		if err := <-done; err != nil {
			t.Error(err)
		}
		s.expect("0", 2, "3")
	})
}

func TestAnAnswerThatIsNoAndACallerThatGivesUpSayNothingOfTheService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSubject(t, 2)
		for _, code := range []codes.Code{codes.NotFound, codes.InvalidArgument, codes.PermissionDenied, codes.Unauthenticated, codes.FailedPrecondition, codes.Aborted, codes.AlreadyExists, codes.Unimplemented, codes.Canceled} {
			_ = s.call(code)
		}
		s.expect("0", 9, "0")
		late, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		<-late.Done()
		for range 5 {
			_ = s.do(late, func() error { return status.Error(codes.DeadlineExceeded, "") })
		}
		s.expect("0", 14, "0")

		_, _ = s.call(codes.Unavailable), s.call(codes.Unavailable)
		wait(open)
		_ = s.do(late, func() error { return status.Error(codes.DeadlineExceeded, "") })
		s.expect("1", 17, "0") // it was no try: the next call is
		func() {
			defer func() { _ = recover() }()
			_ = s.do(t.Context(), func() error { panic("") })
		}()
		s.expect("1", 18, "0")
		_ = s.call(codes.OK)
		s.expect("0", 19, "0")
	})
}

// wait lets a little more than a time pass, in the test's own clock.
func wait(d time.Duration) { <-time.After(d + time.Millisecond) }
