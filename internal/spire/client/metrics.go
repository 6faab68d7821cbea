package client

import (
	"context"
	"path"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

// metrics count and time the calls; a call that gRPC repeated counts once.
type metrics struct {
	calls    *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

// newMetrics makes the metrics of a client; a second client with the same registerer is a mistake of the program.
func newMetrics(registerer prometheus.Registerer) metrics {
	m := metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "paymesh_spire_rpcs_total",
			Help: "Calls to the SPIRE server, by method and gRPC status code.",
		}, []string{"method", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "paymesh_spire_rpc_duration_seconds",
			Help:    "How long calls to the SPIRE server took, by method.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2.5, 11), // to 10 s, the timeout of a read
		}, []string{"method"}),
	}
	if registerer != nil {
		registerer.MustRegister(m.calls, m.duration)
	}
	return m
}

func (m metrics) observe(ctx context.Context, method string, request, answer any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	start := time.Now()
	err := call(ctx, method, request, answer, conn, opts...)
	name := path.Base(method)
	m.duration.WithLabelValues(name).Observe(time.Since(start).Seconds())
	m.calls.WithLabelValues(name, status.Code(err).String()).Inc()
	return err
}
