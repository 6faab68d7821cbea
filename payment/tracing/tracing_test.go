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
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/jia-app/paymesh/payment/contacttest"
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

// collect starts a collector.
func collect(t *testing.T) (c *collector, address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c = &collector{}
	server := grpc.NewServer()
	collectorv1.RegisterTraceServiceServer(server, c)
	go server.Serve(listener) //nolint:errcheck // it ends with the test
	t.Cleanup(server.Stop)
	return c, listener.Addr().String()
}

// call calls a contact service, and returns with what the call came there.
func call(t *testing.T, tracer *Tracer) metadata.MD {
	t.Helper()
	c := contacttest.Start(t, contacttest.Options{Server: []grpc.ServerOption{tracer.Server()}})
	conn, err := grpc.NewClient(c.Address, grpc.WithTransportCredentials(insecure.NewCredentials()), tracer.Client())
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
	return c.Calls()[0].Metadata
}

func TestACallIsOneTraceAtTheCollector(t *testing.T) {
	c, address := collect(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+address)
	tracer, err := Start(t.Context(), "payment-service", os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	if call(t, tracer).Get("traceparent") == nil {
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
	if got := call(t, tracer).Get("traceparent"); got != nil {
		t.Errorf("the call carries %v", got)
	}
}
