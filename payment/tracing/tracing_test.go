package tracing

import (
	"context"
	"net"
	"os"
	"slices"
	"sync"
	"testing"

	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/jia-app/paymesh/payment/contactv1"
)

// collector is the other end of OTLP.
type collector struct {
	collectorv1.UnimplementedTraceServiceServer
	mu    sync.Mutex
	spans []*tracev1.Span
}

func (c *collector) Export(_ context.Context, r *collectorv1.ExportTraceServiceRequest) (*collectorv1.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range r.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			c.spans = append(c.spans, scope.GetSpans()...)
		}
	}
	return &collectorv1.ExportTraceServiceResponse{}, nil
}

// contacts remembers what came with a call.
type contacts struct {
	contactv1.UnimplementedContactServiceServer
	seen metadata.MD
}

func (c *contacts) GetUserInfo(ctx context.Context, _ *contactv1.GetUserInfoRequest) (*contactv1.GetUserInfoResponse, error) {
	c.seen, _ = metadata.FromIncomingContext(ctx)
	return &contactv1.GetUserInfoResponse{}, nil
}

func serve(t *testing.T, register func(*grpc.Server), opts ...grpc.ServerOption) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(opts...)
	register(server)
	go server.Serve(listener) //nolint:errcheck // it ends with the test
	t.Cleanup(server.Stop)
	return listener.Addr().String()
}

func call(t *testing.T, tracer *Tracer) *contacts {
	t.Helper()
	c := &contacts{}
	address := serve(t, func(s *grpc.Server) {
		contactv1.RegisterContactServiceServer(s, c)
		healthv1.RegisterHealthServer(s, health.NewServer())
	}, tracer.Server())
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()), tracer.Client())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // the test is over
	ctx := metadata.AppendToOutgoingContext(t.Context(), "baggage", "user=canary")
	if _, err := contactv1.NewContactServiceClient(conn).GetUserInfo(ctx, &contactv1.GetUserInfoRequest{UserId: "canary"}); err != nil {
		t.Fatal(err)
	}
	if _, err := healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{}); err != nil {
		t.Fatal(err)
	}
	if err := tracer.Stop(); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestACallIsOneTraceAtTheCollector(t *testing.T) {
	c := &collector{}
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+serve(t, func(s *grpc.Server) { collectorv1.RegisterTraceServiceServer(s, c) }))
	tracer, err := Start(t.Context(), "payment-service", os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	if call(t, tracer).seen.Get("traceparent") == nil {
		t.Error("the call carries no trace")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.spans) != 2 { // health checks have none
		t.Fatalf("got %v", c.spans)
	}
	for _, span := range c.spans {
		if span.GetName() != "contact.v1.ContactService/GetUserInfo" || !slices.Equal(span.GetTraceId(), c.spans[0].GetTraceId()) {
			t.Errorf("got %v", span)
		}
		for _, attribute := range span.GetAttributes() {
			if attribute.GetValue().GetStringValue() == "canary" {
				t.Errorf("the span shows %s", attribute.GetKey())
			}
		}
	}
}

func TestWithoutACollectorNothingIsRecorded(t *testing.T) {
	tracer, err := Start(t.Context(), "payment-service", func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	if got := call(t, tracer).seen.Get("traceparent"); got != nil {
		t.Errorf("the call carries %v", got)
	}
}
