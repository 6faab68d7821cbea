// Package xds_test holds what internal/xds renders against real Envoys with SPIRE's certificates, fed by the manager's own
// xDS server.
package xds_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/xds"
	"github.com/jia-app/paymesh/internal/xds/server"
	"github.com/jia-app/paymesh/test/lab"
)

// patience is how long a test waits for what should take milliseconds.
const patience = 20 * time.Second

// The parts that all tests share. Each test has objects and addresses of its own.
var (
	api     *lab.APIServer
	spire   *lab.SPIREServer
	agent   *lab.Agent
	cluster mesh.ClusterID
	manager *server.Server
	xdsAt   string
)

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard()) // else it complains
	lab.Main(m, func(t lab.T) {
		api = lab.StartAPIServer(t)
		spire = lab.StartSPIREServer(t, lab.SPIREOptions{APIServer: api})
		agent = spire.StartAgent(t, api.CreateNode(t, "node-1"))
		var err error
		if cluster, err = mesh.NewClusterID(lab.TrustDomain, lab.ClusterName); err != nil {
			t.Fatalf("name the cluster: %v", err)
		}
		spire.AddUnixEntry(t, agent, cluster.OperatorID().Path())
		startManager(t)
	})
}

// startManager serves xDS with the operator's identity.
func startManager(t lab.T) {
	ctx, cancel := context.WithCancel(context.Background())
	xdsAt = lab.FreeAddress(t)
	manager = server.New(server.Options{
		Address: xdsAt, Source: sourceOf(t, cluster.OperatorID()), Cluster: cluster,
		Log: funcr.New(func(prefix, args string) { t.Logf("%s %s", prefix, args) }, funcr.Options{}),
	})
	done := make(chan error, 1)
	go func() { done <- manager.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Logf("serve xDS: %v", err)
		}
	})
}

// sourceOf waits for the agent to give this process the identity.
func sourceOf(t lab.T, id spiffeid.ID) *workloadapi.X509Source {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	client := workloadapi.WithClientOptions(workloadapi.WithAddr(agent.WorkloadAPI))
	var source *workloadapi.X509Source
	lab.Eventually(t, patience, func() (err error) {
		if source, err = workloadapi.NewX509Source(ctx, client, workloadapi.WithDefaultX509SVIDPicker(func(svids []*x509svid.SVID) *x509svid.SVID {
			for _, svid := range svids {
				if svid.ID == id {
					return svid
				}
			}
			return svids[0]
		})); err != nil {
			return err
		}
		svid, err := source.GetX509SVID()
		if err == nil && svid.ID != id {
			_ = source.Close()
			err = fmt.Errorf("the agent gives %s and not %s yet", svid.ID, id)
		}
		return err
	})
	t.Cleanup(func() { _ = source.Close() })
	return source
}

// addresses hands out loopback addresses: each proxy has one, as a pod has. Other tests on this machine have others.
var addresses = func() *atomic.Uint32 {
	var next atomic.Uint32
	next.Store(127<<24 | (1+rand.Uint32N(250))<<16 | rand.Uint32N(250)<<8)
	return &next
}()

func podAddress() string {
	n := addresses.Add(1)
	if n%256 == 0 || n%256 == 255 {
		return podAddress()
	}
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}).String()
}

func freePort(t lab.T) int32 { return int32(lab.FreePort(t)) }

// pod is a proxy with an address of its own.
type pod struct {
	*lab.Envoy
	key mesh.ProxyKey
	ip  string
}

// newService is a MeshService with an identity in SPIRE. Names differ from run to run, since the manager is shared.
func newService(t *testing.T, name string) mesh.Service {
	t.Helper()
	key := types.NamespacedName{Namespace: "test", Name: name + "-" + fmt.Sprint(rand.Uint32N(1e6))}
	return mesh.Service{Key: key, ID: entry(t, "/"+key.Name), Trusted: true}
}

func entry(t *testing.T, path string) spiffeid.ID {
	t.Helper()
	spire.AddUnixEntry(t, agent, path)
	return spiffeid.RequireFromPath(cluster.TrustDomain, path)
}

// startSidecar starts the proxy of a service and tells the manager of the service.
func startSidecar(t *testing.T, s mesh.Service) *pod {
	t.Helper()
	p := &pod{key: mesh.ProxyKey{Kind: mesh.KindMeshService, NamespacedName: s.Key}, ip: podAddress()}
	p.set(t, s)
	files := xds.SidecarFiles(s, bootstrapOptions())
	p.start(t, files["envoy.yaml"])
	return p
}

func bootstrapOptions() xds.BootstrapOptions {
	return xds.BootstrapOptions{Cluster: cluster, XDSAddress: xdsAt, WorkloadAPI: agent.WorkloadAPI}
}

// set has the manager serve what is rendered of the service.
func (p *pod) set(t *testing.T, s mesh.Service) {
	t.Helper()
	p.serve(t, s.ID, xds.Sidecar(s))
}

func (p *pod) serve(t *testing.T, id spiffeid.ID, r xds.Resources) {
	t.Helper()
	rebind(r, p.ip)
	if err := manager.Set(p.key, id, r); err != nil {
		t.Fatal(err)
	}
}

func (p *pod) start(t *testing.T, bootstrap string) {
	t.Helper()
	p.Envoy = lab.StartEnvoy(t, lab.EnvoyOptions{
		Bootstrap: rebindBootstrap(t, bootstrap, p.ip), Node: p.key.NodeID("pod"), Cluster: p.key.NamespacedName.String(),
		Admin: fmt.Sprintf("%s:%d", p.ip, mesh.AdminPort),
		// Listeners that go are drained for so long.
		Arguments: []string{"--drain-time-s", "3"},
	})
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the log of %s:\n%s", p.key, p.Log())
		}
	})
}

// awaitSynced waits until the proxy has accepted everything, and fails at once where it rejects something.
func (p *pod) awaitSynced(t *testing.T) {
	t.Helper()
	lab.Eventually(t, patience, func() error {
		proxies := manager.Proxies(p.key)
		if len(proxies) != 1 {
			return fmt.Errorf("%d proxies of %s are connected; the end of its log:\n%s", len(proxies), p.key, p.Log())
		}
		if nack := proxies[0].NACK; nack != nil {
			t.Fatalf("%s rejects %s %q: %s", p.key, nack.TypeURL, nack.Resources, nack.Message)
		}
		if !proxies[0].Synced {
			return fmt.Errorf("%s has not accepted everything", p.key)
		}
		return nil
	})
}

// awaitReady waits for what the kubelet's probes ask.
func (p *pod) awaitReady(t *testing.T) {
	t.Helper()
	p.awaitSynced(t)
	lab.Eventually(t, patience, func() error { return p.ready(t) })
}

// at is the address of a port of the proxy.
func (p *pod) at(port int32) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(p.ip), uint16(port))
}
