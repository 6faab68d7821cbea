package xds_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/corpus"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/xds"
)

// proxy is what the proxies of one object get.
type proxy struct {
	key       mesh.ProxyKey
	resources xds.Resources
	files     map[string]string
}

// proxies are those of a Mesh: of each service that has a sidecar, and of each gateway.
func proxies(m mesh.Mesh) []proxy {
	o := xds.BootstrapOptions{Cluster: m.Cluster, XDSAddress: "paymesh-manager.paymesh-system.svc:18000", WorkloadAPI: "/run/spire/agent-sockets/spire-agent.sock"}
	var all []proxy
	for _, s := range m.Services {
		if s.DataPlane == meshv1alpha1.DataPlaneSidecar {
			all = append(all, proxy{mesh.ProxyKey{Kind: mesh.KindMeshService, NamespacedName: s.Key}, xds.Sidecar(s), xds.SidecarFiles(s, o)})
		}
	}
	for _, g := range m.Gateways {
		all = append(all, proxy{mesh.ProxyKey{Kind: mesh.KindMeshGateway, NamespacedName: g.Key}, xds.Gateway(g), xds.GatewayFiles(g, o)})
	}
	return all
}

// wholeCase is written down as it is. Elsewhere the parts that hardly differ are hashes: 40,000 lines nobody reads.
const wholeCase = "the-payment-mesh"

// alike are those parts.
var alike = map[string]bool{
	"access_log": true, "local_reply_config": true, "circuit_breakers": true, "outlier_detection": true, "early_header_mutation_extensions": true,
	"typed_extension_protocol_options": true, "retry_policy": true, "sds_config": true, "validation_context_sds_secret_config": true,
	"upstream_bind_config": true, "upstream_connection_options": true, "rds": true, "eds_config": true, "envoy.yaml": true,
	"envoy.filters.http.buffer": true, "shadow_rules": true,
}

// golden is how a proxy is written down.
type golden struct {
	Proxy     string            `json:"proxy"`
	Version   string            `json:"version"`
	Listeners []any             `json:"listeners,omitempty"`
	Routes    []any             `json:"routes,omitempty"`
	Clusters  []any             `json:"clusters,omitempty"`
	Endpoints []xds.EndpointRef `json:"endpoints,omitempty"`
	Files     map[string]any    `json:"files"`
}

func written(t *testing.T, p proxy, whole bool) golden {
	t.Helper()
	one := func(m proto.Message) any {
		value := plain(t, m)
		if !whole {
			shorten(t, value)
		}
		return value
	}
	g := golden{Proxy: p.key.String(), Version: p.resources.Version(), Endpoints: p.resources.Endpoints, Files: map[string]any{}}
	for _, l := range p.resources.Listeners {
		g.Listeners = append(g.Listeners, one(l))
	}
	for _, r := range p.resources.Routes {
		g.Routes = append(g.Routes, one(r))
	}
	for _, c := range p.resources.Clusters {
		g.Clusters = append(g.Clusters, one(c))
	}
	for name, text := range p.files {
		var file any
		if err := yaml.Unmarshal([]byte(text), &file); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		g.Files[name] = file
	}
	if !whole {
		shorten(t, g.Files)
	}
	return g
}

// shorten puts hashes for what is alike, and for the filters of the probe's chain.
func shorten(t *testing.T, value any) {
	t.Helper()
	switch value := value.(type) {
	case map[string]any:
		for name, inner := range value {
			if !alike[name] && (value["name"] != "ready" || name != "filters") {
				shorten(t, inner)
				continue
			}
			text, err := json.Marshal(inner)
			if err != nil {
				t.Fatal(err)
			}
			sum := sha256.Sum256(text)
			value[name] = fmt.Sprintf("SHA-256 %x", sum[:8])
		}
	case []any:
		for _, inner := range value {
			shorten(t, inner)
		}
	}
}

// plain is a message without its type, and with a hash for a descriptor set, which nobody could read.
func plain(t *testing.T, m proto.Message) any {
	t.Helper()
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		t.Fatal(err)
	}
	abridge(value)
	return value
}

func abridge(value any) {
	switch value := value.(type) {
	case map[string]any:
		for name, inner := range value {
			if name == "proto_descriptor_bin" && inner != "" {
				raw, _ := base64.StdEncoding.DecodeString(inner.(string))
				value[name] = fmt.Sprintf("%d bytes, SHA-256 %x", len(raw), sha256.Sum256(raw))
				continue
			}
			abridge(inner)
		}
	case []any:
		for _, inner := range value {
			abridge(inner)
		}
	}
}

func TestTheGoldenResourcesOfEveryCase(t *testing.T) {
	corpus.Each(t, func(t *testing.T, c corpus.Case) {
		m, _ := mesh.Build(c.Objects)
		var all []golden
		for _, p := range proxies(m) {
			all = append(all, written(t, p, c.Name == wholeCase))
		}
		if len(all) > 0 {
			c.Golden(t, "xds.yaml", all)
		}
	})
}

func TestTheSameBytesOfTheSameObjectsInAnyOrder(t *testing.T) {
	corpus.Each(t, func(t *testing.T, c corpus.Case) {
		m, _ := mesh.Build(c.Objects)
		want := proxies(m)
		for seed := range uint64(10) {
			m, _ := mesh.Build(c.Shuffled(seed))
			got := proxies(m)
			if len(got) != len(want) {
				t.Fatalf("seed %d: %d proxies, want %d", seed, len(got), len(want))
			}
			for i := range want {
				if got[i].resources.Version() != want[i].resources.Version() {
					t.Fatalf("seed %d: %s (-in order +shuffled):\n%s", seed, want[i].key, cmp.Diff(written(t, want[i], true), written(t, got[i], true)))
				}
				if diff := cmp.Diff(want[i].files, got[i].files); diff != "" {
					t.Fatalf("seed %d: the files of %s (-in order +shuffled):\n%s", seed, want[i].key, diff)
				}
				if diff := cmp.Diff(want[i].resources.Endpoints, got[i].resources.Endpoints); diff != "" {
					t.Fatalf("seed %d: the endpoints of %s (-in order +shuffled):\n%s", seed, want[i].key, diff)
				}
			}
		}
	})
}
