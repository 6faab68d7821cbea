package xds_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"sigs.k8s.io/yaml"

	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/xds"
)

// All proxies are on one machine, so that what a pod binds on all of its addresses is bound on one here. Nothing else of
// what is rendered is changed.
func rebind(r xds.Resources, ip string) {
	for _, l := range r.Listeners {
		rebindListener(l, ip)
	}
	for _, c := range r.Clusters {
		if c.GetName() == "ready" { // where the gateway asks its own listeners
			for _, endpoint := range c.GetLoadAssignment().GetEndpoints()[0].GetLbEndpoints() {
				endpoint.GetEndpoint().GetAddress().GetSocketAddress().Address = ip
			}
		}
	}
}

func rebindListener(l *listenerv3.Listener, ip string) {
	all := []*corev3.Address{l.GetAddress()}
	for _, additional := range l.GetAdditionalAddresses() {
		all = append(all, additional.GetAddress())
	}
	for _, address := range all {
		if socket := address.GetSocketAddress(); socket.GetAddress() == "0.0.0.0" {
			socket.Address = ip
		}
	}
}

// rebindBootstrap does the same in a bootstrap, and to the admin endpoint, which is on the pod's loopback.
func rebindBootstrap(t *testing.T, text, ip string) string {
	t.Helper()
	var bootstrap any
	if err := yaml.Unmarshal([]byte(text), &bootstrap); err != nil {
		t.Fatal(err)
	}
	walk(bootstrap, func(object map[string]any) {
		port, _ := object["port_value"].(float64)
		if object["address"] == "0.0.0.0" || object["address"] == "127.0.0.1" && port == mesh.AdminPort {
			object["address"] = ip
		}
	})
	rebound, err := yaml.Marshal(bootstrap)
	if err != nil {
		t.Fatal(err)
	}
	return string(rebound)
}

func walk(value any, visit func(map[string]any)) {
	switch value := value.(type) {
	case map[string]any:
		visit(value)
		for _, inner := range value {
			walk(inner, visit)
		}
	case []any:
		for _, inner := range value {
			walk(inner, visit)
		}
	}
}

// get asks for a page on a connection of its own.
func get(url string) (status int, body string, err error) {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close() //nolint:errcheck // read to the end
	text, err := io.ReadAll(answer.Body)
	return answer.StatusCode, strings.TrimSpace(string(text)), err
}
