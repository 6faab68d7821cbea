package services

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/jia-app/paymesh/payment/config"
	"github.com/jia-app/paymesh/payment/contactv1"
	"github.com/jia-app/paymesh/payment/documentv1"
	"github.com/jia-app/paymesh/payment/familyv1"
	"github.com/jia-app/paymesh/payment/logtest"
)

// other is a process with all three services, and its own health.
type other struct {
	contactv1.UnimplementedContactServiceServer
	familyv1.UnimplementedFamilyServiceServer
	documentv1.UnimplementedDocumentServiceServer
	health  *health.Server
	refuse  atomic.Bool  // health checks, as a sidecar does
	checks  atomic.Int32 // that came
	calls   atomic.Int32 // of GetUserInfo
	address string
	stop    func()

	mu    sync.Mutex
	conns []net.Conn
}

func (o *other) GetUserInfo(ctx context.Context, r *contactv1.GetUserInfoRequest) (*contactv1.GetUserInfoResponse, error) {
	o.calls.Add(1)
	switch r.GetUserId() {
	case "cut": // the call has come, and the answer does not go
		o.mu.Lock()
		defer o.mu.Unlock()
		for _, conn := range o.conns {
			_ = conn.Close()
		}
	case "slow":
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	case "broken":
		return nil, status.Error(codes.Unavailable, "broken")
	case "unknown":
		return nil, status.Error(codes.NotFound, "unknown")
	}
	return &contactv1.GetUserInfoResponse{User: &contactv1.User{UserId: r.GetUserId()}}, nil
}

func (o *other) GetFamily(context.Context, *familyv1.GetFamilyRequest) (*familyv1.GetFamilyResponse, error) {
	return &familyv1.GetFamilyResponse{Family: &familyv1.Family{DisplayName: "Sol"}}, nil
}

func (o *other) ListDocuments(context.Context, *documentv1.ListDocumentsRequest) (*documentv1.ListDocumentsResponse, error) {
	return &documentv1.ListDocumentsResponse{Documents: []*documentv1.Document{{Title: "Contract"}}}, nil
}

// listen remembers connections, to cut them.
func (o *other) listen(t *testing.T, address string) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return &remembering{listener, o}
}

type remembering struct {
	net.Listener
	other *other
}

func (r *remembering) Accept() (net.Conn, error) {
	conn, err := r.Listener.Accept()
	if err == nil {
		r.other.mu.Lock()
		r.other.conns = append(r.other.conns, conn)
		r.other.mu.Unlock()
	}
	return conn, err
}

// start serves; without its own health where there is none.
func (o *other) start(t *testing.T, withHealth bool) {
	t.Helper()
	if o.address == "" {
		o.address = "127.0.0.1:0"
	}
	listener := o.listen(t, o.address)
	o.address = listener.Addr().String()
	server := grpc.NewServer(grpc.UnaryInterceptor(func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		if info.FullMethod == healthv1.Health_Check_FullMethodName {
			o.checks.Add(1)
			if o.refuse.Load() {
				return nil, status.Error(codes.PermissionDenied, "RBAC: access denied")
			}
		}
		return handler(ctx, request)
	}))
	contactv1.RegisterContactServiceServer(server, o)
	familyv1.RegisterFamilyServiceServer(server, o)
	documentv1.RegisterDocumentServiceServer(server, o)
	if o.health = health.NewServer(); withHealth {
		healthv1.RegisterHealthServer(server, o.health)
	}
	go server.Serve(listener) //nolint:errcheck // it ends with the test
	o.stop = server.Stop
	t.Cleanup(server.Stop)
}

type lab struct {
	*Manager
	other    *other
	log      *logtest.Log
	registry *prometheus.Registry
}

