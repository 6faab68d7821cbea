package xds_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/payment/contactv1"
	"github.com/jia-app/paymesh/payment/people"
	"github.com/jia-app/paymesh/test/lab"
)

const getFamily = "family.v1.FamilyService/GetFamily"

// startPeople runs a process of cmd/people until the test ends, and returns its ports.
func startPeople(t *testing.T, o people.Options) []mesh.Port {
	t.Helper()
	o.Address, o.HTTPAddress, o.TrustXFCC, o.Log = "127.0.0.1:0", "127.0.0.1:0", true, slog.New(slog.DiscardHandler)
	process, err := people.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- process.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the %s service ends with %v", o.Service, err)
		}
	})
	port := netip.MustParseAddrPort(process.GRPCAddress()).Port()
	return []mesh.Port{{Name: "grpc", Port: int32(port), MeshPort: mesh.FirstMeshPort, Protocol: "GRPC"}}
}

func TestTheContactServiceAsksTheFamilyServiceThroughTheirSidecars(t *testing.T) {
	payments, contact, family := newService(t, "payments"), newService(t, "contact"), newService(t, "family")
	contact.Upstreams, payments.Upstreams = []mesh.Upstream{dependency(t, family)}, []mesh.Upstream{dependency(t, contact)}
	payments.Upstreams[0].Name = "contact-service"
	data, err := people.Default()
	if err != nil {
		t.Fatal(err)
	}
	moved := data // the family service knows of a user who has left the family
	moved.Users = nil
	for _, user := range data.Users {
		if user.ID != "user_123" {
			moved.Users = append(moved.Users, user)
		}
	}
	family.Ports = startPeople(t, people.Options{Service: "family", Data: moved})
	contact.Ports = startPeople(t, people.Options{Service: "contact", Data: data, FamilyAddress: fmt.Sprintf("127.0.0.1:%d", contact.Upstreams[0].LocalPort)})
	family.Rules = []mesh.Rule{{Name: "contacts", ID: contact.ID, Methods: []string{getFamily}, PortName: "grpc"}}
	contact.Rules = []mesh.Rule{{Name: "payments", ID: payments.ID, Methods: []string{getUserInfo}, PortName: "grpc"}}
	familyPod, contactPod, caller := startSidecar(t, family), startSidecar(t, contact), startSidecar(t, payments)
	manager.SetEndpoints(mesh.EndpointKey{Service: family.Key, PortName: "grpc"}, []netip.AddrPort{familyPod.at(mesh.FirstMeshPort)})
	manager.SetEndpoints(mesh.EndpointKey{Service: contact.Key, PortName: "grpc"}, []netip.AddrPort{contactPod.at(mesh.FirstMeshPort)})
	for _, pod := range []*pod{familyPod, contactPod, caller} {
		pod.awaitReady(t)
	}
	client := dial(t, fmt.Sprintf("127.0.0.1:%d", payments.Upstreams[0].LocalPort))
	familyOf := func(user string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		answer, err := client.GetUserInfo(ctx, &contactv1.GetUserInfoRequest{UserId: user})
		return answer.GetUser().GetFamilyId(), err
	}
	lab.Eventually(t, patience, func() error { // the connection to the family service is made while the first calls come
		if left, err := familyOf("user_123"); err != nil || left != "" {
			return fmt.Errorf("user_123 is of family %q (%v)", left, err) //nolint:errorlint // it may be nil
		}
		return nil
	})
	if stayed, err := familyOf("user_456"); err != nil || stayed != "family_456" {
		t.Errorf("got %q, %v", stayed, err)
	}
	awaitLine(t, familyPod, map[string]any{"log": "inbound", "caller": contact.ID.String(), "rule": "contacts", "method": "/" + getFamily})
	awaitLine(t, contactPod, map[string]any{"log": "inbound", "caller": payments.ID.String(), "rule": "payments", "method": "/" + getUserInfo})

	// Nobody gets past the sidecar: what does not come from there names no caller.
	if err := userInfo(t.Context(), dial(t, fmt.Sprintf("127.0.0.1:%d", contact.Ports[0].Port)), "user_123"); status.Code(err) != codes.Unauthenticated {
		t.Errorf("around the sidecar: %v", err)
	}
}
