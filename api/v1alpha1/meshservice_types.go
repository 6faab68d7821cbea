package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// DataPlane is how a service meets the mesh.
// +kubebuilder:validation:Enum=Sidecar;Library
type DataPlane string

const (
	// DataPlaneSidecar puts an Envoy beside the process, which speaks plaintext to it on loopback.
	DataPlaneSidecar DataPlane = "Sidecar"
	// DataPlaneLibrary has the process speak SPIFFE mTLS itself and enforce its rules itself.
	DataPlaneLibrary DataPlane = "Library"
)

// Protocol is what a port speaks.
// +kubebuilder:validation:Enum=GRPC
type Protocol string

// ProtocolGRPC is gRPC over HTTP/2.
const ProtocolGRPC Protocol = "GRPC"

// MeshServiceSpec says what runs, as whom, and who may talk to whom.
// +kubebuilder:validation:XValidation:rule="(has(self.identity) && has(self.identity.path) ? self.identity.path : \"\") == (has(oldSelf.identity) && has(oldSelf.identity.path) ? oldSelf.identity.path : \"\") && (has(self.identity) && has(self.identity.name) ? self.identity.name : \"\") == (has(oldSelf.identity) && has(oldSelf.identity.name) ? oldSelf.identity.name : \"\")",fieldPath=".identity",message="identity.path and identity.name cannot be set, changed or removed later, for peers know the service by them: create another MeshService and delete this one when nobody uses it"
// +kubebuilder:validation:XValidation:rule="(has(self.workload.serviceAccountName) ? self.workload.serviceAccountName : \"\") == (has(oldSelf.workload.serviceAccountName) ? oldSelf.workload.serviceAccountName : \"\")",fieldPath=".workload.serviceAccountName",message="workload.serviceAccountName cannot be set, changed or removed later, for the identity belongs to it: create another MeshService and delete this one when nobody uses it"
// +kubebuilder:validation:XValidation:rule="!has(self.dataPlane) || self.dataPlane != 'Library' || has(self.workload.policySupport) && self.workload.policySupport == 'Enforced'",fieldPath=".dataPlane",message="dataPlane Library needs workload.policySupport: Enforced, set only for an image that refuses by itself what its policy file does not allow: otherwise allow would be open without a word"
// +kubebuilder:validation:XValidation:rule="!has(self.workload.persistence) || !has(self.workload.replicas) || self.workload.replicas <= 1",fieldPath=".workload.replicas",message="workload.replicas must be 0 or 1 with workload.persistence: the volume and the store on it have one writer; leave replicas out, or persistence"
// +kubebuilder:validation:XValidation:rule="!has(self.expose) || has(self.ports)",fieldPath=".expose",message="expose needs ports: say in ports where the process listens"
// +kubebuilder:validation:XValidation:rule="!has(self.allow) || has(self.ports)",fieldPath=".allow",message="allow needs ports: say in ports where the process listens"
// +kubebuilder:validation:XValidation:rule="!has(self.allow) || self.allow.map(a, a.methods.map(m, size(m)).sum() + (has(a.from.spiffeID) ? size(a.from.spiffeID) : 0)).sum() <= 32768",fieldPath=".allow",message="allow must have methods and SPIFFE IDs of together at most 32,768 characters, since the proxy has them for each port: write package.Service/* for all methods of a service, or leave rules out that nobody uses"
// +kubebuilder:validation:XValidation:rule="!has(self.expose) || !self.expose.exists(e, has(e.transcode) && e.transcode) || has(self.api)",fieldPath=".api",message="api.descriptorSet must be given where expose has transcode: true, for it says what JSON the methods take"
// +kubebuilder:validation:XValidation:rule="!has(self.dependsOn) || self.dependsOn.all(d, self.dependsOn.exists_one(e, e.localPort == d.localPort))",fieldPath=".dependsOn",message="dependsOn must each have a localPort of their own: choose another for one of those that share it"
// +kubebuilder:validation:XValidation:rule="!has(self.dependsOn) || !has(self.ports) || !self.dependsOn.exists(d, self.ports.exists(p, p.port == d.localPort))",fieldPath=".dependsOn",message="dependsOn must not have a localPort that is one of ports: the process itself listens there; choose another localPort"
// +kubebuilder:validation:XValidation:rule="!has(self.ports) || self.ports.all(p, self.ports.exists_one(q, q.port == p.port))",fieldPath=".ports",message="ports must each have a port of their own: choose another for one of those that share it"
// +kubebuilder:validation:XValidation:rule="!has(self.workload.health) || !has(self.ports) || !self.ports.exists(p, p.port == self.workload.health.port)",fieldPath=".workload.health.port",message="workload.health.port must not be one of ports: those are on loopback only, while the page is on the pod's address; have the process serve it on another port"
// +kubebuilder:validation:XValidation:rule="!has(self.workload.health) || !has(self.dependsOn) || !self.dependsOn.exists(d, d.localPort == self.workload.health.port)",fieldPath=".workload.health.port",message="workload.health.port must not be a localPort of dependsOn, where the sidecar listens: choose another localPort"
// +kubebuilder:validation:XValidation:rule="!has(self.ports) || !has(oldSelf.ports) || self.ports.all(p, oldSelf.ports.exists(o, o.name == p.name)) || oldSelf.ports.all(o, self.ports.exists(p, p.name == o.name))",fieldPath=".ports",message="ports can be added or removed, but not both in one change, for the pods that run know the old ones only: add the new ones, move the callers to them, and remove the old ones last"
// +kubebuilder:validation:XValidation:rule="!has(self.expose) || !has(self.ports) || self.expose.all(e, has(e.port) ? self.ports.exists(p, p.name == e.port) : self.ports.size() == 1)",fieldPath=".expose",message="expose must name one of ports in port, by its name and not its number, and may leave it out only where there is one"
type MeshServiceSpec struct {
	// identity is who the service is. Unset, a ServiceIdentity with the default SPIFFE ID,
	// spiffe://<trust domain>/ns/<namespace>/sa/<service account>, is created for it.
	// +optional
	Identity *IdentitySource `json:"identity,omitempty"`

	// dataPlane is how the service meets the mesh. Sidecar (the default): an Envoy beside the process does mTLS and enforces
	// allow. Library: the process does both itself, which workload.policySupport must say.
	// +optional
	// +kubebuilder:default=Sidecar
	DataPlane DataPlane `json:"dataPlane,omitempty"`

	// ports are where the process listens, at most 8. Each gets an mTLS listener for the peers, and is itself on loopback
	// only. Unset, nobody can call the service. A port stays where it is while others come and go. To move one, have the
	// callers and expose name it, add another under a new name, move the callers, and remove it last: pods of the old and
	// the new revision have the same proxy config.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	Ports []ServicePort `json:"ports,omitempty"`

	// api describes what the service speaks. Needed where expose has transcode.
	// +optional
	API *API `json:"api,omitempty"`

	// workload is what runs.
	// +required
	Workload Workload `json:"workload"`

	// dependsOn are the services that this one calls, at most 16. Each must allow it.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	DependsOn []Dependency `json:"dependsOn,omitempty"`

	// allow are who may call this service, and which methods, at most 64 rules, of together at most 32,768 characters. Whatever
	// no rule names is refused.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Allow []AllowRule `json:"allow,omitempty"`

	// expose are the ways in from outside the mesh, through a MeshGateway, at most 16. Each implies the gateway's allow for
	// just its methods.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Expose []Exposure `json:"expose,omitempty"`

	// egress is what the service calls that is no mesh peer, such as its database, at most 16. Everything else is closed to
	// its pods by a NetworkPolicy.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Egress []EgressRule `json:"egress,omitempty"`
}

