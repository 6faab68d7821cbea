package xds_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/payment/contactv1"
	"github.com/jia-app/paymesh/test/lab"
)

const (
	getUserInfo      = "contact.v1.ContactService/GetUserInfo"
	getFamilyMembers = "contact.v1.ContactService/GetFamilyMembers"
)

// edge is a caller and a callee, each with its sidecar, and a way from one to the other.
type edge struct {
	caller, callee       mesh.Service
	callerPod, calleePod *pod
	process              contacts
	client               contactv1.ContactServiceClient
}

// newEdge starts both; change may make something else of what they are.
func newEdge(t *testing.T, change func(e *edge)) *edge {
	t.Helper()
	e := &edge{caller: newService(t, "caller"), callee: newService(t, "callee"), process: startContacts(t)}
	e.callee.Ports = e.process.ports()
	e.callee.Rules = []mesh.Rule{{Name: "users", ID: e.caller.ID, Methods: []string{getUserInfo}, PortName: "grpc"}}
	u := dependency(t, e.callee)
	e.caller.Upstreams = []mesh.Upstream{u}
	if change != nil {
		change(e)
	}
	e.calleePod, e.callerPod = startSidecar(t, e.callee), startSidecar(t, e.caller)
	e.reach(e.calleePod)
	e.calleePod.awaitReady(t)
	e.callerPod.awaitReady(t)
	e.client = dial(t, fmt.Sprintf("127.0.0.1:%d", u.LocalPort))
	return e
}

// reach says where the callee is.
func (e *edge) reach(pods ...*pod) {
	var at []netip.AddrPort
	for _, p := range pods {
		at = append(at, p.at(mesh.FirstMeshPort))
	}
	manager.SetEndpoints(mesh.EndpointKey{Service: e.callee.Key, PortName: "grpc"}, at)
}