func start(t *testing.T, withHealth bool, change func(*Options)) *lab {
	t.Helper()
	l := &lab{other: &other{}, log: &logtest.Log{}, registry: prometheus.NewRegistry()}
	l.other.start(t, withHealth)
	defaults := config.Default()
	o := Options{
		Services: defaults.ExternalServices, Discovery: defaults.ServiceMesh.Discovery, CircuitBreaker: defaults.CircuitBreaker,
		Registerer: l.registry, Log: slog.New(slog.NewTextHandler(l.log, nil)), Interval: 20 * time.Millisecond,
	}
	o.Services.ContactService.Address = l.other.address
	if change != nil {
		change(&o)
	}
	var err error
	if l.Manager, err = New(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// run watches until the test ends.
func (l *lab) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { l.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
}

func (l *lab) ask(t *testing.T, user string) error {
	t.Helper()
	client, err := l.Contact()
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.GetUserInfo(t.Context(), &contactv1.GetUserInfoRequest{UserId: user})
	return err
}

func (l *lab) metric(t *testing.T, name string) float64 {
	t.Helper()
	families, err := l.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			return family.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func TestEachServiceHasItsClient(t *testing.T) {
	l := start(t, true, func(o *Options) {
		o.Services.FamilyService.Address, o.Services.DocumentService.Address = o.Services.ContactService.Address, o.Services.ContactService.Address
	})
	if err := l.ask(t, "user_123"); err != nil {
		t.Error(err)
	}
	family, err := l.Family()
	if err != nil {
		t.Fatal(err)
	}
	if answer, err := family.GetFamily(t.Context(), &familyv1.GetFamilyRequest{}); err != nil || answer.GetFamily().GetDisplayName() != "Sol" {
		t.Errorf("got %v, %v", answer, err)
	}
	document, err := l.Document()
	if err != nil {
		t.Fatal(err)
	}
	if answer, err := document.ListDocuments(t.Context(), &documentv1.ListDocumentsRequest{}); err != nil || len(answer.GetDocuments()) != 1 {
		t.Errorf("got %v, %v", answer, err)
	}
	if all := l.Health(t.Context()); len(all) != 3 || !all[0].Healthy || !all[1].Healthy || !all[2].Healthy {
		t.Errorf("got %+v", all)
	}
}

func TestAServiceThatIsNotUsedHasNoClient(t *testing.T) {
	l := start(t, true, nil)
	if _, err := l.Family(); err == nil || !strings.Contains(err.Error(), "external_services.family_service.address is empty") {
		t.Errorf("got %v", err)
	}
	if _, err := l.Document(); err == nil || !strings.Contains(err.Error(), "external_services.document_service.address is empty") {
		t.Errorf("got %v", err)
	}
	if all := l.Health(t.Context()); len(all) != 1 {
		t.Errorf("got %+v", all)
	}
}

func TestWhatCannotBeConnectedIsRefusedAtTheStart(t *testing.T) {
	for want, change := range map[string]func(*Options){
		`the address "nowhere": want host:port`:       func(o *Options) { o.Services.ContactService.Address = "nowhere" },
		"the timeout_seconds of contact-service is 0": func(o *Options) { o.Services.ContactService.TimeoutSeconds = 0 },
		"contact-service is connected with other settings": func(o *Options) {
			o.Services.FamilyService.Address, o.Services.FamilyService.Name = "127.0.0.1:2", "contact-service"
		},
	} {
		o := Options{Services: config.Default().ExternalServices, Discovery: config.Discovery{Scheme: "dns"}, CircuitBreaker: config.Default().CircuitBreaker, Registerer: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler)}
		o.Services.ContactService.Address = "127.0.0.1:1"
		change(&o)
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestACallWhoseBytesLeftIsNotRepeated(t *testing.T) {
	l := start(t, true, nil)
	if err := l.ask(t, "cut"); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v", err)
	}
	if err := l.ask(t, "user_123"); err != nil { // the connection is made anew
		t.Error(err)
	}
	if n := l.other.calls.Load(); n != 2 {
		t.Errorf("%d calls came: want the one that was cut and the one after it", n)
	}
}

func TestACallWaitsForAServiceThatIsBackInTime(t *testing.T) {
	l := start(t, true, func(o *Options) { o.Services.ContactService.TimeoutSeconds = 20 })
	if err := l.ask(t, "user_123"); err != nil {
		t.Fatal(err)
	}
	l.other.stop()
	logtest.Eventually(t, func() bool { return l.Health(gone(t))[0].Connection == "TRANSIENT_FAILURE" })
	done := make(chan error, 1)
	go func() { done <- l.ask(t, "user_123") }()
	l.other.start(t, true)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// gone is who does not wait for what services say.
func gone(t *testing.T) context.Context {
	ctx, leave := context.WithCancel(t.Context())
	leave()
	return ctx
}

func TestACallEndsWithTheServicesTimeoutAndAnEarlierDeadlineCounts(t *testing.T) {
	l := start(t, true, func(o *Options) { o.Services.ContactService.TimeoutSeconds = 1 })
	if err := l.ask(t, "slow"); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v", err)
	}
	client, _ := l.Contact()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := client.GetUserInfo(ctx, &contactv1.GetUserInfoRequest{UserId: "slow"}); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v", err)
	}
}

func TestTheBreakerOpensAndTheServiceIsStillAskedHowItIs(t *testing.T) {
	l := start(t, true, func(o *Options) { o.CircuitBreaker.FailureThreshold, o.CircuitBreaker.OpenSeconds = 2, 1 })
	for range 2 {
		if err := l.ask(t, "unknown"); status.Code(err) != codes.NotFound {
			t.Errorf("got %v", err)
		}
	}
	for range 4 {
		if err := l.ask(t, "broken"); status.Code(err) != codes.Unavailable {
			t.Errorf("got %v", err)
		}
	}
	if n := l.other.calls.Load(); n != 4 {
		t.Errorf("%d calls came: want 2 that are answered, and 2 that open the breaker", n)
	}
	got := l.Health(t.Context())[0]
	if got.CircuitBreaker != "open" || got.Healthy || l.other.checks.Load() != 1 || !strings.Contains(got.Detail, "too often") {
		t.Errorf("got %+v, after %d checks", got, l.other.checks.Load())
	}
	if l.metric(t, "circuit_breaker_state") != 2 {
		t.Error("the metric does not say so")
	}
	logtest.Eventually(t, func() bool { return l.ask(t, "user_123") == nil })
	if got := l.Health(t.Context())[0]; got.CircuitBreaker != "closed" || !got.Healthy {
		t.Errorf("got %+v", got)
	}
	for _, want := range []string{`msg="the circuit breaker is now open" target=contact-service before=closed`, `msg="the circuit breaker is now closed" target=contact-service before=half-open`} {
		if !strings.Contains(l.log.String(), want) {
			t.Errorf("the log has no %s: %s", want, l.log)
		}
	}
}

func TestEachServiceIsWatched(t *testing.T) {
	l := start(t, true, nil)
	l.run(t)
	healthy := func() bool { return l.metric(t, "external_service_healthy") == 1 }
	logtest.Eventually(t, healthy)
	l.other.health.SetServingStatus("", healthv1.HealthCheckResponse_NOT_SERVING)
	logtest.Eventually(t, func() bool { return !healthy() })
	if got := l.Health(t.Context())[0]; got.Healthy || got.Detail != "contact-service says that it is NOT_SERVING" {
		t.Errorf("got %+v", got)
	}
	l.other.stop()
	logtest.Eventually(t, func() bool { return strings.Contains(l.Health(t.Context())[0].Detail, "does not answer") })
	l.other.start(t, true)
	logtest.Eventually(t, healthy)
	for _, want := range []string{"msg=health service=contact-service healthy=true told=true", "healthy=false error="} {
		if !strings.Contains(l.log.String(), want) {
			t.Errorf("the log has no %s: %s", want, l.log)
		}
	}
}

func TestAServiceThatAnswersAndDoesNotSayMoreIsLeftAloneUntilCallsFail(t *testing.T) {
	for name, refuses := range map[string]bool{"no health service": false, "no permission": true} {
		t.Run(name, func(t *testing.T) {
			l := start(t, refuses, func(o *Options) { o.Services.ContactService.TimeoutSeconds = 1 })
			l.other.refuse.Store(refuses)
			l.run(t)
			logtest.Eventually(t, func() bool { return l.metric(t, "external_service_healthy") == 1 })
			if got := l.Health(t.Context())[0]; !got.Healthy || !strings.Contains(got.Detail, "let this caller call grpc.health.v1.Health/Check") {
				t.Errorf("got %+v", got)
			}
			l.other.stop()
			if err := l.ask(t, "user_123"); err == nil {
				t.Error("somebody answered")
			}
			logtest.Eventually(t, func() bool { return l.metric(t, "external_service_healthy") == 0 })
			if n := l.other.checks.Load(); refuses && n != 1 {
				t.Errorf("%d checks came before", n)
			}
		})
	}
}

func TestThePageTellsOfServicesAndTheSidecar(t *testing.T) {
	l := start(t, true, func(o *Options) { o.Discovery.EnvoyAddress = "127.0.0.1:1" })
	answer := httptest.NewRecorder()
	l.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/health/services", nil))
	var page struct {
		Healthy  bool
		Services map[string]Health
		Sidecar  map[string]any
	}
	if err := json.Unmarshal(answer.Body.Bytes(), &page); err != nil || answer.Code != 200 {
		t.Fatalf("%d, %v", answer.Code, err)
	}
	service := page.Services["contact-service"]
	if !service.Healthy || service.Connection != "READY" || service.CircuitBreaker != "closed" || service.Address != l.other.address {
		t.Errorf("got %+v", service)
	}
	if said, _ := page.Sidecar["error"].(string); page.Healthy || !strings.Contains(said, "ask the sidecar at 127.0.0.1:1") {
		t.Errorf("got %s", answer.Body)
	}
}

func TestWhoLeavesThePageSaysNothingOfAService(t *testing.T) {
	l := start(t, true, nil)
	if got := l.Health(gone(t))[0]; !got.Asked.IsZero() || got.Healthy || got.Detail != "it was not asked yet" {
		t.Errorf("got %+v", got)
	}
	if got := l.Health(t.Context())[0]; !got.Healthy {
		t.Errorf("got %+v", got)
	}
}
