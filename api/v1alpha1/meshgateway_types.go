package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// GatewayServiceType is how the gateway's Service is reached.
// +kubebuilder:validation:Enum=ClusterIP;NodePort;LoadBalancer
type GatewayServiceType string

const (
	// GatewayServiceClusterIP is reached from inside the cluster, or by whoever forwards to it.
	GatewayServiceClusterIP GatewayServiceType = "ClusterIP"
	// GatewayServiceNodePort is reached at a port of every node, too.
	GatewayServiceNodePort GatewayServiceType = "NodePort"
	// GatewayServiceLoadBalancer is reached at an address that the cluster's load balancer gives it, too.
	GatewayServiceLoadBalancer GatewayServiceType = "LoadBalancer"
)

// MeshGatewaySpec says where the mesh is entered from outside, who vouches for callers, and who may expose what.
// +kubebuilder:validation:XValidation:rule="(has(self.identity) && has(self.identity.path) ? self.identity.path : \"\") == (has(oldSelf.identity) && has(oldSelf.identity.path) ? oldSelf.identity.path : \"\") && (has(self.identity) && has(self.identity.name) ? self.identity.name : \"\") == (has(oldSelf.identity) && has(oldSelf.identity.name) ? oldSelf.identity.name : \"\")",fieldPath=".identity",message="identity.path and identity.name cannot be set, changed or removed later, for peers know the gateway by them: create another MeshGateway and delete this one when nobody uses it"
// +kubebuilder:validation:XValidation:rule="self.listeners.all(l, self.listeners.exists_one(m, m.port == l.port))",fieldPath=".listeners",message="listeners must each have a port of their own: choose another for one of those that share it"
// +kubebuilder:validation:XValidation:rule="self.listeners.all(l, oldSelf.listeners.exists(o, o.name == l.name)) || oldSelf.listeners.all(o, self.listeners.exists(l, l.name == o.name))",fieldPath=".listeners",message="listeners can be added or removed, but not both in one change, for the pods that run have the certificates of the old ones only: add the new ones, and remove the old ones when the gateway is Ready again"
// +kubebuilder:validation:XValidation:rule="self.listeners.all(l, oldSelf.listeners.exists(o, o.name == l.name) || !oldSelf.listeners.exists(o, o.port == l.port))",fieldPath=".listeners",message="listeners that are new must not take the port of one that is there, for the pods that run lack their certificates: add it with another port, and let the two exchange their ports when the gateway is Ready again"
type MeshGatewaySpec struct {
	// identity is who the gateway is to the services behind it. Unset, a ServiceIdentity with the default SPIFFE ID is created.
	// +optional
	Identity *IdentitySource `json:"identity,omitempty"`

	// listeners are where it listens, from 1 to 8. Each speaks HTTPS. One that stays is not disturbed when others come and go,
	// or when their order changes. To give one another name, add it under the new name with another port; when the gateway is
	// Ready again, exchange the ports of the two; remove the old one last.
	// +required
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	Listeners []GatewayListener `json:"listeners"`

	// jwt are the issuers whose tokens callers may show, at most 16. expose.auth.jwt of a MeshService names one.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	JWT []JWTProvider `json:"jwt,omitempty"`

	// routes are who may expose which host names here, at most 64. A namespace or a host name that none of them has cannot.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Routes []RouteGrant `json:"routes,omitempty"`

	// replicas is how many pods, from 0 to 100; 1 by default.
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	Replicas *int32 `json:"replicas,omitempty"`

	// resources of the proxy, as in a container. Unset, it is sure to get 100m of cpu and 128Mi of memory, and gets no more than
	// 1Gi of memory.
	// +optional
	Resources *Resources `json:"resources,omitempty"`

	// serviceType of the gateway's Service: ClusterIP (the default), NodePort or LoadBalancer.
	// +optional
	// +kubebuilder:default=ClusterIP
	ServiceType GatewayServiceType `json:"serviceType,omitempty"`
}

// GatewayListener is a port with TLS.
type GatewayListener struct {
	// name of the listener. At most 15 characters, as ports of a Service have.
	// +required
	// +kubebuilder:validation:MaxLength=15
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && !self.contains('--')",message="the name of a listener must be a lower case letter, then lower case letters, digits and single hyphens, with a letter or digit last, for example https"
	Name string `json:"name"`

	// port of the gateway's Service, from 1 to 65535.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port"`

	// tls is the listener's certificate.
	// +required
	TLS ListenerTLS `json:"tls"`
}

