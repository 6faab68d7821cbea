package mesh_test

import (
	"fmt"
	"testing"

	"github.com/jia-app/paymesh/internal/mesh"
)

// BenchmarkBuildAtOneGateway is what one key costs whose gateway is shared by so many services, each with a descriptor set
// of about 100 KB: a change of one of them has each of the others built again.
func BenchmarkBuildAtOneGateway(b *testing.B) {
	for _, services := range []int{10, 100, 300} {
		e := newEdge(b)
		for i := range services {
			e.add("pay", fmt.Sprintf("s%d", i), int64(i), fmt.Sprintf("h%d.example.com", i), descriptorsWith(200, fmt.Sprintf("/v1/s%d/{id}", i)))
		}
		b.Run(fmt.Sprintf("services=%d", services), func(b *testing.B) { build(b, e, services) })
	}
}

// BenchmarkBuildBesideStrangers is what one key costs at whose gateway a namespace that no route admits wants to be exposed.
func BenchmarkBuildBesideStrangers(b *testing.B) {
	for _, strangers := range []int{0, 50, 200} {
		e := newEdge(b)
		e.add("pay", "pay", 1000, shop, descriptorsWith(200, "/v1/a"))
		for i := range strangers {
			e.add("strangers", fmt.Sprintf("s%d", i), 2000, shop, descriptorsWith(1900, fmt.Sprintf("/v1/s%d", i)))
		}
		b.Run(fmt.Sprintf("strangers=%d", strangers), func(b *testing.B) { build(b, e, 1) })
	}
}

func build(b *testing.B, e *edge, routes int) {
	b.Helper()
	b.ReportAllocs()
	e.Asked = mesh.ProxyKey{Kind: mesh.KindMeshGateway, NamespacedName: publicGateway}
	mesh.Build(e.Objects) // what has not changed has been read before
	for b.Loop() {
		m, problems := mesh.Build(e.Objects)
		if g, ok := m.Gateway(publicGateway); !ok || len(g.Routes) != routes {
			b.Fatalf("%d routes, %v", len(g.Routes), problems)
		}
	}
}
