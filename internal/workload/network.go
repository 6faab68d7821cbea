package workload

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
)

type (
	ingressRule = networkingv1.NetworkPolicyIngressRule
	egressRule  = networkingv1.NetworkPolicyEgressRule
	peer        = networkingv1.NetworkPolicyPeer
)

const dnsPort = 53

// serviceIngress opens each port to the pods of those that may call it, and metrics and health to every pod of the cluster:
// they show no secrets, and Prometheus runs anywhere. The kubelet's probes come from the node, which no policy stops.
func serviceIngress(s mesh.Service) []ingressRule {
	var rules []ingressRule
	for _, port := range s.Ports {
		if from, anybody := callersOf(s, port); anybody || len(from) > 0 {
			rules = append(rules, ingressRule{From: from, Ports: tcp(port.MeshPort)})
		}
	}
	open := slices.Concat(tcp(mesh.HTTPPort), tcp(mesh.StatsPort))
	return append(rules, ingressRule{From: everyPod(), Ports: open})
}

// callersOf are the pods that a port is open to. A caller outside the cluster has none: then the network is open to
// everybody, and mTLS and the rules decide.
func callersOf(s mesh.Service, port mesh.Port) (from []peer, anybody bool) {
	var callers []role
	for _, rule := range s.Rules {
		switch caller := roleOf(rule.Caller.Kind, rule.Caller.Key); {
		case rule.PortName != "" && rule.PortName != port.Name:
		case rule.Caller == mesh.Caller{}:
			return nil, true
		case !slices.Contains(callers, caller):
			callers = append(callers, caller)
		}
	}
	slices.SortFunc(callers, func(x, y role) int {
		return cmp.Or(cmp.Compare(x.key.Kind, y.key.Kind), cmp.Compare(x.key.Namespace, y.key.Namespace), cmp.Compare(x.key.Name, y.key.Name))
	})
	for _, caller := range callers {
		from = append(from, pods(caller.key.Namespace, caller.callersLabels()))
	}
	return from, false
}

// serviceEgress lets a service reach the services that it may call, what its egress names, names in the DNS, and, for its
// proxy, the operator. Nothing else. A Library has no proxy; but its pods may yet, while dataPlane changes.
func serviceEgress(s mesh.Service, o Options) []egressRule {
	rules := []egressRule{dns(), o.xds()}
	var callees []callee
	for _, upstream := range s.Upstreams {
		callees = append(callees, callee{upstream.Service, upstream.MeshPort})
	}
	rules = append(rules, toCallees(callees)...)
	for _, egress := range s.Egress {
		rules = append(rules, egressRule{To: []peer{target(s.Key.Namespace, egress.To)}, Ports: tcp(egress.Port)})
	}
	return rules
}

func gatewayIngress(g mesh.Gateway) []ingressRule {
	var ports []networkingv1.NetworkPolicyPort
	for _, listener := range g.Listeners {
		ports = append(ports, tcp(listener.TargetPort)...)
	}
	return []ingressRule{{Ports: ports}, {From: everyPod(), Ports: tcp(mesh.StatsPort)}}
}

func gatewayEgress(g mesh.Gateway, o Options) []egressRule {
	var callees []callee
	for _, route := range g.Routes {
		callees = append(callees, callee{route.Service, route.MeshPort})
	}
	return append([]egressRule{dns(), o.xds()}, toCallees(callees)...)
}

// callee is a port of a service.
type callee struct {
	service types.NamespacedName
	port    int32
}

func toCallees(callees []callee) []egressRule {
	slices.SortFunc(callees, func(x, y callee) int {
		return cmp.Or(cmp.Compare(x.service.Namespace, y.service.Namespace), cmp.Compare(x.service.Name, y.service.Name), cmp.Compare(x.port, y.port))
	})
	var rules []egressRule
	for _, c := range slices.Compact(callees) {
		to := roleOf(mesh.KindMeshService, c.service)
		rules = append(rules, egressRule{To: []peer{pods(c.service.Namespace, to.callersLabels())}, Ports: tcp(c.port)})
	}
	return rules
}

// dns is open to everywhere: where a cluster's name server is, nothing tells.
func dns() egressRule {
	return egressRule{Ports: []networkingv1.NetworkPolicyPort{port(corev1.ProtocolUDP, dnsPort), port(corev1.ProtocolTCP, dnsPort)}}
}

func (o Options) xds() egressRule {
	return egressRule{To: []peer{pods(o.ManagerNamespace, o.ManagerLabels)}, Ports: tcp(mesh.XDSPort)}
}

func target(namespace string, to meshv1alpha1.EgressTarget) peer {
	if to.Selector == nil {
		return peer{IPBlock: &networkingv1.IPBlock{CIDR: to.CIDR}}
	}
	labels := map[string]string{}
	for key, value := range to.Selector.PodLabels {
		labels[key] = string(value)
	}
	return pods(cmp.Or(string(to.Selector.Namespace), namespace), labels)
}

func pods(namespace string, labels map[string]string) peer {
	return peer{
		// The API server sets this label on every Namespace, and nobody can change it.
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: namespace}},
		PodSelector:       &metav1.LabelSelector{MatchLabels: labels},
	}
}

func everyPod() []peer { return []peer{{NamespaceSelector: &metav1.LabelSelector{}}} }

func tcp(number int32) []networkingv1.NetworkPolicyPort {
	return []networkingv1.NetworkPolicyPort{port(corev1.ProtocolTCP, number)}
}

func port(protocol corev1.Protocol, number int32) networkingv1.NetworkPolicyPort {
	value := intstr.FromInt32(number)
	return networkingv1.NetworkPolicyPort{Protocol: &protocol, Port: &value}
}
