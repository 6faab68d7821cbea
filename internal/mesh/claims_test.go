package mesh

import (
	"fmt"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
)

// Many may want much that they do not get: a crowd of small objects must not make as many claims as it has paths and host names.
func TestOnlyWhatIsRecordedOrGrantedIsKeptAsAClaim(t *testing.T) {
	g := &gateway{Gateway: Gateway{Key: types.NamespacedName{Namespace: "edge", Name: "public"}}}
	wants := func(name string, recorded map[servedAt]bool) *candidate {
		s := &service{object: &meshv1alpha1.MeshService{}, recorded: recorded}
		s.Key = types.NamespacedName{Namespace: "pay", Name: name}
		c := &candidate{gateway: g, service: s, exposure: &meshv1alpha1.Exposure{}, route: Route{Service: s.Key, GRPC: true}}
		for i := range 16 {
			c.route.Hostnames = append(c.route.Hostnames, fmt.Sprintf("h%d.example.com", i))
			c.route.Methods = append(c.route.Methods, Method{Service: "t." + name, Name: fmt.Sprintf("M%d", i)})
		}
		c.wants = c.route.wants()
		return c
	}
	first, second := wants("First", nil), wants("Second", nil)
	served := wants("Served", map[servedAt]bool{{host{g.Key, "h0.example.com"}, "POST /t.Served/M0"}: true})
	all := newPathClaims([]*candidate{first, second, served})
	count := func() int {
		kept := 0
		var walk func(at *patterns)
		walk = func(at *patterns) {
			kept += len(at.here)
			for _, next := range at.next {
				walk(next)
			}
		}
		for _, at := range all {
			walk(at)
		}
		return kept
	}
	if got := count(); got != 1 {
		t.Errorf("before anything is granted %d claims are kept", got)
	}
	all.grant(first)
	if got := count(); got != 1+16*16 {
		t.Errorf("with one that is granted %d claims are kept", got)
	}
	all.grant(served)
	if got := count(); got != 2*16*16 {
		t.Errorf("with another, of which one is on record, %d claims are kept", got)
	}
}
