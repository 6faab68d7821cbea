package mesh_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/jia-app/paymesh/internal/mesh"
)

func TestAddressesAreThoseOfReadyPodsThatRunAsTheService(t *testing.T) {
	accounts := map[string]string{"a": "payment", "b": "payment", "c": "payment", "stranger": "other"}
	pod := func(name, address string, change ...func(*discoveryv1.Endpoint)) discoveryv1.Endpoint {
		endpoint := discoveryv1.Endpoint{
			Addresses:  []string{address},
			Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true), Serving: ptr.To(true), Terminating: ptr.To(false)},
			TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: "payments", Name: name},
		}
		for _, c := range change {
			c(&endpoint)
		}
		return endpoint
	}
	draining := func(e *discoveryv1.Endpoint) {
		e.Conditions = discoveryv1.EndpointConditions{Ready: ptr.To(false), Serving: ptr.To(true), Terminating: ptr.To(true)}
	}
	drained := func(e *discoveryv1.Endpoint) { draining(e); e.Conditions.Serving = ptr.To(false) }
	slice := func(kind discoveryv1.AddressType, port string, endpoints ...discoveryv1.Endpoint) discoveryv1.EndpointSlice {
		return discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Namespace: "payments"},
			AddressType: kind, Endpoints: endpoints,
			Ports: []discoveryv1.EndpointPort{{Name: ptr.To(port), Port: ptr.To[int32](15443)}},
		}
	}
	const ipv4, ipv6 = discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6
	for name, test := range map[string]struct {
		slices []discoveryv1.EndpointSlice
		want   []string
	}{
		"no slice": {},
		"sorted, over all slices": {
			[]discoveryv1.EndpointSlice{slice(ipv6, "grpc", pod("a", "fd00::1")), slice(ipv4, "grpc", pod("b", "10.0.0.10"), pod("a", "10.0.0.9"))},
			[]string{"10.0.0.9:15443", "10.0.0.10:15443", "[fd00::1]:15443"},
		},
		"once, though two slices have it": {
			[]discoveryv1.EndpointSlice{slice(ipv4, "grpc", pod("a", "10.0.0.9")), slice(ipv4, "grpc", pod("a", "10.0.0.9"))}, []string{"10.0.0.9:15443"},
		},
		"another port": {slices: []discoveryv1.EndpointSlice{slice(ipv4, "http", pod("a", "10.0.0.9"))}},
		"a port without a number": {slices: []discoveryv1.EndpointSlice{{
			ObjectMeta: metav1.ObjectMeta{Namespace: "payments"}, AddressType: ipv4, Endpoints: []discoveryv1.Endpoint{pod("a", "10.0.0.9")},
			Ports: []discoveryv1.EndpointPort{{Name: ptr.To("grpc")}, {}},
		}}},
		"names instead of addresses": {slices: []discoveryv1.EndpointSlice{slice(discoveryv1.AddressTypeFQDN, "grpc", pod("a", "a.example"))}},
		"no address":                 {slices: []discoveryv1.EndpointSlice{slice(ipv4, "grpc", pod("a", "x"), pod("b", "", func(e *discoveryv1.Endpoint) { e.Addresses = nil }))}},
		"those that drain, while there is no other": {
			[]discoveryv1.EndpointSlice{slice(ipv4, "grpc", pod("b", "10.0.0.2", draining), pod("a", "10.0.0.1", draining)), slice(ipv4, "grpc", pod("c", "10.0.0.3", drained))},
			[]string{"10.0.0.1:15443", "10.0.0.2:15443"},
		},
		"none that drains beside a ready one": {
			[]discoveryv1.EndpointSlice{slice(ipv4, "grpc", pod("a", "10.0.0.1", draining)), slice(ipv4, "grpc", pod("b", "10.0.0.2"))}, []string{"10.0.0.2:15443"},
		},
		"one that drains, beside a ready one of a stranger": {
			[]discoveryv1.EndpointSlice{slice(ipv4, "grpc", pod("a", "10.0.0.1", draining), pod("stranger", "10.0.0.2"))}, []string{"10.0.0.1:15443"},
		},
		"not ready, terminating, and what says nothing": {
			[]discoveryv1.EndpointSlice{slice(
				ipv4, "grpc",
				pod("a", "10.0.0.1", func(e *discoveryv1.Endpoint) { e.Conditions.Ready = ptr.To(false) }),
				pod("b", "10.0.0.2", func(e *discoveryv1.Endpoint) { e.Conditions.Terminating = ptr.To(true) }),
				pod("c", "10.0.0.3", func(e *discoveryv1.Endpoint) { e.Conditions = discoveryv1.EndpointConditions{} }),
			)}, []string{"10.0.0.3:15443"},
		},
		"pods of another service account, unknown ones, and what is no pod of the namespace": {slices: []discoveryv1.EndpointSlice{slice(
			ipv4, "grpc",
			pod("stranger", "10.0.0.1"), pod("unknown", "10.0.0.2"),
			pod("a", "10.0.0.3", func(e *discoveryv1.Endpoint) { e.TargetRef = nil }),
			pod("b", "10.0.0.4", func(e *discoveryv1.Endpoint) { e.TargetRef.Kind = "Node" }),
			pod("c", "10.0.0.5", func(e *discoveryv1.Endpoint) { e.TargetRef.Namespace = "people" }),
		)}},
	} {
		t.Run(name, func(t *testing.T) {
			accountOf := func(pod string) (string, bool) { account, ok := accounts[pod]; return account, ok }
			port := mesh.Port{Name: "grpc", MeshPort: 15443}
			var want []netip.AddrPort
			for _, address := range test.want {
				want = append(want, netip.MustParseAddrPort(address))
			}
			for range 2 {
				got := mesh.Addresses(test.slices, port, "payment", accountOf)
				if diff := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmp.Comparer(func(x, y netip.AddrPort) bool { return x == y })); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				slices.Reverse(test.slices) // the order of slices means nothing
			}
		})
	}
}
