package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// MeshServiceStatus says what of the spec is true.
type MeshServiceStatus struct {
	// observedGeneration is the generation of the spec that this status was computed from.
	// +optional
	// +kubebuilder:validation:Minimum=0
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// spiffeID is the SPIFFE ID that the spec asks for.
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	SPIFFEID string `json:"spiffeID,omitempty"`

	// replicas is how many pods of the workload there are, for the scale subresource.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Replicas int32 `json:"replicas,omitempty"`

	// selector of the workload's pods, for the scale subresource.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Selector string `json:"selector,omitempty"`

	// proxies counts the proxies of the workload.
	// +optional
	Proxies *ProxyCount `json:"proxies,omitempty"`

	// endpoints is how many ready addresses peers are told of.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Endpoints *int32 `json:"endpoints,omitempty"`

	// configVersion is the version of the current xDS config: the hash of its content.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	ConfigVersion string `json:"configVersion,omitempty"`

	// ports records where peers reach each of spec.ports, so that a port stays where it is when others come and go. Written by
	// the operator.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=8
	Ports []PortRecord `json:"ports,omitempty"`

	// exposures records what of spec.expose the gateways serve: what stands here stays with this service when others want
	// it, too. Written by the operator.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=16
	Exposures []ExposureRecord `json:"exposures,omitempty"`

	// conditions are Accepted, Registered, WorkloadReady, DependenciesResolved, Exposed, Programmed and Ready.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=12
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// PortRecord is where peers reach a port.
type PortRecord struct {
	// name of the port, as in spec.ports. At most 15 characters.
	// +required
	// +kubebuilder:validation:MaxLength=15
	Name string `json:"name"`

	// meshPort is the number of its mTLS listener, from 15443 to 15450.
	// +required
	// +kubebuilder:validation:Minimum=15443
	// +kubebuilder:validation:Maximum=15450
	MeshPort int32 `json:"meshPort"`
}

// ExposureRecord is what of an exposure its gateway serves: each of the paths under each of the host names.
type ExposureRecord struct {
	// name of the exposure. At most 63 characters.
	// +required
	Name ItemName `json:"name"`

	// gateway is the MeshGateway, with its namespace.
	// +required
	Gateway ObjectReference `json:"gateway"`

	// hostnames are those of the exposure, at most 16, each of at most 253 characters.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	Hostnames []Hostname `json:"hostnames"`

	// paths are an HTTP method and a path template each, with * for a variable, as in "GET /v1/payments/*"; of gRPC, the POST
	// that it is. At most 256, of together at most 16,384 characters: an exposure with more is refused.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=16384
	Paths []string `json:"paths"`

	// port is the one that its routes lead to. At most 15 characters.
	// +optional
	// +kubebuilder:validation:MaxLength=15
	Port string `json:"port,omitempty"`

	// size is what its routes take of the gateway's room under one host name where no other exposure is transcoded, in bytes;
	// of one that is not served just now there is none.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Size int32 `json:"size,omitempty"`

	// sharedSize is what they take where others are, in bytes: then each path has descriptors of its own.
	// +optional
	// +kubebuilder:validation:Minimum=0
	SharedSize int32 `json:"sharedSize,omitempty"`
}

// ProxyCount counts proxies.
type ProxyCount struct {
	// expected is how many pods with a proxy there are.
	// +required
	// +kubebuilder:validation:Minimum=0
	Expected int32 `json:"expected"`

	// synced is how many of them have ACKed the current config.
	// +required
	// +kubebuilder:validation:Minimum=0
	Synced int32 `json:"synced"`

	// summary is synced/expected, for the column PROXIES.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Summary string `json:"summary,omitempty"`
}
