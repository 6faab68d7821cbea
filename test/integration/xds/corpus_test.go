package xds_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/corpus"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/xds"
)

// identified are the SPIFFE IDs of the corpus that SPIRE knows.
var identified = map[spiffeid.ID]bool{}

// What a proxy makes of every bootstrap and every set of resources that the corpus has: it loads them, accepts them all,
// and takes calls. Its neighbours are not there.
func TestEveryCaseOfTheCorpusIsLoadedByAProxy(t *testing.T) {
	corpus.Each(t, func(t *testing.T, c corpus.Case) {
		m, _ := mesh.Build(c.Objects)
		var started []*pod
		for _, s := range m.Services {
			if s.DataPlane == meshv1alpha1.DataPlaneSidecar {
				p := &pod{key: mesh.ProxyKey{Kind: mesh.KindMeshService, NamespacedName: s.Key}, ip: podAddress()}
				p.load(t, s.ID, xds.Sidecar(s), xds.SidecarFiles(s, bootstrapOptions()))
				started = append(started, p)
			}
		}
		for _, g := range m.Gateways {
			p := &pod{key: mesh.ProxyKey{Kind: mesh.KindMeshGateway, NamespacedName: g.Key}, ip: podAddress()}
			p.load(t, g.ID, xds.Gateway(g), xds.GatewayFiles(g, bootstrapOptions()))
			started = append(started, p)
		}
		for _, p := range started {
			p.awaitReady(t)
		}
	})
}

// load starts a proxy with what was rendered.
func (p *pod) load(t *testing.T, id spiffeid.ID, r xds.Resources, files map[string]string) {
	t.Helper()
	if !identified[id] {
		identified[id] = true
		spire.AddUnixEntry(t, agent, id.Path())
	}
	dir := t.TempDir()
	d, secrets := door{tls: filepath.Join(dir, "tls")}, map[int32]map[string][]byte{}
	for port := range int32(mesh.GatewayPorts) {
		secrets[mesh.FirstGatewayPort+port] = newCertificate(t, 1)
	}
	d.mount(t, secrets)
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.ReplaceAll(text, mesh.TLSDir, filepath.Join(dir, "tls"))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, l := range r.Listeners {
		refile(t, l, dir)
		// The ports of dependencies are those of the corpus: somebody else's on this machine's loopback.
		if address := l.GetAddress().GetSocketAddress(); address.GetAddress() == "127.0.0.1" {
			address.Address = p.ip
		}
	}
	p.serve(t, id, r)
	t.Cleanup(func() { manager.Remove(p.key) })
	p.start(t, files["envoy.yaml"])
}
