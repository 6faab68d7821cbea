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
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/jia-app/paymesh/payment/contactv1"
	"github.com/jia-app/paymesh/payment/documentv1"
	"github.com/jia-app/paymesh/payment/familyv1"
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

func TestTheFamilyServiceKnowsFamilies(t *testing.T) {
	family := familyv1.NewFamilyServiceClient(start(t, Options{Service: "family"}).conn)
	answer, err := family.GetFamily(t.Context(), &familyv1.GetFamilyRequest{FamilyId: "family_456"})
	if err != nil || answer.GetFamily().GetDisplayName() != "Sol" || strings.Join(answer.GetFamily().GetMemberUserIds(), " ") != "user_123 user_456" {
		t.Errorf("got %v, %v", answer, err)
	}
	if _, err := family.GetFamily(t.Context(), &familyv1.GetFamilyRequest{FamilyId: "none"}); status.Code(err) != codes.NotFound {
		t.Errorf("an unknown family: got %v", err)
	}
	if _, err := family.GetFamily(t.Context(), &familyv1.GetFamilyRequest{}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("no family: got %v", err)
	}
}

func TestTheDocumentServiceKnowsDocumentsPageByPage(t *testing.T) {
	document := documentv1.NewDocumentServiceClient(start(t, Options{Service: "document"}).conn)
	first, err := document.ListDocuments(t.Context(), &documentv1.ListDocumentsRequest{OwnerUserId: "user_123", PageSize: 1})
	if err != nil || len(first.GetDocuments()) != 1 || first.GetDocuments()[0].GetDocumentId() != "doc_1" {
		t.Fatalf("got %v, %v", first, err)
	}
	second, err := document.ListDocuments(t.Context(), &documentv1.ListDocumentsRequest{OwnerUserId: "user_123", PageSize: 1, PageToken: first.GetNextPageToken()})
	if err != nil || len(second.GetDocuments()) != 1 || second.GetDocuments()[0].GetDocumentId() != "doc_2" || second.GetNextPageToken() != "" {
		t.Errorf("got %v, %v", second, err)
	}
	if others, err := document.ListDocuments(t.Context(), &documentv1.ListDocumentsRequest{OwnerUserId: "user_789"}); err != nil || len(others.GetDocuments()) != 0 {
		t.Errorf("got %v, %v", others, err)
	}
	if one, err := document.GetDocument(t.Context(), &documentv1.GetDocumentRequest{DocumentId: "doc_2"}); err != nil || one.GetDocument().GetOwnerUserId() != "user_123" {
		t.Errorf("got %v, %v", one, err)
	}
	if _, err := document.GetDocument(t.Context(), &documentv1.GetDocumentRequest{DocumentId: "none"}); status.Code(err) != codes.NotFound {
		t.Errorf("an unknown document: got %v", err)
	}
}

func TestSeveralServicesAreServedByOneProcess(t *testing.T) {
	conn := start(t, Options{Service: "contact,family,document"}).conn
	for _, name := range []string{"contact.v1.ContactService", "family.v1.FamilyService", "document.v1.DocumentService"} {
		if answer, err := healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{Service: name}); err != nil || answer.GetStatus() != healthv1.HealthCheckResponse_SERVING {
			t.Errorf("%s: got %v, %v", name, answer, err)
		}
	}
}

// familyOf is what a family service says that knows other members than the contact service's data.
func familyOf(t *testing.T, text string) running {
	t.Helper()
	data, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return start(t, Options{Service: "family", Data: data})
}

