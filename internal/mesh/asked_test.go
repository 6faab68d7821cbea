package mesh_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/jia-app/paymesh/internal/corpus"
	"github.com/jia-app/paymesh/internal/descriptor"
	"github.com/jia-app/paymesh/internal/mesh"
)

func TestABuildForOneKeySaysOfItWhatABuildForAllDoes(t *testing.T) {
	about := func(t *testing.T, objects mesh.Objects, key mesh.ProxyKey) string {
		t.Helper()
		m, problems := mesh.Build(objects)
		var what struct {
			Service  mesh.Service
			Gateway  mesh.Gateway
			Problems []mesh.Problem
		}
		if key.Kind == mesh.KindMeshService {
			what.Service, _ = m.Service(key.NamespacedName)
		} else {
			what.Gateway, _ = m.Gateway(key.NamespacedName)
		}
		what.Problems = slices.DeleteFunc(problems, func(p mesh.Problem) bool { return p.Kind != key.Kind || p.Object != key.NamespacedName })
		text, err := yaml.Marshal(what)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	corpus.Each(t, func(t *testing.T, c corpus.Case) {
		var keys []mesh.ProxyKey
		for _, object := range c.Objects.Services {
			keys = append(keys, mesh.ProxyKey{Kind: mesh.KindMeshService, NamespacedName: types.NamespacedName{Namespace: object.Namespace, Name: object.Name}})
		}
		for _, object := range c.Objects.Gateways {
			keys = append(keys, mesh.ProxyKey{Kind: mesh.KindMeshGateway, NamespacedName: types.NamespacedName{Namespace: object.Namespace, Name: object.Name}})
		}
		for _, key := range keys {
			want := about(t, c.Objects, key)
			asked := c.Objects
			asked.Asked = key
			if diff := cmp.Diff(want, about(t, asked, key)); diff != "" {
				t.Errorf("%s (-for all +for it):\n%s", key, diff)
			}
		}
	})
}

func TestADescriptorSetIsReadOnlyForItsServiceAndForARouteThatIsServed(t *testing.T) {
	e := newEdge(t)
	sets := map[string][]byte{}
	for _, service := range []struct{ namespace, name string }{{"pay", "served"}, {"strangers", "unadmitted"}, {"pay", "callee"}} {
		sets[service.name] = descriptorsWith(1, "/v1/only-here/"+service.name)
		e.add(service.namespace, service.name, 1000, shop, sets[service.name])
	}
	e.service("callee").Spec.Expose = nil
	for _, test := range []struct {
		asked mesh.ProxyKey
		read  map[string]bool
	}{
		{mesh.ProxyKey{Kind: mesh.KindMeshGateway, NamespacedName: publicGateway}, map[string]bool{"served": true, "unadmitted": false, "callee": false}},
		{
			mesh.ProxyKey{Kind: mesh.KindMeshService, NamespacedName: types.NamespacedName{Namespace: "strangers", Name: "unadmitted"}},
			map[string]bool{"unadmitted": true, "callee": false},
		},
	} {
		e.Asked, e.Descriptors = test.asked, &descriptor.Cache{}
		mesh.Build(e.Objects)
		for name, want := range test.read {
			before := e.Descriptors.Work().Parsed
			if _, err := e.Descriptors.Read(sets[name]); err != nil {
				t.Fatal(err)
			}
			if got := e.Descriptors.Work().Parsed == before; got != want {
				t.Errorf("for %s, the descriptor set of %s was read: %v", test.asked, name, got)
			}
		}
	}
}