// ListenerTLS is a certificate.
type ListenerTLS struct {
	// secretName is a Secret of type kubernetes.io/tls in the same namespace, at most 253 characters. It is mounted into the
	// gateway's pods, which notice when it comes or changes; the operator does not read it. A listener without it takes no
	// connections; the others do.
	// +required
	SecretName ResourceName `json:"secretName"`
}

// JWTProvider is an issuer of tokens (RFC 7519).
type JWTProvider struct {
	// name of the issuer, at most 63 characters, for expose.auth.jwt.
	// +required
	Name ItemName `json:"name"`

	// issuer is the iss of its tokens. At most 512 characters.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Issuer string `json:"issuer"`

	// audiences of which a token's aud must have one, from 1 to 16, each of at most 512 characters.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=512
	Audiences []string `json:"audiences"`

	// jwks are its public keys (RFC 7517), in a ConfigMap of the same namespace.
	// +required
	JWKS ConfigMapKey `json:"jwks"`
}

// RouteGrant lets namespaces expose host names.
type RouteGrant struct {
	// name of the grant. At most 63 characters.
	// +required
	Name ItemName `json:"name"`

	// namespaces that may, from 1 to 64, each of at most 63 characters.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Namespaces []NamespaceName `json:"namespaces"`

	// hostnames that they may expose, from 1 to 64, each of at most 253 characters: names, or *. and a name.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Hostnames []HostnamePattern `json:"hostnames"`
}

// MeshGatewayStatus says what of the spec is true.
type MeshGatewayStatus struct {
	// observedGeneration is the generation of the spec that this status was computed from.
	// +optional
	// +kubebuilder:validation:Minimum=0
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// spiffeID is the SPIFFE ID that the spec asks for.
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	SPIFFEID string `json:"spiffeID,omitempty"`

	// replicas is how many pods of the gateway there are, for the scale subresource.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Replicas int32 `json:"replicas,omitempty"`

	// selector of the gateway's pods, for the scale subresource.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Selector string `json:"selector,omitempty"`

	// proxies counts the gateway's pods.
	// +optional
	Proxies *ProxyCount `json:"proxies,omitempty"`

	// routes is how many exposures it serves.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Routes *int32 `json:"routes,omitempty"`

	// configVersion is the version of the current xDS config: the hash of its content.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	ConfigVersion string `json:"configVersion,omitempty"`

	// listeners records where in the pods each of spec.listeners is, so that it stays there when others come and go; and, as
	// long as pods of an older revision run, where those were that are gone. Written by the operator.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=16
	Listeners []ListenerRecord `json:"listeners,omitempty"`

	// conditions are Accepted, Registered, WorkloadReady, Programmed and Ready.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=12
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// ListenerRecord is where a listener is.
type ListenerRecord struct {
	// name of the listener, as in spec.listeners. At most 15 characters.
	// +required
	// +kubebuilder:validation:MaxLength=15
	Name string `json:"name"`

	// targetPort is the pods' port, from 15643 to 15658.
	// +required
	// +kubebuilder:validation:Minimum=15643
	// +kubebuilder:validation:Maximum=15658
	TargetPort int32 `json:"targetPort"`
}

// MeshGateway is a door into the mesh: listeners with TLS, the issuers of tokens, and who may expose what.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:subresource:scale:specpath=.spec.replicas,statuspath=.status.replicas,selectorpath=.status.selector
// +kubebuilder:resource:shortName=mgw,categories=paymesh
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Identity",type=string,JSONPath=`.status.conditions[?(@.type=="Registered")].status`
// +kubebuilder:printcolumn:name="Proxies",type=string,JSONPath=`.status.proxies.summary`
// +kubebuilder:printcolumn:name="Routes",type=integer,JSONPath=`.status.routes`
// +kubebuilder:printcolumn:name="SPIFFE ID",type=string,priority=1,JSONPath=`.status.spiffeID`
// +kubebuilder:printcolumn:name="Config",type=string,priority=1,JSONPath=`.status.configVersion`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 52 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",message="metadata.name must be a DNS-1035 label of at most 52 characters, for example public: a lower case letter, then lower case letters, digits and hyphens, with a letter or digit last"
type MeshGateway struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard object metadata. The name is a DNS-1035 label of at most 52 characters.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec says where the mesh is entered, who vouches for callers, and who may expose what.
	// +required
	Spec MeshGatewaySpec `json:"spec"`

	// status says what of the spec is true.
	// +optional
	Status MeshGatewayStatus `json:"status,omitempty"`
}

// MeshGatewayList is a list of MeshGateways.
// +kubebuilder:object:root=true
type MeshGatewayList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// items are the MeshGateways.
	Items []MeshGateway `json:"items"`
}
