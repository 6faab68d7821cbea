package server

import (
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/jia-app/paymesh/internal/xds"
)

// assignment stands in until the rendering of endpoints is there.
func assignment(ref xds.EndpointRef, addresses []netip.AddrPort) *endpointv3.ClusterLoadAssignment {
	a := &endpointv3.ClusterLoadAssignment{ClusterName: ref.Name}
	if len(addresses) == 0 {
		return a
	}
	l := &endpointv3.LocalityLbEndpoints{}
	for _, at := range addresses {
		l.LbEndpoints = append(l.LbEndpoints, &endpointv3.LbEndpoint{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
			Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{Address: at.Addr().String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(at.Port())}}}},
		}}})
	}
	a.Endpoints = append(a.Endpoints, l)
	return a
}
