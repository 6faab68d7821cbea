package server

import (
	"maps"
	"slices"
	"testing"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/jia-app/paymesh/internal/corpus"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/xds"
)

func TestEverythingThatIsRenderedIsServedInItsVersions(t *testing.T) {
	corpus.Each(t, func(t *testing.T, c corpus.Case) {
		m, _ := mesh.Build(c.Objects)
		check := func(name string, r xds.Resources) {
			t.Helper()
			of, err := newContents(r)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return
			}
			got := map[string]map[string]string(of.wanted())
			if diff := cmp.Diff(r.Versions(), got); diff != "" {
				t.Errorf("%s: versions (-rendered +served):\n%s", name, diff)
			}
			// A proxy asks only for the routes that a listener names, so that it would never be synced with another.
			items := map[string]types.ResourceWithTTL{}
			for _, l := range r.Listeners {
				items[l.GetName()] = types.ResourceWithTTL{Resource: l}
			}
			asked := slices.Sorted(maps.Keys(cache.GetResourceReferences(items)[resource.RouteType]))
			if diff := cmp.Diff(asked, slices.Sorted(maps.Keys(of[resource.RouteType]))); diff != "" {
				t.Errorf("%s: routes (-asked for +served):\n%s", name, diff)
			}
		}
		for _, s := range m.Services {
			check(s.Key.String(), xds.Sidecar(s))
		}
		for _, g := range m.Gateways {
			check(g.Key.String(), xds.Gateway(g))
		}
	})
}

func TestTheVersionOfATableTellsNamesAndVersions(t *testing.T) {
	one, other := table{"a": {version: "1"}, "b": {version: "2"}}, table{"a": {version: "2"}, "b": {version: "1"}}
	if one.version() == other.version() || one.version() == (table{}).version() {
		t.Error("different tables have one version")
	}
	if one.version() != (table{"b": {version: "2"}, "a": {version: "1"}}).version() {
		t.Error("one table has two versions")
	}
}
