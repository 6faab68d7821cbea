package mesh

import (
	"net/netip"
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"
)

// Addresses are where peers reach a port of a service: the ready endpoints that do not terminate, of pods that run under the
// service account. Whoever can label a pod can get it into the slices of a Service; who does not run as the service is
// left out, for no peer would accept its certificate. accountOfPod is the service account of a pod of the slices'
// namespace; false where there is no such pod. The result is sorted, and no address is in it twice.
func Addresses(endpointSlices []discoveryv1.EndpointSlice, port Port, serviceAccount string, accountOfPod func(name string) (string, bool)) []netip.AddrPort {
	var addresses []netip.AddrPort
	for i := range endpointSlices {
		slice := &endpointSlices[i]
		number, ok := numberOf(slice, port.Name)
		if !ok || slice.AddressType != discoveryv1.AddressTypeIPv4 && slice.AddressType != discoveryv1.AddressTypeIPv6 {
			continue
		}
		for j := range slice.Endpoints {
			endpoint := &slice.Endpoints[j]
			if !takesCalls(endpoint) || len(endpoint.Addresses) == 0 {
				continue
			}
			if pod := podOf(slice, endpoint); pod == "" {
				continue
			} else if account, found := accountOfPod(pod); !found || account != serviceAccount {
				continue
			}
			// An endpoint of a pod has one address; what further ones would mean is not defined.
			if address, err := netip.ParseAddr(endpoint.Addresses[0]); err == nil {
				addresses = append(addresses, netip.AddrPortFrom(address, number))
			}
		}
	}
	slices.SortFunc(addresses, netip.AddrPort.Compare)
	return slices.Compact(addresses)
}

func numberOf(slice *discoveryv1.EndpointSlice, name string) (uint16, bool) {
	for _, port := range slice.Ports {
		if port.Name != nil && *port.Name == name && port.Port != nil && *port.Port > 0 && *port.Port <= 65535 {
			return uint16(*port.Port), true
		}
	}
	return 0, false
}

// takesCalls reads the conditions as discovery/v1 has them: an unset ready means ready.
func takesCalls(endpoint *discoveryv1.Endpoint) bool {
	conditions := endpoint.Conditions
	return (conditions.Ready == nil || *conditions.Ready) && (conditions.Terminating == nil || !*conditions.Terminating)
}

// podOf is the name of the pod behind an endpoint; empty where something else is.
func podOf(slice *discoveryv1.EndpointSlice, endpoint *discoveryv1.Endpoint) string {
	target := endpoint.TargetRef
	if target == nil || target.Kind != "Pod" || target.Namespace != "" && target.Namespace != slice.Namespace {
		return ""
	}
	return target.Name
}
