package mesh_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
)

// crowd is an edge whose services come, go and are edited at random.
type crowd struct {
	*edge
	*rand.Rand
}

// descriptors have six methods, of which some have a path that others want, too.
func (c *crowd) descriptors(t *testing.T, name string) []byte {
	t.Helper()
	var paths []string
	for i := range 6 {
		if c.IntN(4) == 0 {
			paths = append(paths, fmt.Sprintf("/v1/x%d", i))
		} else {
			paths = append(paths, fmt.Sprintf("/v1/%s/m%d", name, i))
		}
	}
	return ballast(t, descriptorsWith(0, paths...), c.IntN(40), strings.Repeat("U", 40))
}

// expose gives a service one or two exposures.
func (c *crowd) expose(s *meshv1alpha1.MeshService) {
	s.Spec.Expose = nil
	for i := range 1 + c.IntN(2) {
		x := meshv1alpha1.Exposure{
			Name:    meshv1alpha1.ItemName(fmt.Sprintf("e%d%d", i, c.IntN(2))),
			Gateway: meshv1alpha1.ObjectReference{Name: meshv1alpha1.ObjectName([]string{"public", "second"}[c.IntN(5)/4]), Namespace: "edge"}, Auth: meshv1alpha1.ExposureAuth{JWT: "users"},
			Hostnames: []meshv1alpha1.Hostname{"h0.example.com"}, Methods: []meshv1alpha1.ExactMethod{meshv1alpha1.ExactMethod(fmt.Sprintf("t.S/M%d", i))}, Transcode: true,
		}
		for j := range 2 {
			if c.IntN(2) == 0 {
				x.Hostnames = append(x.Hostnames, meshv1alpha1.Hostname(fmt.Sprintf("h%d.example.com", j+1)))
			}
		}
		for j := i + 2; j < 6; j += 2 {
			if c.IntN(3) > 0 {
				x.Methods = append(x.Methods, meshv1alpha1.ExactMethod(fmt.Sprintf("t.S/M%d", j)))
			}
		}
		if c.IntN(3) == 0 {
			x.Protocols = []meshv1alpha1.NativeProtocol{meshv1alpha1.NativeGRPC}
		}
		s.Spec.Expose = append(s.Spec.Expose, x)
	}
}

// edit has something become of a service, and says what.
func (c *crowd) edit(t *testing.T, name string) string {
	t.Helper()
	s := c.service(name)
	switch {
	case s == nil:
		c.expose(c.add("pay", name, int64(1000+c.IntN(5)), shop, c.descriptors(t, name)))
		return "add " + name
	case c.IntN(6) == 0:
		c.Services = slices.DeleteFunc(c.Services, func(o meshv1alpha1.MeshService) bool { return o.Name == name })
		c.Identities = slices.DeleteFunc(c.Identities, func(o meshv1alpha1.ServiceIdentity) bool { return o.Name == name })
		for i := range c.ConfigMaps {
			if c.ConfigMaps[i].Name == name {
				c.ConfigMaps = slices.Delete(c.ConfigMaps, i, i+1)
				break
			}
		}
		return "delete " + name
	case c.IntN(2) == 0:
		for i := range c.ConfigMaps {
			if c.ConfigMaps[i].Name == name {
				c.ConfigMaps[i].BinaryData = map[string][]byte{"k": c.descriptors(t, name)}
			}
		}
		return "descriptors of " + name
	}
	c.expose(s)
	return "exposures of " + name
}

// exposed are the exposures that the gateways serve, and what the others are told; the leader has recorded it then.
func (e *edge) exposed(t *testing.T) (on map[string]bool, told string) {
	t.Helper()
	m, problems := mesh.Build(e.Objects)
	on, at := map[string]bool{}, map[string]string{}
	for _, g := range m.Gateways {
		for _, route := range g.Routes {
			on[route.Service.Name+"/"+route.Name] = true
			for _, h := range route.Hostnames {
				for _, method := range route.Methods {
					for _, binding := range method.Bindings {
						where := g.Key.Name + " " + h + " " + binding.Template.String()
						if other := at[where]; other != "" && other != route.Service.Name {
							t.Errorf("two are served at %s: %s and %s", where, other, route.Service.Name)
						}
						at[where] = route.Service.Name
					}
				}
			}
		}
	}
	for i := range e.Services {
		object := &e.Services[i]
		if service, ok := m.Service(types.NamespacedName{Namespace: object.Namespace, Name: object.Name}); ok {
			object.Status.Exposures = service.Exposures
		}
	}
	for _, problem := range problems {
		told += problem.String() + "\n"
	}
	return on, told
}

func TestNobodyLosesAnExposureByTheEditOfAnother(t *testing.T) {
	names := []string{"a", "b", "c", "d", "e"}
	for seed := range uint64(50) {
		c := &crowd{newEdge(t), rand.New(rand.NewPCG(seed, 4))}
		c.addGateway("second")
		var log []string
		for range 14 {
			before, _ := c.exposed(t)
			name := names[c.IntN(len(names))]
			log = append(log, c.edit(t, name))
			for round := range 3 { // with what was recorded of the one before
				after, told := c.exposed(t)
				for one := range before {
					if !after[one] && !strings.HasPrefix(one, name+"/") {
						t.Fatalf("seed %d, %v, round %d: %s has lost; told %s", seed, log, round, one, told)
					}
				}
				if round > 0 && len(after) < len(before) {
					t.Fatalf("seed %d, %v, round %d: %v, and before that %v", seed, log, round, slices.Sorted(maps.Keys(after)), slices.Sorted(maps.Keys(before)))
				}
				before = after
				name = "nobody's"
			}
		}
	}
}
