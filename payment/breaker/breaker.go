// Package breaker fails calls to a service at once while it is down: outcomes of calls go in, and whether the next may
// begin comes out.
package breaker

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sony/gobreaker/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Options are settings of a breaker.
type Options struct {
	// Target is the called service's name, for messages and the metric.
	Target string
	// FailureThreshold is how many calls in a row must fail to open it.
	FailureThreshold int
	// Open is how long it stays open before one call may try.
	Open time.Duration
}

// New makes a client interceptor, with the metric circuit_breaker_state: 0 closed, 1 half-open, 2 open.
func New(o Options, registerer prometheus.Registerer) (grpc.UnaryClientInterceptor, error) {
	b := gobreaker.NewTwoStepCircuitBreaker[any](gobreaker.Settings{
		Name: o.Target, Timeout: o.Open,
		ReadyToTrip:  func(counts gobreaker.Counts) bool { return int(counts.ConsecutiveFailures) >= o.FailureThreshold },
		IsSuccessful: func(err error) bool { return !isFailure(status.Code(err)) },
		IsExcluded:   func(err error) bool { return status.Code(err) == codes.Canceled }, // says nothing about the service
	})
	err := registerer.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "circuit_breaker_state", Help: "0 closed, 1 half-open, 2 open.", ConstLabels: prometheus.Labels{"target": o.Target},
	}, func() float64 {
		return map[gobreaker.State]float64{gobreaker.StateClosed: 0, gobreaker.StateHalfOpen: 1, gobreaker.StateOpen: 2}[b.State()]
	}))
	return func(ctx context.Context, method string, request, answer any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		done, err := b.Allow()
		if err != nil {
			return status.Errorf(codes.Unavailable, "%s failed too often: it is asked again in at most %s", o.Target, o.Open)
		}
		err = call(ctx, method, request, answer, conn, opts...)
		done(err)
		return err
	}, err
}

// isFailure says which codes mean that the service is down, and not that it said no.
func isFailure(code codes.Code) bool {
	switch code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Internal, codes.Unknown, codes.DataLoss:
		return true
	}
	return false
}