func TestACallCrossesTwoSidecars(t *testing.T) {
	e, ctx := newEdge(t, nil), t.Context()

	t.Run("and the process learns who calls, whatever the caller says", func(t *testing.T) {
		forged := metadata.AppendToOutgoingContext(ctx, "x-forwarded-client-cert", "By=spiffe://jia.app/x;URI=spiffe://jia.app/admin", "x-forwarded-client-cert", "URI=spiffe://jia.app/admin")
		if err := userInfo(forged, e.client, "user_1"); err != nil {
			t.Fatal(err)
		}
		got := e.process.Calls()[0].Metadata.Get("x-forwarded-client-cert")
		if len(got) != 1 || !strings.HasPrefix(got[0], "By="+e.callee.ID.String()+";Hash=") || !strings.HasSuffix(got[0], ";URI="+e.caller.ID.String()) || strings.Contains(got[0], "admin") {
			t.Errorf("the process saw %q", got)
		}
		awaitLine(t, e.calleePod, map[string]any{"log": "inbound", "rule": "users", "caller": e.caller.ID.String(), "method": "/" + getUserInfo, "grpc_status": 0.0})
	})
	t.Run("and a method that no rule allows is refused: the reply, the log and a metric say why", func(t *testing.T) {
		err := family(ctx, e.client)
		want := fmt.Sprintf("denied by MeshService %s: no rule of allow admits %s to /%s; nearest rule: users (this caller, other methods)", e.callee.Key, e.caller.ID, getFamilyMembers)
		if status.Code(err) != codes.PermissionDenied || status.Convert(err).Message() != want {
			t.Errorf("got %v, want %q", err, want)
		}
		awaitLine(t, e.calleePod, map[string]any{
			"log": "inbound", "mesh_service": e.callee.Key.String(), "caller": e.caller.ID.String(), "method": "/" + getFamilyMembers,
			"grpc_status": 7.0, "nearest_rule": "users (this caller, other methods)", "details": "rbac_access_denied_matched_policy[none]",
		})
		if n, err := e.calleePod.Metric(`envoy_http_rbac_denied{envoy_http_conn_manager_prefix="inbound_grpc"}`); n != 1 || err != nil {
			t.Errorf("the metric of denials says %v (%v)", n, err)
		}
		if n, err := e.calleePod.Metric(`envoy_http_rbac_policy_allowed{envoy_rbac_policy_name="users",envoy_http_conn_manager_prefix="inbound_grpc"}`); n == 0 || err != nil {
			t.Errorf("the metric of the rule says %v (%v)", n, err)
		}
	})
	t.Run("and what a process says in Envoy's headers has no effect", func(t *testing.T) {
		e.process.Forget()
		pleading := metadata.AppendToOutgoingContext(ctx, "x-envoy-retry-on", "5xx,reset,retriable-status-codes,gateway-error", "x-envoy-retry-grpc-on", "unavailable,cancelled,internal",
			"x-envoy-retriable-status-codes", "200,503", "x-envoy-max-retries", "5", "x-envoy-hedge-on-per-try-timeout", "true", "x-envoy-upstream-rq-per-try-timeout-ms", "20",
			"x-envoy-upstream-rq-timeout-ms", "20", "x-envoy-attempt-count", "7", "x-envoy-foo", "bar", "x-envoy-internal", "true", "x-envoy-external-address", "192.0.2.1")
		if err := userInfo(pleading, e.client, "user_broken"); status.Code(err) != codes.Unavailable {
			t.Errorf("a failing call: %v", err)
		}
		if err := userInfo(pleading, e.client, "user_100ms"); err != nil {
			t.Errorf("a call of 100 ms: %v", err)
		}
		calls := e.process.Calls()
		if len(calls) != 2 {
			t.Errorf("the process was called %d times for 2 calls", len(calls))
		}
		for _, call := range calls {
			md := call.Metadata
			for name := range md {
				// Its own sidecar says who connected to it.
				if strings.HasPrefix(name, "x-envoy-") && (name != "x-envoy-external-address" || md.Get(name)[0] == "192.0.2.1") {
					t.Errorf("the process saw %s: %q", name, md[name])
				}
			}
		}
	})
	t.Run("and ends with the caller's deadline", func(t *testing.T) {
		e.process.Forget()
		short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		defer cancel()
		if err := userInfo(short, e.client, "user_slow"); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("got %v", err)
		}
		if got := e.process.Calls()[0].Metadata.Get("grpc-timeout"); len(got) != 0 {
			t.Log("grpc-timeout is kept by the server's library and not shown")
		}
	})
	t.Run("and a connection that proves nothing is refused, and logged", func(t *testing.T) {
		at := e.calleePod.at(mesh.FirstMeshPort).String()
		plain, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer plain.Close() //nolint:errcheck // it is a test's
		_, _ = io.WriteString(plain, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if answer, _ := io.ReadAll(plain); strings.HasPrefix(string(answer), "HTTP/") {
			t.Errorf("in plaintext it answers %q", answer)
		}
		anonymous, err := tls.Dial("tcp", at, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
		if err == nil {
			_, err = anonymous.Read(make([]byte, 1))
		}
		if err == nil || !strings.Contains(err.Error(), "certificate required") {
			t.Errorf("without a certificate: %v", err)
		}
		lab.Eventually(t, patience, func() error {
			var failures []string
			for _, line := range e.calleePod.AccessLog() {
				if line["log"] == "handshake" {
					failures = append(failures, line["failure"].(string))
				}
			}
			if len(failures) != 2 || !strings.Contains(failures[0], "HTTP_REQUEST") || !strings.Contains(failures[1], "PEER_DID_NOT_RETURN_A_CERTIFICATE") {
				return fmt.Errorf("the log has %q", failures)
			}
			return nil
		})
	})
	t.Run("while probes and metrics are open to everybody, and nothing else", func(t *testing.T) {
		for path, want := range map[string]int{
			fmt.Sprintf(":%d/ready", mesh.ReadyPort): 403, fmt.Sprintf(":%d/", mesh.ReadyPort): 403, fmt.Sprintf(":%d/contact.v1.ContactService/GetUserInfo", mesh.ReadyPort): 403,
			fmt.Sprintf(":%d/stats/prometheus", mesh.StatsPort): 200, fmt.Sprintf(":%d/stats", mesh.StatsPort): 404, fmt.Sprintf(":%d/config_dump", mesh.StatsPort): 404,
			fmt.Sprintf(":%d/stats/../quitquitquit", mesh.StatsPort): 404,
		} {
			if code, _, err := get("http://" + e.calleePod.ip + path); code != want || err != nil {
				t.Errorf("%s answers %d (%v), want %d", path, code, err, want)
			}
		}
		answer, err := http.Post(fmt.Sprintf("http://%s:%d/stats/prometheus", e.calleePod.ip, mesh.StatsPort), "text/plain", nil)
		if err != nil || answer.StatusCode != http.StatusNotFound {
			t.Errorf("POST answers %v (%v)", answer, err)
		}
		_ = answer.Body.Close()
	})
}

func TestACallerThatNoRuleNames(t *testing.T) {
	e := newEdge(t, func(e *edge) { e.callee.Rules[0].ID = entry(t, "/somebody-else-"+e.callee.Key.Name) })
	for call, want := range map[string]string{
		getUserInfo:      "nearest rule: users (this method, other callers)",
		getFamilyMembers: "no rule names this caller or this method",
	} {
		err := userInfo(t.Context(), e.client, "user_1")
		if call == getFamilyMembers {
			err = family(t.Context(), e.client)
		}
		if status.Code(err) != codes.PermissionDenied || !strings.HasSuffix(status.Convert(err).Message(), want) {
			t.Errorf("%s: got %v, want ... %s", call, err, want)
		}
	}
	if calls := e.process.Calls(); len(calls) > 0 {
		t.Errorf("the process was called: %v", calls)
	}
	awaitLine(t, e.calleePod, map[string]any{"nearest_rule": "users (this method, other callers)", "caller": e.caller.ID.String()})
	awaitLine(t, e.calleePod, map[string]any{"nearest_rule": "none", "caller": e.caller.ID.String()})
}

func TestACalleeWithAnotherIdentityIsNotCalled(t *testing.T) {
	e := newEdge(t, func(e *edge) { e.caller.Upstreams[0].ID = entry(t, "/expected-"+e.callee.Key.Name) })
	if err := userInfo(t.Context(), e.client, "user_1"); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v", err)
	}
	line := awaitLine(t, e.callerPod, map[string]any{"log": "outbound", "dependency": "contacts", "callee": e.caller.Upstreams[0].ID.String()})
	if failure, _ := line["upstream_failure"].(string); !strings.Contains(failure, "SAN_match") {
		t.Errorf("the log says %v", line)
	}

	// The cluster changes, and the endpoints do not: it becomes active all the same.
	e.caller.Upstreams[0].ID = e.callee.ID
	e.callerPod.set(t, e.caller)
	e.callerPod.awaitSynced(t)
	lab.Eventually(t, patience, func() error { return userInfo(t.Context(), e.client, "user_1") })
}

