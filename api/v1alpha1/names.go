package v1alpha1

// ObjectName is the name of an object of this group: a DNS-1035 label of at most 52 characters.
// +kubebuilder:validation:MaxLength=52
// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",message="a name must be a DNS-1035 label, for example contact-service: a lower case letter, then lower case letters, digits and hyphens, with a letter or digit last"
type ObjectName string

// NamespaceName is the name of a namespace: a DNS-1123 label of at most 63 characters.
// +kubebuilder:validation:MaxLength=63
// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",message="a namespace must be a DNS label, for example payments: lower case letters, digits and hyphens, with a letter or digit first and last"
type NamespaceName string

// ItemName names an item of a list: a DNS-1123 label of at most 63 characters, unique in the list.
// +kubebuilder:validation:MaxLength=63
// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",message="a name in a list must be a DNS label, for example contact-service: lower case letters, digits and hyphens, with a letter or digit first and last"
type ItemName string

// ResourceName is the name of an object that another API defines: a DNS-1123 subdomain of at most 253 characters.
// +kubebuilder:validation:MaxLength=253
// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",message="a name of an object must consist of lower case letters, digits, hyphens and dots, with a letter or digit first, last and around each dot, for example users-jwks"
type ResourceName string

// DataKey is a key in the data of a ConfigMap or Secret: at most 253 letters, digits, hyphens, underscores and dots.
// +kubebuilder:validation:MaxLength=253
// +kubebuilder:validation:XValidation:rule="self.matches('^[-._a-zA-Z0-9]+$') && self != '.' && !self.startsWith('..')",message="a key of a ConfigMap or Secret must consist of letters, digits, hyphens, underscores and dots, for example payment.binpb, and not begin with two dots"
type DataKey string

// Hostname is a DNS name in lower case, at most 253 characters.
// +kubebuilder:validation:MaxLength=253
// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?([.][a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$')",message="a host name must be a DNS name in lower case, for example pay.example.com: no port, no scheme, no wildcard"
type Hostname string

// HostnamePattern is a Hostname, or *. before one for all names with exactly one more label.
// +kubebuilder:validation:MaxLength=253
// +kubebuilder:validation:XValidation:rule="self.matches('^([*][.])?[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?([.][a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$')",message="a host name must be a DNS name in lower case, for example pay.example.com, or *.example.com for every name with one more label; no port, no scheme"
type HostnamePattern string

// Method names gRPC methods: package.Service/Method, package.Service/* for all of a service, or * for all.
// +kubebuilder:validation:MaxLength=256
// +kubebuilder:validation:XValidation:rule="self.matches('^([*]|([A-Za-z_][A-Za-z0-9_]*[.])*[A-Za-z_][A-Za-z0-9_]*/([*]|[A-Za-z_][A-Za-z0-9_]*))$')",message="a method must be package.Service/Method, for example payment.v1.PaymentService/CreatePayment, or package.Service/* for all methods of a service, or * for all; without a slash in front"
type Method string

// ExactMethod names one gRPC method, or all of one service: package.Service/Method or package.Service/*.
// +kubebuilder:validation:MaxLength=256
// +kubebuilder:validation:XValidation:rule="self.matches('^([A-Za-z_][A-Za-z0-9_]*[.])*[A-Za-z_][A-Za-z0-9_]*/([*]|[A-Za-z_][A-Za-z0-9_]*)$')",message="a method to expose must be package.Service/Method, for example payment.v1.PaymentService/CreatePayment, or package.Service/* for all methods of one service; without a slash in front"
type ExactMethod string

// SPIFFEID is a SPIFFE ID with a path, at most 2,048 bytes (SPIFFE-ID, section 2).
// +kubebuilder:validation:MaxLength=2048
// +kubebuilder:validation:XValidation:rule="self.matches('^spiffe://[a-z0-9._-]{1,255}(/([.]*[a-zA-Z0-9_-][a-zA-Z0-9._-]*|[.]{3,}))+$')",message="spiffeID must be the SPIFFE ID of a workload, for example spiffe://jia.app/ns/billing/sa/till: spiffe://, a trust domain in lower case, and a path of segments of letters, digits, dots, hyphens and underscores"
type SPIFFEID string

// ObjectReference names an object of this group.
// +structType=atomic
type ObjectReference struct {
	// name of the object. At most 52 characters.
	// +required
	Name ObjectName `json:"name"`

	// namespace of the object, at most 63 characters. Unset, it is that of the object that refers to it.
	// +optional
	Namespace NamespaceName `json:"namespace,omitempty"`
}

// ConfigMapKey names a key of a ConfigMap in the same namespace.
// +structType=atomic
type ConfigMapKey struct {
	// configMap is the name of the ConfigMap. At most 253 characters.
	// +required
	ConfigMap ResourceName `json:"configMap"`

	// key in its data or binaryData. At most 253 characters.
	// +required
	Key DataKey `json:"key"`
}
