package xds_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/xds"
	"github.com/jia-app/paymesh/payment/contactv1"
	"github.com/jia-app/paymesh/test/lab"
)

// load makes calls all the while, several at a time.
type load struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
	mu     sync.Mutex
	calls  int
	failed map[string]int
}

// startLoad makes about 100 calls a second, of 100 ms each.
func startLoad(t *testing.T, client contactv1.ContactServiceClient) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{cancel: cancel, failed: map[string]int{}}
	for range 10 {
		l.done.Go(func() {
			for ctx.Err() == nil {
				err := userInfo(ctx, client, "user_100ms")
				l.mu.Lock()
				if l.calls++; err != nil && ctx.Err() == nil {
					l.failed[err.Error()]++
				}
				l.mu.Unlock()
			}
		})
	}
	t.Cleanup(l.stop)
	return l
}

func (l *load) stop() {
	l.cancel()
	l.done.Wait()
}

// after waits for so many more calls.
func (l *load) after(t *testing.T, more int) {
	t.Helper()
	count := func() int { l.mu.Lock(); defer l.mu.Unlock(); return l.calls }
	until := count() + more
	lab.Eventually(t, patience, func() error {
		if n := count(); n < until {
			return fmt.Errorf("%d of %d calls", n, until)
		}
		return nil
	})
}

func TestEndpointsComeAndGoAndNoCallIsLost(t *testing.T) {
	e := newEdge(t, nil)
	l := startLoad(t, e.client)
	l.after(t, 50)

	// A second pod comes, and the first one goes: it leaves the endpoints, its connections drain, and it ends.
	second := &pod{key: e.calleePod.key, ip: podAddress()}
	r := xds.Sidecar(e.callee)
	rebind(r, second.ip)
	other := mesh.ProxyKey{Kind: mesh.KindMeshService, NamespacedName: e.callee.Key}
	other.Name += "-2" // the manager knows no addresses of pods: here they are in the config
	second.key = other
	if err := manager.Set(other, e.callee.ID, r); err != nil {
		t.Fatal(err)
	}
	second.start(t, xds.SidecarFiles(e.callee, bootstrapOptions())["envoy.yaml"])
	second.awaitReady(t)
	e.reach(e.calleePod, second)
	l.after(t, 50)
	e.reach(second)
	lab.Eventually(t, patience, func() error {
		n, err := e.calleePod.Metric(`envoy_http_downstream_cx_active{envoy_http_conn_manager_prefix="inbound_grpc"}`)
		if err == nil && n > 0 {
			err = fmt.Errorf("%v connections", n)
		}
		return err
	})
	e.calleePod.Stop()
	l.after(t, 50)

	// An endpoint that is dead costs a call the time to try another, and no more: nothing of the call has reached it.
	dead := netip.MustParseAddrPort(lab.FreeAddress(t))
	manager.SetEndpoints(mesh.EndpointKey{Service: e.callee.Key, PortName: "grpc"}, []netip.AddrPort{dead, second.at(mesh.FirstMeshPort)})
	l.after(t, 100)
	l.stop()
	if len(l.failed) > 0 {
		t.Errorf("of %d calls failed %v", l.calls, l.failed)
	}
	t.Logf("%d calls", l.calls)
}

func TestAPodWaitsForItsIdentityAndForTheManager(t *testing.T) {
	s := newService(t, "late")
	id := "/late/" + s.Key.Name // which SPIRE does not know yet
	s.ID = spiffeid.RequireFromPath(cluster.TrustDomain, id)
	process := startContacts(t)
	s.Ports = process.ports()
	p := &pod{key: mesh.ProxyKey{Kind: mesh.KindMeshService, NamespacedName: s.Key}, ip: podAddress()}
	p.set(t, s)
	network := lab.StartProxy(t, xdsAt)
	network.Refuse(true)
	o := bootstrapOptions()
	o.XDSAddress = network.Address
	p.start(t, xds.SidecarFiles(s, o)["envoy.yaml"])

	// Envoy's own patience would end after 15 s; that these are not in the config is an invariant of the rendering.
	closed := time.Now().Add(2 * time.Second)
	stays := func() {
		t.Helper()
		lab.Eventually(t, time.Until(closed)+patience, func() error {
			if err := p.ready(t); err == nil {
				t.Fatal("it is ready with nothing")
			}
			if time.Now().Before(closed) {
				return fmt.Errorf("not long enough")
			}
			return nil
		})
	}
	stays()
	network.Refuse(false)
	// So late that with Envoy's own pauses, which grow, the next attempt would be more than 10 s away.
	closed = time.Now().Add(20 * time.Second)
	stays()
	spire.AddUnixEntry(t, agent, id)
	begin := time.Now()
	p.awaitReady(t)
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("ready %s after its identity was there", took)
	}
}

func TestAPortThatNobodyListensOnIsUnavailable(t *testing.T) {
	e := newEdge(t, nil)
	e.process.Stop()
	if err := userInfo(t.Context(), e.client, "user_1"); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v", err)
	}
	e.reach()
	lab.Eventually(t, patience, func() error {
		if err := userInfo(t.Context(), e.client, "user_1"); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "no healthy upstream") {
			return fmt.Errorf("without endpoints: got %s", status.Convert(err).Message())
		}
		return nil
	})
	// The process is not in the network: its port is on loopback alone.
	if conn, err := net.Dial("tcp", e.calleePod.at(e.process.port).String()); err == nil {
		_ = conn.Close()
		t.Error("the process can be reached around its proxy")
	}
}