func TestWhoBelongsToAFamilyTheFamilyServiceSays(t *testing.T) {
	family := familyOf(t, `{"families": [{"family_id": "family_456"}], "users": [{"user_id": "user_456", "family_id": "family_456"}, {"user_id": "user_789", "family_id": "family_456"}]}`)
	s := start(t, Options{Service: "contact", FamilyAddress: family.GRPCAddress()})
	contact := contactv1.NewContactServiceClient(s.conn)
	belongs := func(user string) string {
		t.Helper()
		answer, err := contact.GetUserInfo(t.Context(), &contactv1.GetUserInfoRequest{UserId: user})
		if err != nil {
			t.Fatal(err)
		}
		return answer.GetUser().GetFamilyId()
	}
	members := func() (ids []string) {
		t.Helper()
		answer, err := contact.GetFamilyMembers(t.Context(), &contactv1.GetFamilyMembersRequest{FamilyId: "family_456"})
		if err != nil {
			t.Fatal(err)
		}
		for _, user := range answer.GetMembers() {
			ids = append(ids, user.GetUserId())
		}
		return ids
	}
	if got := belongs("user_123") + "," + belongs("user_456"); got != ",family_456" {
		t.Errorf("got %q", got)
	}
	if got := strings.Join(members(), " "); got != "user_456 user_789" {
		t.Errorf("got %q", got)
	}
	if page := get(t, "http://"+s.HTTPAddress()+"/health/services"); !strings.Contains(page, `"family-service":{"address":"`+family.GRPCAddress()+`","healthy":true`) {
		t.Errorf("got %s", page)
	}
	if page := get(t, "http://"+s.HTTPAddress()+"/metrics"); !strings.Contains(page, `grpc_client_requests_total{code="OK",method="GetFamily",service="family.v1.FamilyService"} 3`) {
		t.Errorf("got %s", page)
	}

	if err := family.stop(); err != nil { // then what the contact service has itself counts
		t.Fatal(err)
	}
	if got := belongs("user_123") + " " + strings.Join(members(), " "); got != "family_456 user_123 user_456" {
		t.Errorf("got %q", got)
	}
}

func TestAFamilyThatTheFamilyServiceDoesNotKnowIsNone(t *testing.T) {
	s := start(t, Options{Service: "contact", FamilyAddress: familyOf(t, `{"users": [{"user_id": "user_123"}]}`).GRPCAddress()})
	contact := contactv1.NewContactServiceClient(s.conn)
	if user, err := contact.GetUserInfo(t.Context(), &contactv1.GetUserInfoRequest{UserId: "user_123"}); err != nil || user.GetUser().GetFamilyId() != "" {
		t.Errorf("got %v, %v", user, err)
	}
	if _, err := contact.GetFamilyMembers(t.Context(), &contactv1.GetFamilyMembersRequest{FamilyId: "family_456"}); status.Code(err) != codes.NotFound {
		t.Errorf("got %v", err)
	}
}

func TestBehindASidecarACallHasACaller(t *testing.T) {
	s := start(t, Options{Service: "contact", TrustXFCC: true})
	contact := contactv1.NewContactServiceClient(s.conn)
	for name, c := range map[string]struct {
		pairs []string
		want  codes.Code
	}{
		"the sidecar's word":             {[]string{"x-forwarded-client-cert", "By=spiffe://jia.app/contact-service;URI=spiffe://jia.app/payment-service"}, codes.OK},
		"a caller of a federated mesh":   {[]string{"x-forwarded-client-cert", "URI=spiffe://other.app/till"}, codes.OK},
		"no word":                        {nil, codes.Unauthenticated},
		"no ID":                          {[]string{"x-forwarded-client-cert", "By=spiffe://jia.app/contact-service"}, codes.Unauthenticated},
		"an ID that somebody typed, too": {[]string{"x-forwarded-client-cert", "URI=spiffe://jia.app/payment-service", "x-spiffe-id", "spiffe://jia.app/payment-service"}, codes.Unauthenticated},
	} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), c.pairs...)
		if _, err := contact.GetUserInfo(ctx, &contactv1.GetUserInfoRequest{UserId: "user_123"}); status.Code(err) != c.want {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
	}
	if answer, err := healthv1.NewHealthClient(s.conn).Check(t.Context(), &healthv1.HealthCheckRequest{}); err != nil || answer.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("the health service: got %v, %v", answer, err)
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
		`there is no service "payment": want contact, family or document`:    {Service: "payment"},
		`the service "contact" is named twice`:                               {Service: "contact,contact"},
		"listen for gRPC: ":                                                  {Service: "contact", Address: taken},
		`address is "0.0.0.0:1": behind a sidecar want an address on`:        {Service: "contact", Address: "0.0.0.0:1", TrustXFCC: true},
		`family-service is "family:50051": behind a sidecar want an address`: {Service: "contact", Address: "127.0.0.1:0", FamilyAddress: "family:50051", TrustXFCC: true},
		`family-service is "family": want host:port`:                         {Service: "contact", Address: "127.0.0.1:0", FamilyAddress: "family", TrustXFCC: true},
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
		`{"users": [{"user_id": "a", "family_id": "f"}]}`:             "family_id f is not one of families",
		`{"documents": [{"document_id": "d", "owner_user_id": "a"}]}`: "owner_user_id a is not one of users",
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
	for _, want := range []string{"user_123", "user_456", "family_456", "doc_1"} {
		if !strings.Contains(string(text), `"`+want+`"`) {
			t.Errorf("%s is missing", want)
		}
	}
}