// IdentitySource is a ServiceIdentity that exists, or what the one to create has.
// +kubebuilder:validation:XValidation:rule="!has(self.name) || !has(self.path) && !has(self.x509SVIDTTL) && !has(self.jwtSVIDTTL) && !has(self.dnsNames)",message="identity has either name, of a ServiceIdentity that exists, or path, x509SVIDTTL, jwtSVIDTTL and dnsNames of the one to create: set these on the ServiceIdentity itself, or leave name out"
type IdentitySource struct {
	// name is a ServiceIdentity in the same namespace, at most 52 characters. Its service account and pod labels must be
	// those of this object's pods. Unset, a ServiceIdentity with this object's name is created from the fields below. Immutable.
	// +optional
	Name ObjectName `json:"name,omitempty"`

	// path is the path of the SPIFFE ID, at most 1,784 bytes, as in ServiceIdentity. Any but the default has to be granted to
	// the namespace, with the annotation mesh.jia.app/spiffe-path-prefixes. Immutable.
	// +optional
	// +kubebuilder:validation:MaxLength=1784
	// +kubebuilder:validation:XValidation:rule="self.matches('^(/([.]*[a-zA-Z0-9_-][a-zA-Z0-9._-]*|[.]{3,}))+$')",message="path must consist of segments, as in /payments/api: each a slash and then letters, digits, dots, hyphens or underscores; no empty segment, no . or .. as a segment, no slash at the end; for the default ID leave path out"
	// +kubebuilder:validation:XValidation:rule="self != '/spire' && !self.startsWith('/spire/')",message="path must not be /spire or below it, which SPIRE keeps for itself: choose another first segment"
	Path string `json:"path,omitempty"`

	// x509SVIDTTL is how long an X.509 SVID is valid, from 1m to 168h, in whole seconds. Unset, the SPIRE server's default.
	// +optional
	// +kubebuilder:validation:XValidation:rule="!self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$') || duration(self) >= duration('1m') && duration(self) <= duration('168h') && duration(self).getMilliseconds() % 1000 == 0",message="x509SVIDTTL must be a whole number of seconds from 1m to 168h, for example 1h"
	X509SVIDTTL Duration `json:"x509SVIDTTL,omitempty"`

	// jwtSVIDTTL is how long a JWT SVID is valid, from 30s to 24h, in whole seconds. Unset, the SPIRE server's default.
	// +optional
	// +kubebuilder:validation:XValidation:rule="!self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$') || duration(self) >= duration('30s') && duration(self) <= duration('24h') && duration(self).getMilliseconds() % 1000 == 0",message="jwtSVIDTTL must be a whole number of seconds from 30s to 24h, for example 5m"
	JWTSVIDTTL Duration `json:"jwtSVIDTTL,omitempty"`

	// dnsNames are the DNS names that the X.509 SVID carries beside the SPIFFE ID. At most 32, each at most 253 characters.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	DNSNames []DNSName `json:"dnsNames,omitempty"`
}

