// Package breaker fails calls to a service at once while it is down: outcomes of calls go in, and whether the next may
// begin comes out.
package breaker

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sony/gobreaker/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Options are settings of a breaker.
type Options struct {
	// Target is the called service's name, for messages and metrics.
	Target string
	// FailureThreshold is how many calls in a row must fail to open it.
	FailureThreshold int
	// Open is how long it stays open before one call may try.
	Open time.Duration
	// Log tells of its changes; nil, nothing does.
	Log *slog.Logger
	// OnChange is told each new state (closed, half-open or open); it must not block. nil, nobody is.
	OnChange func(state string)
}

// errGivenUp is a call whose caller did not wait for its end, which says nothing about the service: a caller with short
// deadlines must not close the way for the others.
var errGivenUp = errors.New("the caller gave up")

// New makes a client interceptor, with the metrics circuit_breaker_state (0 closed, 1 half-open, 2 open) and
// circuit_breaker_rejected_total. The deadline of a call that is the service's own fault is set behind it.
func New(o Options, registerer prometheus.Registerer) (grpc.UnaryClientInterceptor, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	b := gobreaker.NewTwoStepCircuitBreaker[any](gobreaker.Settings{
		Name: o.Target, Timeout: o.Open,
		ReadyToTrip:  func(counts gobreaker.Counts) bool { return int(counts.ConsecutiveFailures) >= o.FailureThreshold },
		IsSuccessful: func(err error) bool { return !isFailure(status.Code(err)) },
		IsExcluded:   func(err error) bool { return errors.Is(err, errGivenUp) || status.Code(err) == codes.Canceled },
		OnStateChange: func(_ string, from, to gobreaker.State) {
			o.Log.Warn("the circuit breaker is now "+to.String(), "target", o.Target, "before", from.String())
			if o.OnChange != nil {
				o.OnChange(to.String())
			}
		},
	})
	labels := prometheus.Labels{"target": o.Target}
	rejected := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "circuit_breaker_rejected_total", Help: "Calls that failed at once since the breaker was open, or half-open with its one call under way.", ConstLabels: labels,
	})
	state := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "circuit_breaker_state", Help: "0 closed, 1 half-open, 2 open.", ConstLabels: labels,
	}, func() float64 {
		return map[gobreaker.State]float64{gobreaker.StateClosed: 0, gobreaker.StateHalfOpen: 1, gobreaker.StateOpen: 2}[b.State()]
	})
	return func(ctx context.Context, method string, request, answer any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		done, err := b.Allow()
		if err != nil {
			rejected.Inc()
			return status.Errorf(codes.Unavailable, "%s failed too often: it is asked again in at most %s", o.Target, o.Open)
		}
		outcome := errGivenUp // also of a call that panics: else the one call of a half-open breaker would never end
		defer func() { done(outcome) }()
		err = call(ctx, method, request, answer, conn, opts...)
		if err == nil || ctx.Err() == nil {
			outcome = err
		}
		return err
	}, errors.Join(registerer.Register(state), registerer.Register(rejected))
}

// isFailure says which codes mean that the service is down, and not that it said no.
func isFailure(code codes.Code) bool {
	switch code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Internal, codes.Unknown, codes.DataLoss:
		return true
	}
	return false
}
