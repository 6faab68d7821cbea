package workload_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/jia-app/paymesh/internal/corpus"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/workload"
)

// options are those of the golden files.
var options = workload.Options{
	ProxyImage:          "paymesh/envoy:test",
	ManagerNamespace:    "paymesh-system",
	ManagerLabels:       map[string]string{"app.kubernetes.io/name": "paymesh", "app.kubernetes.io/component": "manager"},
	WorkloadAPIHostPath: "/run/spire/agent-sockets",
	WorkloadAPISocket:   "spire-agent.sock",
}

// proxyFiles stand for what the xDS stage renders, which has goldens of its own.
var proxyFiles = map[string]string{"envoy.yaml": "# of the xDS stage\n"}

// output is what a golden file holds of a case: the objects of each service and gateway, and what keeps others back.
type output struct {
	Objects  []workload.Object `json:"objects,omitempty"`
	Problems []mesh.Problem    `json:"problems,omitempty"`
}

func render(m mesh.Mesh) output { return renderWith(m, options) }

func renderWith(m mesh.Mesh, o workload.Options) output {
	var out output
	add := func(objects []workload.Object, problems []mesh.Problem) {
		out.Objects, out.Problems = append(out.Objects, objects...), append(out.Problems, problems...)
	}
	for _, service := range m.Services {
		add(workload.Service(service, proxyFiles, o))
	}
	for _, gateway := range m.Gateways {
		add(workload.Gateway(gateway, proxyFiles, o))
	}
	return out
}

func TestTheGoldenObjectsOfEveryCase(t *testing.T) {
	corpus.Each(t, func(t *testing.T, c corpus.Case) {
		m, _ := mesh.Build(c.Objects)
		c.Golden(t, "workload.yaml", render(m))
	})
}

func TestTheSameBytesOfTheSameObjectsInAnyOrder(t *testing.T) {
	corpus.Each(t, func(t *testing.T, c corpus.Case) {
		m, _ := mesh.Build(c.Objects)
		want := text(t, render(m))
		for seed := range uint64(10) {
			m, _ := mesh.Build(c.Shuffled(seed))
			if diff := cmp.Diff(want, text(t, render(m))); diff != "" {
				t.Fatalf("seed %d (-in order +shuffled):\n%s", seed, diff)
			}
		}
	})
}
