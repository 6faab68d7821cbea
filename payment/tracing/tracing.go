// Package tracing shows where a call spent its time: OpenTelemetry's own variables go in, and spans of gRPC calls come out
// at the collector that they name.
package tracing

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc/filters"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"
)

// stopTimeout is for the last spans: a collector that is away must not hold up the end of a process.
const stopTimeout = 2 * time.Second

// LookupEnv is os.LookupEnv, or what a test puts in its place.
type LookupEnv func(name string) (value string, set bool)

// Tracer traces the calls of a process, those that it answers and those that it makes.
type Tracer struct {
	provider trace.TracerProvider
	stop     func(context.Context) error
}

// Start begins to trace a service's calls, if OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT names a
// collector (OTLP over gRPC; the exporter reads the other OTEL_ variables, too). Without one nothing is recorded, and the
// trace of a caller (W3C traceparent) is still passed on. Spans name methods and codes, never what is in a call.
func Start(ctx context.Context, service string, env LookupEnv) (*Tracer, error) {
	named := false
	for _, name := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"} {
		value, _ := env(name)
		named = named || value != ""
	}
	if !named {
		return &Tracer{provider: noop.NewTracerProvider(), stop: func(context.Context) error { return nil }}, nil
	}
	exporter, err := otlptracegrpc.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("send traces to the collector that OTEL_EXPORTER_OTLP_ENDPOINT names: %w", err)
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter),
		sdktrace.WithResource(resource.NewSchemaless(attribute.String("service.name", service))))
	return &Tracer{provider: provider, stop: provider.Shutdown}, nil
}

// Server traces the calls that a server answers, except health checks.
func (t *Tracer) Server() grpc.ServerOption {
	return grpc.StatsHandler(otelgrpc.NewServerHandler(t.options()...))
}

// Client traces the calls on a connection, except health checks. They carry the trace on.
func (t *Tracer) Client() grpc.DialOption {
	return grpc.WithStatsHandler(otelgrpc.NewClientHandler(t.options()...))
}

func (t *Tracer) options() []otelgrpc.Option {
	noHealth := filters.Not(filters.HealthCheck())
	return []otelgrpc.Option{
		otelgrpc.WithTracerProvider(t.provider),
		// No baggage: what comes with it from outside would be passed on to all services.
		otelgrpc.WithPropagators(propagation.TraceContext{}),
		otelgrpc.WithFilter(func(info *stats.RPCTagInfo) bool { return noHealth(info) }),
	}
}

// Stop sends what is left, for as long as two seconds.
func (t *Tracer) Stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if err := t.stop(ctx); err != nil {
		return fmt.Errorf("send the last traces: %w", err)
	}
	return nil
}