// ServicePort is a port of the process.
type ServicePort struct {
	// name of the port, for callers with more than one to choose from. At most 15 characters, as ports of a Service have.
	// +required
	// +kubebuilder:validation:MaxLength=15
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && !self.contains('--')",message="the name of a port must be a lower case letter, then lower case letters, digits and single hyphens, with a letter or digit last, for example grpc"
	Name string `json:"name"`

	// port is where the process listens, on loopback, from 1024 to 65535. 8500 and 9090 and those from 15000 to 15999 are taken.
	// Immutable while the port has this name.
	// +required
	// +kubebuilder:validation:Minimum=1024
	// +kubebuilder:validation:Maximum=65535
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="port cannot change under the same name, for the pods that run listen there: have the callers name it, add another port under a new name, move the callers to that, and remove this one"
	// +kubebuilder:validation:XValidation:rule="self != 8500 && self != 9090 && (self < 15000 || self > 15999)",message="port must not be 8500 (the proxy's admin), 9090 (/metrics and /health) or from 15000 to 15999 (the proxy's listeners): choose another"
	Port int32 `json:"port"`

	// protocol is what the port speaks: GRPC.
	// +required
	Protocol Protocol `json:"protocol"`
}

// API describes what a service speaks.
type API struct {
	// descriptorSet is a google.protobuf.FileDescriptorSet with all its imports, as `buf build` or
	// `protoc --include_imports --descriptor_set_out` writes it, in binaryData of a ConfigMap. For error details in JSON it
	// must include google/rpc/error_details.proto.
	// +required
	DescriptorSet ConfigMapKey `json:"descriptorSet"`
}

