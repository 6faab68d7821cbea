package xds_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/workload"
	"github.com/jia-app/paymesh/internal/xds"
	"github.com/jia-app/paymesh/test/lab"
	"github.com/jia-app/paymesh/test/tokens"
)

// probes are the startup and the readiness probe that the rendered Deployment of such an object has.
func probes(t *testing.T, kind string) []*corev1.HTTPGetAction {
	t.Helper()
	objects, problems := workload.Service(mesh.Service{DataPlane: "Sidecar"}, nil, workload.Options{})
	if kind == mesh.KindMeshGateway {
		objects, problems = workload.Gateway(mesh.Gateway{}, nil, workload.Options{})
	}
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, object := range objects {
		deployment, ok := object.(*appsv1.Deployment)
		if !ok {
			continue
		}
		spec := deployment.Spec.Template.Spec
		for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
			if c.Name == workload.ContainerProxy {
				return []*corev1.HTTPGetAction{c.StartupProbe.HTTPGet, c.ReadinessProbe.HTTPGet}
			}
		}
	}
	t.Fatal("the Deployment has no proxy")
	return nil
}

// ready asks as the kubelet does: from the node, on a connection of its own, without looking at certificates.
func (p *pod) ready(t *testing.T) error {
	t.Helper()
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	for _, probe := range probes(t, p.key.Kind) {
		url := fmt.Sprintf("%s://%s%s", strings.ToLower(string(probe.Scheme)), p.at(probe.Port.IntVal), probe.Path)
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range probe.HTTPHeaders {
			if request.Header.Set(h.Name, h.Value); h.Name == "Host" {
				request.Host = h.Value
			}
		}
		answer, err := client.Do(request)
		if err != nil {
			return err
		}
		body, _ := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answers %d %s", url, answer.StatusCode, body)
		}
	}
	return nil
}

// awaitRejected waits until the manager knows that the proxy has rejected something.
func (p *pod) awaitRejected(t *testing.T) {
	t.Helper()
	lab.Eventually(t, patience, func() error {
		if proxies := manager.Proxies(p.key); len(proxies) != 1 || proxies[0].NACK == nil {
			return fmt.Errorf("nothing is rejected: %+v", proxies)
		}
		return nil
	})
}

// spoil puts a route among them that only a proxy finds fault with.
func spoil(routes *routev3.RouteConfiguration) {
	hosts := routes.GetVirtualHosts()
	hosts[0].Routes = append(hosts[0].Routes, &routev3.Route{
		Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: "/a(b"}}},
		Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: 200}},
	})
}

func TestAProxyThatHasRejectedItsRoutesIsNotReadyUntilItTakesOthers(t *testing.T) {
	callee, onlyCalls := newService(t, "callee"), newService(t, "only-calls")
	callee.Ports = startContacts(t).ports()
	onlyCalls.Upstreams = []mesh.Upstream{dependency(t, callee)}
	manager.SetEndpoints(mesh.EndpointKey{Service: callee.Key, PortName: "grpc"}, nil)
	for _, s := range []mesh.Service{callee, onlyCalls} {
		r := xds.Sidecar(s)
		spoil(r.Routes[0])
		p := &pod{key: mesh.ProxyKey{Kind: mesh.KindMeshService, NamespacedName: s.Key}, ip: podAddress()}
		p.serve(t, s.ID, r)
		p.start(t, xds.SidecarFiles(s, bootstrapOptions())["envoy.yaml"])
		p.awaitRejected(t)
		p.staysUnready(t)
		p.set(t, s)
		p.awaitReady(t)
	}
	d := &door{issuer: tokens.NewIssuer(t, issuer, audience), dir: t.TempDir()}
	d.gateway = mesh.Gateway{
		Key: newService(t, "gateway").Key, Listeners: []mesh.GatewayListener{{Name: "https", Port: 443, TargetPort: mesh.FirstGatewayPort, SecretName: "tls"}},
		JWT: []mesh.JWTProvider{{Name: "users", Issuer: issuer, Audiences: []string{audience}, JWKS: string(d.issuer.Keys())}},
	}
	d.gateway.ID = entry(t, "/door/"+d.gateway.Key.Name)
	d.launch(t, map[int32]map[string][]byte{mesh.FirstGatewayPort: newCertificate(t, 1)}, func(r xds.Resources) { spoil(r.Routes[0]) })
	d.pod.awaitRejected(t)
	d.pod.staysUnready(t)
	d.set(t)
	d.pod.awaitReady(t)
}

func TestAGatewayWhoseCertificateCannotWorkIsNotReadyUntilAnotherDoes(t *testing.T) {
	d := &door{dir: t.TempDir()}
	d.gateway = mesh.Gateway{Key: newService(t, "gateway").Key, Listeners: []mesh.GatewayListener{{Name: "https", Port: 443, TargetPort: mesh.FirstGatewayPort, SecretName: "tls"}}}
	d.gateway.ID = entry(t, "/door/"+d.gateway.Key.Name)
	secret := newCertificate(t, 1)
	secret["tls.key"] = newCertificate(t, 2)["tls.key"]
	d.launch(t, map[int32]map[string][]byte{mesh.FirstGatewayPort: secret}, nil)
	d.pod.awaitSynced(t)
	d.pod.staysUnready(t)
	d.writeSecret(t, newCertificate(t, 3))
	d.pod.awaitReady(t)
	d.writeSecret(t, secret)
	for begin := time.Now(); time.Since(begin) < time.Second; { // what works is kept
		if err := d.pod.ready(t); err != nil {
			t.Fatal(err)
		}
	}
	for _, line := range d.pod.AccessLog() {
		t.Errorf("what the kubelet asks is logged: %v", line)
	}
	if got := d.call(t, "GET", "https://"+mesh.ReadyHost+"/v1/payments", ""); got.status != 404 {
		t.Errorf("beside the probe the host answers %d %s", got.status, got.body)
	}
}

// staysUnready watches for two seconds.
func (p *pod) staysUnready(t *testing.T) {
	t.Helper()
	for begin := time.Now(); time.Since(begin) < 2*time.Second; {
		if p.ready(t) == nil {
			t.Fatalf("%s is ready", p.key)
		}
	}
}

// launch starts a gateway with these Secrets, and with what change makes of its resources.
func (d *door) launch(t *testing.T, secrets map[int32]map[string][]byte, change func(xds.Resources)) {
	t.Helper()
	d.pod = &pod{key: mesh.ProxyKey{Kind: mesh.KindMeshGateway, NamespacedName: d.gateway.Key}, ip: podAddress()}
	d.tls = filepath.Join(d.dir, "tls")
	d.mount(t, secrets)
	files := xds.GatewayFiles(d.gateway, bootstrapOptions())
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(d.dir, name), []byte(strings.ReplaceAll(text, mesh.TLSDir, filepath.Join(d.dir, "tls"))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d.setChanged(t, change)
	d.pod.start(t, files["envoy.yaml"])
}
