// Package xds renders what proxies get: a Mesh goes in, listeners, routes, clusters and endpoints come out, and the files
// that a proxy starts with. It is pure: the same Mesh gives the same bytes on every replica.
package xds

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

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