// Dependency is a service that this one calls.
type Dependency struct {
	// name of the dependency, at most 63 characters. In upper case and with _ for - it makes the variable <NAME>_ADDRESS.
	// +required
	// +kubebuilder:validation:XValidation:rule="!self.matches('^[0-9]')",message="the name of one of dependsOn must begin with a letter, for it makes the variable <NAME>_ADDRESS: for example second-ledger for 2nd-ledger"
	// +kubebuilder:validation:XValidation:rule="self != 'paymesh'",message="the name of one of dependsOn must be another than paymesh, for PAYMESH_SPIFFE_ID is the process's own: for example paymesh-api"
	Name ItemName `json:"name"`

	// service is the MeshService to call.
	// +required
	Service ObjectReference `json:"service"`

	// port is the name of its port, at most 15 characters. Needed only where it has several: unset, it is the only one.
	// +optional
	// +kubebuilder:validation:MaxLength=15
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$') && !self.contains('--')",message="port must be the name of a port, for example grpc, not its number: where there is only one leave it out"
	Port string `json:"port,omitempty"`

	// localPort is where the process dials: 127.0.0.1:localPort is the sidecar's way to the service. From 1024 to 65535; 8500
	// and 9090 and those from 15000 to 15999 are taken. With dataPlane Library it is not used. Immutable while the dependency
	// has this name.
	// +required
	// +kubebuilder:validation:Minimum=1024
	// +kubebuilder:validation:Maximum=65535
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="localPort cannot change under the same name, for the pods that run dial it: add the dependency once more under a new name, with the new localPort, and remove this one when no pod dials it"
	// +kubebuilder:validation:XValidation:rule="self != 8500 && self != 9090 && (self < 15000 || self > 15999)",message="localPort must not be 8500 (the proxy's admin), 9090 (/metrics and /health) or from 15000 to 15999 (the proxy's listeners): choose another"
	LocalPort int32 `json:"localPort"`

	// timeout bounds a call, from 1ms to 1h. Unset, 15s.
	// +optional
	// +kubebuilder:validation:XValidation:rule="!self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$') || duration(self) >= duration('1ms') && duration(self) <= duration('1h')",message="timeout must be from 1ms to 1h, for example 2s"
	Timeout Duration `json:"timeout,omitempty"`
}

// AllowRule lets a caller call methods.
type AllowRule struct {
	// name of the rule, at most 63 characters: denials and access logs name it.
	// +required
	Name ItemName `json:"name"`

	// from is who may call.
	// +required
	From Caller `json:"from"`

	// methods are what it may call, from 1 to 64, each of at most 256 characters: package.Service/Method, package.Service/*
	// or *.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Methods []Method `json:"methods"`
}

// Caller is a MeshService, or whoever has a SPIFFE ID.
// +kubebuilder:validation:XValidation:rule="has(self.service) != has(self.spiffeID)",message="from must have exactly one of service, a MeshService, and spiffeID, a caller outside this cluster"
// +structType=atomic
type Caller struct {
	// service is a MeshService. Traffic flows when its dependsOn names this one.
	// +optional
	Service *ObjectReference `json:"service,omitempty"`

	// spiffeID is a caller that is no MeshService of this cluster, at most 2,048 bytes. The network is open to it from
	// everywhere: mTLS and the rule decide.
	// +optional
	SPIFFEID SPIFFEID `json:"spiffeID,omitempty"`
}

// NativeProtocol is what a gateway passes on as it comes.
// +kubebuilder:validation:Enum=GRPC
type NativeProtocol string

// NativeGRPC is gRPC as it comes.
const NativeGRPC NativeProtocol = "GRPC"

// Exposure is a way in from outside the mesh.
// +kubebuilder:validation:XValidation:rule="has(self.transcode) && self.transcode || has(self.protocols)",message="expose must say how each is served: transcode: true for JSON over HTTP, protocols: [GRPC] for native gRPC, or both"
type Exposure struct {
	// name of the exposure. At most 63 characters.
	// +required
	Name ItemName `json:"name"`

	// gateway is the MeshGateway. Its routes must admit this namespace and the host names.
	// +required
	Gateway ObjectReference `json:"gateway"`

	// port is the name of one of ports, at most 15 characters. Needed only where there are several: unset, it is the only one.
	// +optional
	// +kubebuilder:validation:MaxLength=15
	Port string `json:"port,omitempty"`

	// hostnames under which the methods are served, from 1 to 16, each of at most 253 characters.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Hostnames []Hostname `json:"hostnames"`

	// methods that are served, from 1 to 64, each of at most 256 characters: package.Service/Method or package.Service/*.
	// Nothing else of the service is reachable.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Methods []ExactMethod `json:"methods"`

	// transcode serves the methods as JSON over HTTP, at the paths of their google.api.http options in api.descriptorSet.
	// Unset, it does not.
	// +optional
	Transcode bool `json:"transcode,omitempty"`

	// protocols that are passed on as they come, at most 1: GRPC. Unset, no gRPC call from outside reaches the service.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=1
	Protocols []NativeProtocol `json:"protocols,omitempty"`

	// auth is how the caller proves who it is. It is never implied.
	// +required
	Auth ExposureAuth `json:"auth"`
}

