package xds

import (
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/jia-app/paymesh/internal/mesh"
)

const (
	inbound           = "inbound"
	inboundPrefix     = "inbound/"
	outboundPrefix    = "outbound/"
	applicationPrefix = "application/"
)

// Sidecar is what the proxy beside a service's process gets: one inbound Listener for all of its ports and the probes,
// and one on loopback for each dependency.
func Sidecar(s mesh.Service) Resources {
	own := identity{id: s.ID}
	r := Resources{Listeners: []*listenerv3.Listener{inboundListener(s, own)}}
	for _, port := range s.Ports {
		r.Routes = append(r.Routes, inboundRoutes(s, port))
		r.Clusters = append(r.Clusters, applicationCluster(port))
	}
	var peers []peer
	for _, u := range s.Upstreams {
		to := peer{service: u.Service, portName: u.PortName, id: u.ID}
		peers = append(peers, to)
		r.Listeners = append(r.Listeners, outboundListener(s, u))
		r.Routes = append(r.Routes, outboundRoutes(u, to))
	}
	r.addPeers(own, peers)
	r.sort()
	return r
}

func (r *Resources) sort() {
	slices.SortFunc(r.Listeners, func(x, y *listenerv3.Listener) int { return strings.Compare(x.GetName(), y.GetName()) })
	slices.SortFunc(r.Routes, func(x, y *routev3.RouteConfiguration) int { return strings.Compare(x.GetName(), y.GetName()) })
	slices.SortFunc(r.Clusters, func(x, y *clusterv3.Cluster) int { return strings.Compare(x.GetName(), y.GetName()) })
	slices.SortFunc(r.Endpoints, func(x, y EndpointRef) int { return strings.Compare(x.Name, y.Name) })
}

// inboundListener takes calls on each mesh port, and probes on one more.
func inboundListener(s mesh.Service, own identity) *listenerv3.Listener {
	var ports []uint32
	var chains []*listenerv3.FilterChain
	for _, port := range s.Ports {
		at := uint32(port.MeshPort) //nolint:gosec // a port
		ports = append(ports, at)
		chains = append(chains, chain(port.Name, at, own.fromPeers(), inboundManager(s, port)))
	}
	l := listener(inbound, anyAddress, append(ports, mesh.ReadyPort), append(chains, readyChain(s)))
	if len(s.Ports) > 0 {
		l.AccessLog = handshakeLog(s)
	}
	return l
}

// readyChain answers the kubelet, which has no certificate, by the routes of the first port, or dependency. It is a chain of
// the Listener that takes calls, since a Listener of its own would be green where that one was rejected. Its filter refuses
// whatever those routes lead to but the probe: they admit callers by their certificates.
func readyChain(s mesh.Service) *listenerv3.FilterChain {
	manager := connectionManager("ready", hcmv3.HttpConnectionManager_AUTO)
	switch {
	case len(s.Ports) > 0:
		manager.RouteSpecifier = routesFromADS(inboundPrefix + s.Ports[0].Name)
	case len(s.Upstreams) > 0:
		manager.RouteSpecifier = routesFromADS(outboundPrefix + s.Upstreams[0].Name)
	default:
		manager.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{
			Name: "ready", VirtualHosts: []*routev3.VirtualHost{readyHost(unguarded())},
		}}
	}
	manager.HttpFilters = []*hcmv3.HttpFilter{closedFilter(), router()}
	return chain("ready", mesh.ReadyPort, nil, manager)
}

func inboundManager(s mesh.Service, port mesh.Port) *hcmv3.HttpConnectionManager {
	manager := connectionManager("inbound_"+port.Name, hcmv3.HttpConnectionManager_HTTP2)
	manager.RouteSpecifier = routesFromADS(inboundPrefix + port.Name)
	// The process learns who calls from this header alone, and a caller's own never reaches it.
	manager.ForwardClientCertDetails = hcmv3.HttpConnectionManager_SANITIZE_SET
	manager.SetCurrentClientCertDetails = &hcmv3.HttpConnectionManager_SetCurrentClientCertDetails{Uri: true}
	manager.StreamIdleTimeout = duration(0)
	manager.HttpFilters = append(rbacFilters(), router())
	manager.LocalReplyConfig = denials(s)
	manager.AccessLog = inboundLog(s)
	return manager
}

// inboundRoutes send what the rules admit to the process. How long a call may take is the caller's and the process's
// business: the caller's deadline comes with the call, and ends it.
func inboundRoutes(s mesh.Service, port mesh.Port) *routev3.RouteConfiguration {
	return &routev3.RouteConfiguration{
		Name: inboundPrefix + port.Name,
		VirtualHosts: []*routev3.VirtualHost{readyHost(unguarded()), guarded(s, port, &routev3.Route{
			Match: everything(), Action: toCluster(applicationPrefix+port.Name, 0),
		})},
	}
}

// outboundListener is where the process dials a dependency.
func outboundListener(s mesh.Service, u mesh.Upstream) *listenerv3.Listener {
	manager := connectionManager("outbound_"+u.Name, hcmv3.HttpConnectionManager_HTTP2)
	manager.RouteSpecifier = routesFromADS(outboundPrefix + u.Name)
	manager.SkipXffAppend = true // the process is no hop
	manager.PreserveExternalRequestId = true
	manager.StreamIdleTimeout = duration(0)
	manager.HttpFilters = []*hcmv3.HttpFilter{router()}
	manager.LocalReplyConfig = &hcmv3.LocalReplyConfig{Mappers: []*hcmv3.ResponseMapper{{
		Filter:             statusIs(504),
		BodyFormatOverride: textFormat("MeshService " + u.Service.String() + " did not answer within the deadline of the call, or the timeout of dependsOn " + u.Name),
	}}}
	manager.AccessLog = outboundLog(s, u)
	return &listenerv3.Listener{
		Name:         outboundPrefix + u.Name,
		Address:      address(loopback, uint32(u.LocalPort)), //nolint:gosec // a port
		FilterChains: []*listenerv3.FilterChain{{Filters: networkFilters(manager)}},
	}
}

func outboundRoutes(u mesh.Upstream, to peer) *routev3.RouteConfiguration {
	return &routev3.RouteConfiguration{
		Name: outboundPrefix + u.Name,
		VirtualHosts: []*routev3.VirtualHost{readyHost(unguarded()), {
			Name: u.Name, Domains: []string{"*"},
			Routes: []*routev3.Route{{Match: everything(), Action: toCluster(to.clusterName(), u.Timeout.Duration)}},
		}},
	}
}
