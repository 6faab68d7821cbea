package people

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/jia-app/paymesh/payment/contactv1"
)

// running is a service on loopback that ends with the test, or with stop, which returns what Run returned.
type running struct {
	*Server
	conn *grpc.ClientConn
	stop func() error
}

func start(t *testing.T, o Options) running {
	t.Helper()
	if o.Data.Users == nil {
		data, err := Default()
		if err != nil {
			t.Fatal(err)
		}
		o.Data = data
	}
	o.Address, o.HTTPAddress, o.Log = "127.0.0.1:0", "127.0.0.1:0", slog.New(slog.NewJSONHandler(io.Discard, nil))
	ctx, cancel := context.WithCancel(t.Context())
	s, err := New(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	var stopped error
	stop := func() error {
		cancel()
		if err, open := <-ended; open {
			stopped = err
			close(ended)
		}
		return stopped
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	conn, err := grpc.NewClient(s.GRPCAddress(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return running{s, conn, stop}
}

func TestTheContactServiceKnowsUsersAndTheirFamilies(t *testing.T) {
	contact := contactv1.NewContactServiceClient(start(t, Options{Service: "contact"}).conn)
	user, err := contact.GetUserInfo(t.Context(), &contactv1.GetUserInfoRequest{UserId: "user_123"})
	if err != nil || user.GetUser().GetFamilyId() != "family_456" {
		t.Errorf("user_123: got %v, %v", user, err)
	}
	family, err := contact.GetFamilyMembers(t.Context(), &contactv1.GetFamilyMembersRequest{FamilyId: "family_456"})
	if err != nil || len(family.GetMembers()) != 2 || family.GetMembers()[0].GetUserId() != "user_123" || family.GetMembers()[1].GetUserId() != "user_456" {
		t.Errorf("family_456: got %v, %v", family, err)
	}
}

func TestWhatIsUnknownOrBreaksARuleIsRefused(t *testing.T) {
	contact := contactv1.NewContactServiceClient(start(t, Options{Service: "contact"}).conn)
	for name, c := range map[string]struct {
		call func() error
		want codes.Code
	}{
		"an unknown user": {func() error {
			_, err := contact.GetUserInfo(t.Context(), &contactv1.GetUserInfoRequest{UserId: "nobody"})
			return err
		}, codes.NotFound},
		"an unknown family": {func() error {
			_, err := contact.GetFamilyMembers(t.Context(), &contactv1.GetFamilyMembersRequest{FamilyId: "none"})
			return err
		}, codes.NotFound},
		"no user": {func() error { _, err := contact.GetUserInfo(t.Context(), &contactv1.GetUserInfoRequest{}); return err }, codes.InvalidArgument},
	} {
		if err := c.call(); status.Code(err) != c.want {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
}

func TestAServiceTellsHowItIsAndEndsInOrder(t *testing.T) {
	s := start(t, Options{Service: "contact"})
	if answer, err := healthv1.NewHealthClient(s.conn).Check(t.Context(), &healthv1.HealthCheckRequest{Service: "contact.v1.ContactService"}); err != nil || answer.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("the health service: got %v, %v", answer, err)
	}
	for page, want := range map[string]string{"/health": `{"status":"SERVING"}`, "/metrics": `grpc_server_requests_total{code="OK",method="Check",service="grpc.health.v1.Health"} 1`} {
		if body := get(t, "http://"+s.HTTPAddress()+page); !strings.Contains(body, want) {
			t.Errorf("%s: got %q, want %q in it", page, body, want)
		}
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close() //nolint:errcheck // it was read
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestAServiceThatIsNoneOrHasNoPlaceToListenIsRefused(t *testing.T) {
	taken := start(t, Options{Service: "contact"}).GRPCAddress()
	for want, o := range map[string]Options{
		`there is no service "payment": want contact`: {Service: "payment"},
		"listen for gRPC: ":                           {Service: "contact", Address: taken},
	} {
		if _, err := New(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestDataIsReadFromAFileAndChecked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data.json")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"users": [{"user_id": "b"}, {"user_id": "a"}]}`)
	if data, err := Load(path); err != nil || len(data.Users) != 2 || data.Users[0].ID != "a" {
		t.Errorf("got %v, %v", data, err)
	}
	for text, want := range map[string]string{
		`{"people": []}`: `unknown field "people"`,
		`{} {}`:          "behind the end",
		`{"users": [{"user_id": "a"}, {"user_id": "a"}]}`: "user a is there twice",
		`{"users": [{}]}`: "a user has no ID",
		`{"users": [{"user_id": "a", "family_id": "f"}]}`: "family_id f is not one of families",
	} {
		write(text)
		if _, err := Load(path); err == nil || !strings.HasPrefix(err.Error(), path) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
	if _, err := Load(path + ".none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: got %v", err)
	}
}

func TestTheBuiltInDataHasTheNamesOfTheGuides(t *testing.T) {
	data, err := Default()
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(data)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"user_123", "user_456", "family_456"} {
		if !strings.Contains(string(text), `"`+want+`"`) {
			t.Errorf("%s is missing", want)
		}
	}
}