// ExposureAuth is how a caller from outside proves who it is.
type ExposureAuth struct {
	// jwt is the name of one of the gateway's jwt, at most 63 characters: a token of that issuer is needed, and passed on.
	// +required
	JWT ItemName `json:"jwt"`
}

// EgressRule opens the way to what is no mesh peer.
type EgressRule struct {
	// name of the rule. At most 63 characters.
	// +required
	Name ItemName `json:"name"`

	// to is where.
	// +required
	To EgressTarget `json:"to"`

	// port there, TCP, from 1 to 65535.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port"`
}

// EgressTarget is a range of addresses, or pods.
// +kubebuilder:validation:XValidation:rule="has(self.cidr) != has(self.selector)",message="to must have exactly one of cidr, for addresses outside the cluster, and selector, for pods"
// +structType=atomic
type EgressTarget struct {
	// cidr is a range of addresses, for example 10.20.0.0/16. At most 64 characters.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:XValidation:rule="isCIDR(self)",message="cidr must be an address and the length of its prefix, for example 10.20.0.0/16, or 10.20.0.7/32 for one address"
	CIDR string `json:"cidr,omitempty"`

	// selector are pods by their labels.
	// +optional
	Selector *PodSelector `json:"selector,omitempty"`
}

// PodSelector selects pods of one namespace.
type PodSelector struct {
	// namespace of the pods, at most 63 characters. Unset, it is this object's.
	// +optional
	Namespace NamespaceName `json:"namespace,omitempty"`

	// podLabels that the pods carry, from 1 to 16, as Kubernetes has labels: values of at most 63 characters.
	// +required
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=16
	// +kubebuilder:validation:XValidation:rule="self.all(k, !format.qualifiedName().validate(k).hasValue())",message="podLabels must have label keys, for example app or app.kubernetes.io/name: at most 63 letters, digits, hyphens, underscores and dots, with a letter or digit first and last; before it, if wanted, a lower case DNS name and a slash"
	PodLabels map[string]LabelValue `json:"podLabels"`
}

// MeshService runs a service in the mesh: its identity, its workload, and who may talk to whom.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:subresource:scale:specpath=.spec.workload.replicas,statuspath=.status.replicas,selectorpath=.status.selector
// +kubebuilder:resource:shortName=msvc,categories=paymesh
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Identity",type=string,JSONPath=`.status.conditions[?(@.type=="Registered")].status`
// +kubebuilder:printcolumn:name="Proxies",type=string,JSONPath=`.status.proxies.summary`
// +kubebuilder:printcolumn:name="Endpoints",type=integer,JSONPath=`.status.endpoints`
// +kubebuilder:printcolumn:name="SPIFFE ID",type=string,priority=1,JSONPath=`.status.spiffeID`
// +kubebuilder:printcolumn:name="Config",type=string,priority=1,JSONPath=`.status.configVersion`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 52 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",message="metadata.name must be a DNS-1035 label of at most 52 characters, for example payment-service: a lower case letter, then lower case letters, digits and hyphens, with a letter or digit last"
type MeshService struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard object metadata. The name is a DNS-1035 label of at most 52 characters.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec says what runs, as whom, and who may talk to whom.
	// +required
	Spec MeshServiceSpec `json:"spec"`

	// status says what of the spec is true.
	// +optional
	Status MeshServiceStatus `json:"status,omitempty"`
}

// MeshServiceList is a list of MeshServices.
// +kubebuilder:object:root=true
type MeshServiceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// items are the MeshServices.
	Items []MeshService `json:"items"`
}
