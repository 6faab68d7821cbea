// Package xds renders what proxies get: a Mesh goes in, listeners, routes, clusters and endpoints come out, and the files
// that a proxy starts with. It is pure: the same Mesh gives the same bytes on every replica.
package xds

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"github.com/jia-app/paymesh/internal/mesh"
)

// Resources are what the proxies of one object get, but for the addresses, which change far more often.
// Each list is sorted by name.
type Resources struct {
	Listeners []*listenerv3.Listener
	Routes    []*routev3.RouteConfiguration
	Clusters  []*clusterv3.Cluster
	// Endpoints are the ClusterLoadAssignments that Clusters ask for.
	Endpoints []EndpointRef
}

// EndpointRef says whose addresses a ClusterLoadAssignment has.
type EndpointRef struct {
	// Name of the ClusterLoadAssignment. It holds a hash of its cluster: Envoy never activates a changed cluster that asks
	// for assignments it has already.
	Name string
	Key  mesh.EndpointKey
}

// Hash is the version of a resource: of its bytes, so that all replicas of the manager give the same.
func Hash(m proto.Message) string {
	sum := sha256.Sum256(marshal(m))
	return hex.EncodeToString(sum[:mesh.VersionBytes])
}

// Versions are those of the resources that a proxy has to accept, by type URL and name. Endpoints are not among them.
func (r Resources) Versions() map[string]map[string]string {
	versions := map[string]map[string]string{}
	add(versions, r.Listeners)
	add(versions, r.Routes)
	add(versions, r.Clusters)
	return versions
}

func add[T interface {
	proto.Message
	GetName() string
}](versions map[string]map[string]string, resources []T) {
	var none T
	of := make(map[string]string, len(resources))
	for _, resource := range resources {
		of[resource.GetName()] = Hash(resource)
	}
	versions[typePrefix+string(none.ProtoReflect().Descriptor().FullName())] = of
}

// Version is one for all of them.
func (r Resources) Version() string {
	hash, versions := sha256.New(), r.Versions()
	for _, typeURL := range slices.Sorted(maps.Keys(versions)) {
		for _, name := range slices.Sorted(maps.Keys(versions[typeURL])) {
			fmt.Fprintf(hash, "%q %q %s\n", typeURL, name, versions[typeURL][name])
		}
	}
	return hex.EncodeToString(hash.Sum(nil)[:mesh.VersionBytes])
}

// Assignment is the ClusterLoadAssignment of a reference. It has each address once, sorted. It is not nil without any: a
// proxy does not start before it is told.
func Assignment(ref EndpointRef, addresses []netip.AddrPort) *endpointv3.ClusterLoadAssignment {
	assignment := &endpointv3.ClusterLoadAssignment{ClusterName: ref.Name}
	if len(addresses) == 0 {
		return assignment
	}
	sorted := slices.Compact(slices.SortedFunc(slices.Values(addresses), netip.AddrPort.Compare))
	locality := &endpointv3.LocalityLbEndpoints{}
	for _, at := range sorted {
		locality.LbEndpoints = append(locality.LbEndpoints, endpoint(at.Addr().String(), uint32(at.Port())))
	}
	assignment.Endpoints = append(assignment.Endpoints, locality)
	return assignment
}
