package server

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/xds"
)

// order is that of sending: what is named comes before what names it. No other type is served.
var order = []string{resource.ClusterType, resource.EndpointType, resource.ListenerType, resource.RouteType}

// judged are the types that a proxy has to accept to be synced. Endpoints change too often to be waited for.
var judged = []string{resource.ClusterType, resource.ListenerType, resource.RouteType}

// entry is a resource as it goes over the wire: marshalled once, whoever gets it.
type entry struct {
	version string
	body    *anypb.Any
}

// table is the resources of one type, by name.
type table map[string]entry

// contents are the resources of an object's proxies, by type URL.
type contents map[string]table

// message is what every xDS resource is, with the bounds that its proto declares.
type message interface {
	proto.Message
	ValidateAll() error
}

// newEntry marshals a resource. Its version is the hash of its bytes, so that all replicas give the same.
func newEntry(m proto.Message) (entry, error) {
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return entry{}, err
	}
	sum := sha256.Sum256(value)
	body := &anypb.Any{TypeUrl: resource.APITypePrefix + string(m.ProtoReflect().Descriptor().FullName()), Value: value}
	return entry{version: hex.EncodeToString(sum[:mesh.VersionBytes]), body: body}, nil
}

// add puts a resource into the table.
func (t table) add(name string, m message) error {
	if name == "" {
		return fmt.Errorf("a %s has no name", m.ProtoReflect().Descriptor().Name())
	}
	if _, twice := t[name]; twice {
		return fmt.Errorf("%s %q is there twice", m.ProtoReflect().Descriptor().Name(), name)
	}
	if err := m.ValidateAll(); err != nil {
		return fmt.Errorf("%s %q: %w", m.ProtoReflect().Descriptor().Name(), name, err)
	}
	e, err := newEntry(m)
	if err != nil {
		return fmt.Errorf("%s %q: %w", m.ProtoReflect().Descriptor().Name(), name, err)
	}
	t[name] = e
	return nil
}

// fits says whether a proxy that has all of it can come again: it names all that it has in one request.
func (t table) fits() error { return fit(len(t), maps.Keys(t)) }

func fit(count int, names iter.Seq[string]) error {
	size := 0
	for name := range names {
		size += mesh.NamedSize(len(name))
	}
	if count > mesh.MaxNamed || size > mesh.MaxNamedBytes {
		return fmt.Errorf("%d resources of one type, with names of %d bytes: a proxy may have %d, of %d bytes", count, size, mesh.MaxNamed, mesh.MaxNamedBytes)
	}
	return nil
}

// versions are those of the table's resources, by name.
func (t table) versions() map[string]string {
	versions := make(map[string]string, len(t))
	for name, e := range t {
		versions[name] = e.version
	}
	return versions
}

// version is one for the whole table.
func (t table) version() string {
	hash := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(t)) {
		fmt.Fprintf(hash, "%q %s\n", name, t[name].version)
	}
	return hex.EncodeToString(hash.Sum(nil)[:mesh.VersionBytes])
}

// newContents turns what was rendered into tables, all but the endpoints. It refuses what would hang a proxy: a cluster
// whose endpoints, or a listener whose routes, nobody would ever answer for.
func newContents(r xds.Resources) (contents, error) {
	listeners, routes, clusters := table{}, table{}, table{}
	items := map[string]types.ResourceWithTTL{}
	for i, l := range r.Listeners {
		if err := listeners.add(l.GetName(), l); err != nil {
			return nil, err
		}
		items[fmt.Sprint("listener ", i)] = types.ResourceWithTTL{Resource: l}
	}
	for _, c := range r.Routes {
		if err := routes.add(c.GetName(), c); err != nil {
			return nil, err
		}
	}
	for i, c := range r.Clusters {
		if err := clusters.add(c.GetName(), c); err != nil {
			return nil, err
		}
		items[fmt.Sprint("cluster ", i)] = types.ResourceWithTTL{Resource: c}
	}
	endpoints := map[string]bool{}
	for _, ref := range r.Endpoints {
		endpoints[ref.Name] = true
	}
	wanted := cache.GetResourceReferences(items)
	for _, name := range slices.Sorted(maps.Keys(wanted[resource.EndpointType])) {
		if !endpoints[name] {
			return nil, fmt.Errorf("a cluster asks for the endpoints %q, which are not among the rendered ones: its proxy would wait for ever", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(wanted[resource.RouteType])) {
		if _, ok := routes[name]; !ok {
			return nil, fmt.Errorf("a listener asks for the routes %q, which are not among the rendered ones: its proxy would wait for ever", name)
		}
	}
	for _, t := range []table{listeners, routes, clusters} {
		if err := t.fits(); err != nil {
			return nil, err
		}
	}
	if err := fit(len(endpoints), maps.Keys(endpoints)); err != nil {
		return nil, err
	}
	return contents{resource.ClusterType: clusters, resource.ListenerType: listeners, resource.RouteType: routes}, nil
}

// wanted are the versions that a proxy has to accept, by type URL and name.
type wanted map[string]map[string]string

func (c contents) wanted() wanted {
	w := wanted{}
	for typeURL, t := range c {
		w[typeURL] = t.versions()
	}
	return w
}

// judged are the wanted versions of the types that count. They never change, where those of endpoints do.
func (w wanted) judged() wanted {
	of := wanted{}
	for _, typeURL := range judged {
		of[typeURL] = w[typeURL]
	}
	return of
}
