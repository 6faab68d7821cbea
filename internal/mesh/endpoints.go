package mesh

import (
	"net/netip"
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/utils/ptr"
)

// Addresses are where peers reach a port of a service: the ready endpoints that do not terminate, of pods that run under the
// service account; where there are none, those that terminate and still serve, as kube-proxy has it, so that a service of
// one pod takes calls while that one drains. Whoever can label a pod can get it into the slices of a Service; who does not run as the service is
// left out, for no peer would accept its certificate. accountOfPod is the service account of a pod of the slices'
// namespace; false where there is no such pod. The result is sorted, and no address is in it twice.
func Addresses(endpointSlices []discoveryv1.EndpointSlice, port Port, serviceAccount string, accountOfPod func(name string) (string, bool)) []netip.AddrPort {
	var ready, draining []netip.AddrPort
	for i := range endpointSlices {
		slice := &endpointSlices[i]
		number, ok := numberOf(slice, port.Name)
		if !ok || slice.AddressType != discoveryv1.AddressTypeIPv4 && slice.AddressType != discoveryv1.AddressTypeIPv6 {
			continue
		}
		for j := range slice.Endpoints {
			endpoint := &slice.Endpoints[j]
			to := &ready
			if drains(endpoint) {
				to = &draining
			} else if !takesCalls(endpoint) {
				continue
			}
			if len(endpoint.Addresses) == 0 {
				continue
			}
			if pod := podOf(slice, endpoint); pod == "" {
				continue
			} else if account, found := accountOfPod(pod); !found || account != serviceAccount {
				continue
			}
			// An endpoint of a pod has one address; what further ones would mean is not defined.
			if address, err := netip.ParseAddr(endpoint.Addresses[0]); err == nil {
				*to = append(*to, netip.AddrPortFrom(address, number))
			}
		}
	}
	addresses := ready
	if len(ready) == 0 {
		addresses = draining
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

// drains reports whether the endpoint is to go and takes calls until then. An unset serving means what ready would say of one
// that does not terminate, which nobody knows: it is not taken for yes.
func drains(endpoint *discoveryv1.Endpoint) bool {
	conditions := endpoint.Conditions
	return ptr.Deref(conditions.Terminating, false) && ptr.Deref(conditions.Serving, false)
}

// podOf is the name of the pod behind an endpoint; empty where something else is.
func podOf(slice *discoveryv1.EndpointSlice, endpoint *discoveryv1.Endpoint) string {
	target := endpoint.TargetRef
	if target == nil || target.Kind != "Pod" || target.Namespace != "" && target.Namespace != slice.Namespace {
		return ""
	}
	return target.Name
}