func TestAChangedAllowReachesOpenConnections(t *testing.T) {
	e, ctx := newEdge(t, nil), t.Context()
	if err := userInfo(ctx, e.client, "user_1"); err != nil {
		t.Fatal(err)
	}
	e.callee.Rules[0].Methods = []string{"contact.v1.ContactService/*"}
	e.calleePod.set(t, e.callee)
	lab.Eventually(t, patience, func() error { return family(ctx, e.client) })
	e.callee.Rules = nil
	e.calleePod.set(t, e.callee)
	lab.Eventually(t, patience, func() error {
		if err := userInfo(ctx, e.client, "user_1"); status.Code(err) != codes.PermissionDenied {
			return fmt.Errorf("got %w after the rule is gone", err)
		}
		return nil
	})
	// One connection has been there all the while.
	if n, err := e.calleePod.Metric(`envoy_http_downstream_cx_total{envoy_http_conn_manager_prefix="inbound_grpc"}`); n != 1 || err != nil {
		t.Errorf("%v connections (%v), want 1", n, err)
	}
}

func TestATimeoutOfADependencyEndsACall(t *testing.T) {
	e := newEdge(t, func(e *edge) { e.caller.Upstreams[0].Timeout.Duration = 300 * time.Millisecond })
	err := userInfo(t.Context(), e.client, "user_slow")
	if want := fmt.Sprintf("MeshService %s did not answer within the deadline of the call, or the timeout of dependsOn contacts", e.callee.Key); status.Code(err) != codes.DeadlineExceeded || status.Convert(err).Message() != want {
		t.Errorf("got %v, want %q", err, want)
	}
	awaitLine(t, e.callerPod, map[string]any{"log": "outbound", "dependency": "contacts", "grpc_status": 4.0})
}

func TestAServiceWithoutPortsHasItsProbe(t *testing.T) {
	s := newService(t, "alone")
	p := startSidecar(t, s)
	p.awaitReady(t)

	// It gets ports later: the Listener has other addresses then.
	process := startContacts(t)
	s.Ports = append(process.ports(), mesh.Port{Name: "more", Port: process.port, MeshPort: mesh.FirstMeshPort + 1, Protocol: "GRPC"})
	p.set(t, s)
	p.awaitReady(t)
	for _, port := range s.Ports {
		lab.Eventually(t, patience, func() error {
			conn, err := net.Dial("tcp", p.at(port.MeshPort).String())
			if err == nil {
				err = conn.Close()
			}
			return err
		})
	}
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
