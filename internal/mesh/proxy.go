package mesh

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
)

// ProxyKey names the object whose config a proxy gets.
type ProxyKey struct {
	Kind string // KindMeshService or KindMeshGateway
	types.NamespacedName
}

// IsZero reports whether it names no object.
func (k ProxyKey) IsZero() bool { return k == ProxyKey{} }

// String is kind/namespace/name, in lower case: what a node ID begins with.
func (k ProxyKey) String() string {
	return strings.ToLower(k.Kind) + "/" + k.Namespace + "/" + k.Name
}

// Label is the one that pods and objects have with the name of the object, and no other object's have.
func (k ProxyKey) Label() string {
	if k.Kind == KindMeshGateway {
		return meshv1alpha1.LabelGateway
	}
	return meshv1alpha1.LabelService
}

// PodLabels select the pods that the operator runs.
func (k ProxyKey) PodLabels() map[string]string {
	return map[string]string{LabelApp: k.Name, k.Label(): k.Name, LabelEndpoint: "true"}
}

// NodeID is what the proxy in a pod calls itself towards the manager.
func (k ProxyKey) NodeID(pod string) string { return k.String() + "/" + pod }

// ParseNodeID is the reverse of NodeID.
func ParseNodeID(id string) (key ProxyKey, pod string, err error) {
	parts := strings.Split(id, "/")
	if len(parts) == 4 && !slices.Contains(parts, "") {
		for _, kind := range []string{KindMeshService, KindMeshGateway} {
			if parts[0] == strings.ToLower(kind) {
				return ProxyKey{Kind: kind, NamespacedName: types.NamespacedName{Namespace: parts[1], Name: parts[2]}}, parts[3], nil
			}
		}
	}
	return ProxyKey{}, "", fmt.Errorf("node ID %q: want meshservice or meshgateway, the namespace, the name and the pod, with slashes between", id)
}

// The ports of a proxy, on the pod's address unless said otherwise.
const (
	// FirstMeshPort is the first mTLS listener of a service; the next ones follow.
	FirstMeshPort = 15443
	// FirstGatewayPort is the first listener of a gateway, and GatewayPorts how many there are: twice as many as listeners, so
	// that those which are gone can keep theirs for a while.
	FirstGatewayPort = 15643
	GatewayPorts     = 16
	// ReadyPort answers the probes of a proxy: of a service's in the same Listener as its mesh ports, so that it is open only
	// when those are; of a gateway's by what one of its listeners answers.
	ReadyPort = 15021
	// StatsPort answers GET /stats/prometheus.
	StatsPort = 15090
	// AdminPort is the proxy's admin endpoint, on loopback.
	AdminPort = 8500
	// HTTPPort is where a process has /metrics and /health.
	HTTPPort = 9090
	// XDSPort is where the manager serves xDS.
	XDSPort = 18000
)

// What the kubelet asks a proxy: GET ReadyPath of ReadyHost. The host name is one that no exposure can have, since it has an
// underscore: it has routes of its own, among those of whoever is called there.
const (
	ReadyHost = "paymesh_ready"
	ReadyPath = "/ready"
)

// The folders of a container that are the operator's: workload mounts there what the config of a proxy names.
const (
	// ReservedDir is where everything of the operator's is, but the Workload API.
	ReservedDir = "/etc/paymesh"
	// ProxyDir is where a proxy finds the files that it starts with.
	ProxyDir = ReservedDir + "/proxy"
	// TLSDir is where a gateway has a folder with each listener's Secret, named after its target port. It is one volume, which
	// is there whatever Secrets are.
	TLSDir = ReservedDir + "/tls"
)

// The labels of pods, beside those of api/v1alpha1.
const (
	// LabelApp is what people select by.
	LabelApp = "app"
	// LabelEndpoint tells the pods that the operator runs from others that bear the label of a caller, such as a batch job
	// that NetworkPolicies shall let through: those are no endpoints of the Service.
	LabelEndpoint = "mesh.jia.app/endpoint"
)
