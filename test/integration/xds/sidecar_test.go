package xds_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/payment/contactv1"
	"github.com/jia-app/paymesh/test/lab"
)

// edge is a caller and a callee, each with its sidecar, and a way from one to the other.
type edge struct {
	caller, callee       mesh.Service
	callerPod, calleePod *pod
	process              *contacts
	client               contactv1.ContactServiceClient
}

func newEdge(t *testing.T) *edge {
	t.Helper()
	e := &edge{caller: newService(t, "caller"), callee: newService(t, "callee"), process: startContacts(t)}
	e.callee.Ports = e.process.ports()
	e.callee.Rules = []mesh.Rule{{Name: "users", ID: e.caller.ID, Methods: []string{"contact.v1.ContactService/GetUserInfo"}, PortName: "grpc"}}
	u := dependency(t, e.callee)
	e.caller.Upstreams = []mesh.Upstream{u}
	e.calleePod, e.callerPod = startSidecar(t, e.callee), startSidecar(t, e.caller)
	manager.SetEndpoints(mesh.EndpointKey{Service: e.callee.Key, PortName: "grpc"}, []netip.AddrPort{e.calleePod.at(mesh.FirstMeshPort)})
	e.calleePod.awaitReady(t)
	e.callerPod.awaitReady(t)
	e.client = dial(t, fmt.Sprintf("127.0.0.1:%d", u.LocalPort))
	return e
}

func code(err error) codes.Code { return status.Code(err) }

func TestACallBetweenTwoSidecars(t *testing.T) {
	e := newEdge(t)
	ctx := t.Context()
	if err := userInfo(ctx, e.client, "user_1"); err != nil {
		t.Fatal(err)
	}

	t.Run("a forged x-forwarded-client-cert is replaced by what the certificates say", func(t *testing.T) {
		e.process.forget()
		forged := metadata.AppendToOutgoingContext(ctx, "x-forwarded-client-cert", "By=spiffe://jia.app/x;URI=spiffe://jia.app/admin", "x-forwarded-client-cert", "URI=spiffe://jia.app/admin")
		if err := userInfo(forged, e.client, "user_1"); err != nil {
			t.Fatal(err)
		}
		got := e.process.seen()[0].Get("x-forwarded-client-cert")
		if len(got) != 1 || !strings.HasPrefix(got[0], "By="+e.callee.ID.String()+";Hash=") || !strings.HasSuffix(got[0], ";URI="+e.caller.ID.String()) || strings.Contains(got[0], "admin") {
			t.Errorf("the process saw %q", got)
		}
	})
	t.Run("a method that no rule allows is refused, and the reply, the log and a metric say why", func(t *testing.T) {
		err := family(ctx, e.client)
		want := fmt.Sprintf("denied by MeshService %s: no rule of allow admits %s to /contact.v1.ContactService/GetFamilyMembers; nearest rule: users (this caller, other methods)", e.callee.Key, e.caller.ID)
		if code(err) != codes.PermissionDenied || status.Convert(err).Message() != want {
			t.Errorf("got %v, want %q", err, want)
		}
		awaitLine(t, e.calleePod, map[string]any{
			"log": "inbound", "caller": e.caller.ID.String(), "method": "/contact.v1.ContactService/GetFamilyMembers", "mesh_service": e.callee.Key.String(),
			"nearest_rule": "users (this caller, other methods)", "grpc_status": 7.0,
		})
		if n, err := e.calleePod.Metric(`envoy_http_rbac_denied{envoy_http_conn_manager_prefix="inbound_grpc"}`); n != 1 || err != nil {
			t.Errorf("the metric of denials says %v (%v)", n, err)
		}
	})
	t.Run("what is allowed is logged with its rule", func(t *testing.T) {
		line := awaitLine(t, e.calleePod, map[string]any{"log": "inbound", "rule": "users", "grpc_status": 0.0})
		t.Log(line)
	})
}

// awaitLine waits for a line of the access log that has these fields.
func awaitLine(t *testing.T, p *pod, want map[string]any) map[string]any {
	t.Helper()
	var found map[string]any
	lab.Eventually(t, patience, func() error {
		for _, line := range p.AccessLog() {
			found = line
			for name, value := range want {
				if line[name] != value {
					found = nil
				}
			}
			if found != nil {
				return nil
			}
		}
		return fmt.Errorf("no line has %v among\n%v", want, p.AccessLog())
	})
	return found
}

var _ = context.Background
