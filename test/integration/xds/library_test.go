package xds_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/payment/config"
	"github.com/jia-app/paymesh/payment/contacttest"
	"github.com/jia-app/paymesh/payment/contactv1"
	"github.com/jia-app/paymesh/payment/interceptor"
	"github.com/jia-app/paymesh/payment/mtls"
	"github.com/jia-app/paymesh/payment/policy"
)

// own is the identity of a process that speaks mTLS itself.
func own(t *testing.T, s mesh.Service) mtls.Identity {
	t.Helper()
	identity, err := mtls.Open(config.MTLS{WorkloadAPI: agent.WorkloadAPI}, s.ID, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = identity.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := identity.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	return identity
}

// startLibrary is a contact service that is its own mTLS endpoint, at the address of a pod.
func startLibrary(t *testing.T, s mesh.Service) netip.AddrPort {
	t.Helper()
	registry := prometheus.NewRegistry()
	creds, err := mtls.Server(own(t, s), mtls.ServerOptions{Log: slog.New(slog.DiscardHandler), Registerer: registry})
	if err != nil {
		t.Fatal(err)
	}
	denied, err := interceptor.NewDenials(registry)
	if err != nil {
		t.Fatal(err)
	}
	var rules policy.Rules
	for _, rule := range s.Rules {
		rules = append(rules, config.PolicyRule{Name: rule.Name, SPIFFEID: rule.ID.String(), Methods: rule.Methods})
	}
	auth := &interceptor.Auth{Service: s.ID.String(), Rules: rules, Denied: denied, Log: slog.New(slog.DiscardHandler), Methods: map[string]interceptor.Proof{
		contactv1.ContactService_GetUserInfo_FullMethodName: interceptor.Workload, contactv1.ContactService_GetFamilyMembers_FullMethodName: interceptor.Workload,
	}}
	return netip.MustParseAddrPort(contacttest.Start(t, contacttest.Options{
		Address: fmt.Sprintf("%s:%d", podAddress(), mesh.FirstMeshPort), Answer: answer,
		Server: []grpc.ServerOption{grpc.Creds(creds), grpc.ChainUnaryInterceptor(auth.Unary)},
	}).Address)
}

func TestASidecarCallsAProcessThatSpeaksMTLSItself(t *testing.T) {
	caller, stranger, callee := newService(t, "caller"), newService(t, "stranger"), newService(t, "library")
	callee.Rules = []mesh.Rule{{Name: "users", ID: caller.ID, Methods: []string{getUserInfo}, PortName: "grpc"}}
	at := startLibrary(t, callee)
	manager.SetEndpoints(mesh.EndpointKey{Service: callee.Key, PortName: "grpc"}, []netip.AddrPort{at})
	client := func(s mesh.Service) contactv1.ContactServiceClient {
		u := dependency(t, callee)
		s.Upstreams = []mesh.Upstream{u}
		startSidecar(t, s).awaitReady(t)
		return dial(t, fmt.Sprintf("127.0.0.1:%d", u.LocalPort))
	}
	let := client(caller)
	if err := userInfo(t.Context(), let, "user_1"); err != nil {
		t.Errorf("a method of the caller's rule: %v", err)
	}
	if err := family(t.Context(), let); status.Code(err) != codes.PermissionDenied {
		t.Errorf("another method: %v", err)
	}
	if err := userInfo(t.Context(), client(stranger), "user_1"); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a caller without a rule: %v", err)
	}
}

func TestAProcessThatSpeaksMTLSItselfCallsASidecar(t *testing.T) {
	caller, callee, process := newService(t, "library"), newService(t, "callee"), startContacts(t)
	callee.Ports = process.ports()
	callee.Rules = []mesh.Rule{{Name: "users", ID: caller.ID, Methods: []string{getUserInfo}, PortName: "grpc"}}
	pod := startSidecar(t, callee)
	pod.awaitReady(t)
	client := func(expects mesh.Service) contactv1.ContactServiceClient {
		conn, err := grpc.NewClient(pod.at(mesh.FirstMeshPort).String(), grpc.WithTransportCredentials(mtls.Client(own(t, caller), expects.ID)), grpc.WithDisableRetry())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return contactv1.NewContactServiceClient(conn)
	}
	if err := userInfo(t.Context(), client(callee), "user_1"); err != nil {
		t.Errorf("a method of the caller's rule: %v", err)
	}
	if err := family(t.Context(), client(callee)); status.Code(err) != codes.PermissionDenied {
		t.Errorf("another method: %v", err)
	}
	if err := userInfo(t.Context(), client(caller), "user_1"); status.Code(err) != codes.Unavailable {
		t.Errorf("a callee that is somebody else: %v", err)
	}
	awaitLine(t, pod, map[string]any{"log": "inbound", "rule": "users", "caller": caller.ID.String(), "method": "/" + getUserInfo, "grpc_status": 0.0})
}
