package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ServiceIdentitySpec says which pods get an identity, and which one.
// +kubebuilder:validation:XValidation:rule="has(self.path) == has(oldSelf.path) && (!has(self.path) || self.path == oldSelf.path)",fieldPath=".path",message="path cannot be set, changed or removed later, for it is the SPIFFE ID that peers know: create another ServiceIdentity and delete this one when nobody uses it"
// +kubebuilder:validation:XValidation:rule="has(self.pathTemplate) == has(oldSelf.pathTemplate) && (!has(self.pathTemplate) || self.pathTemplate == oldSelf.pathTemplate)",fieldPath=".pathTemplate",message="pathTemplate cannot be set, changed or removed later, for it makes the SPIFFE ID that peers know: create another ServiceIdentity and delete this one when nobody uses it"
// +kubebuilder:validation:XValidation:rule="!has(self.pathTemplate) || has(self.podLabels) == has(oldSelf.podLabels) && (!has(self.podLabels) || self.podLabels == oldSelf.podLabels)",fieldPath=".podLabels",message="podLabels cannot be changed beside a pathTemplate, which may make the SPIFFE ID of them: create another ServiceIdentity and delete this one when nobody uses it"
// +kubebuilder:validation:XValidation:rule="!has(self.path) || !has(self.pathTemplate)",fieldPath=".pathTemplate",message="pathTemplate and path exclude one another: write one of them"
type ServiceIdentitySpec struct {
	// path is the path of the SPIFFE ID: /payments/api makes spiffe://<trust domain>/payments/api. At most 1,784 bytes, so
	// that the whole ID keeps to 2,048; not /spire or below. Unset, it is /ns/<namespace>/sa/<serviceAccountName>. Any
	// other path has to be granted to the namespace by an administrator, with the annotation
	// mesh.jia.app/spiffe-path-prefixes. Immutable.
	// +optional
	// +kubebuilder:validation:MaxLength=1784
	// +kubebuilder:validation:XValidation:rule="self.matches('^(/([.]*[a-zA-Z0-9_-][a-zA-Z0-9._-]*|[.]{3,}))+$')",message="path must consist of segments, as in /payments/api: each a slash and then letters, digits, dots, hyphens or underscores; no empty segment, no . or .. as a segment, no slash at the end; for the default ID leave path out"
	// +kubebuilder:validation:XValidation:rule="self != '/spire' && !self.startsWith('/spire/')",message="path must not be /spire or below it, which SPIRE keeps for itself: choose another first segment"
	Path string `json:"path,omitempty"`

	// pathTemplate is a path with places for values, instead of path: /{{cluster}}/{{namespace}}/pay-{{podLabels.tier}}. The
	// variables are {{cluster}}, {{namespace}}, {{serviceAccount}} and {{podLabels.<key>}}, which takes the value that
	// podLabels has for the key: where there is none, the object is not Accepted. At most 1,784 bytes. What comes out is
	// granted as path is. Immutable, and podLabels with it.
	// +optional
	// +kubebuilder:validation:MaxLength=1784
	// +kubebuilder:validation:XValidation:rule="self.matches('^(/([a-zA-Z0-9._-]|[{][{](cluster|namespace|serviceAccount|podLabels[.][a-zA-Z0-9./_-]+)[}][}])+)+$') && !self.matches('/[.]{1,2}(/|$)')",message="pathTemplate must consist of segments, as in /{{namespace}}/{{podLabels.app}}: each a slash, then letters, digits, dots, hyphens, underscores and {{cluster}}, {{namespace}}, {{serviceAccount}} or {{podLabels.<key>}}, without spaces; no empty segment, no . or .. as a segment, no slash at the end"
	// +kubebuilder:validation:XValidation:rule="self != '/spire' && !self.startsWith('/spire/')",message="pathTemplate must not be /spire or below it, which SPIRE keeps for itself: choose another first segment"
	PathTemplate string `json:"pathTemplate,omitempty"`

	// serviceAccountName is the ServiceAccount, in the same namespace, whose pods get the identity. At most 253 characters.
	// Immutable.
	// +required
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",message="serviceAccountName must be the name of a ServiceAccount, for example payment-service: lower case letters, digits, hyphens and dots, with a letter or digit first, last and around each dot"
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="serviceAccountName cannot be changed: create another ServiceIdentity and delete this one when nobody uses it"
	ServiceAccountName string `json:"serviceAccountName"`

	// podLabels narrow the pods of the ServiceAccount to those that carry all of these labels. At most 16, as Kubernetes
	// has labels: keys such as app or app.kubernetes.io/name, values of at most 63 characters. Unset or empty, every pod
	// of the ServiceAccount is meant.
	// +optional
	// +kubebuilder:validation:MaxProperties=16
	// +kubebuilder:validation:XValidation:rule="self.all(k, !format.qualifiedName().validate(k).hasValue())",message="podLabels must have label keys, for example app or app.kubernetes.io/name: at most 63 letters, digits, hyphens, underscores and dots, with a letter or digit first and last; before it, if wanted, a lower case DNS name and a slash"
	PodLabels map[string]LabelValue `json:"podLabels,omitempty"`

	// x509SVIDTTL is how long an X.509 SVID of this identity is valid, from 1m to 168h, in whole seconds. SPIRE renews it
	// at half of it and never issues one that outlives its CA. Unset, the SPIRE server's default holds.
	// +optional
	// +kubebuilder:validation:XValidation:rule="!self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$') || duration(self) >= duration('1m') && duration(self) <= duration('168h') && duration(self).getMilliseconds() % 1000 == 0",message="x509SVIDTTL must be a whole number of seconds from 1m to 168h, for example 1h"
	X509SVIDTTL Duration `json:"x509SVIDTTL,omitempty"`

	// jwtSVIDTTL is how long a JWT SVID of this identity is valid, from 30s to 24h, in whole seconds. A token cannot be
	// taken back: keep it short. Unset, the SPIRE server's default holds.
	// +optional
	// +kubebuilder:validation:XValidation:rule="!self.matches('^([0-9]{1,5}(h|m|s|ms)){1,4}$') || duration(self) >= duration('30s') && duration(self) <= duration('24h') && duration(self).getMilliseconds() % 1000 == 0",message="jwtSVIDTTL must be a whole number of seconds from 30s to 24h, for example 5m"
	JWTSVIDTTL Duration `json:"jwtSVIDTTL,omitempty"`

	// dnsNames are the DNS names that the X.509 SVID carries beside the SPIFFE ID, for clients that check host names. At most
	// 32, each at most 253 characters, in lower case; no wildcards. They need no grant: authorise by SPIFFE ID.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	DNSNames []DNSName `json:"dnsNames,omitempty"`

	// serviceDNSNames adds the DNS names of the Services that select a pod of the identity, as name, name.namespace,
	// name.namespace.svc and with the cluster's domain, behind dnsNames. They come and go with the Services, without a new
	// identity: SPIRE renews the certificates. Of more than 16 Services the first by name count. Default false.
	// +optional
	ServiceDNSNames bool `json:"serviceDNSNames,omitempty"`

	// federatesWith are the trust domains whose bundles the pods get beside their own, so that they can check who calls them
	// from there: partner.example, without spiffe://. At most 32, each at most 255 characters. One of which the SPIRE server
	// has no bundle is left out, named in the condition Registered, and joins when there is one. The own needs no mention.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	FederatesWith []TrustDomain `json:"federatesWith,omitempty"`

	// placement is where SPIRE lets the identity be had. Node (the default): on the nodes that run its pods, an entry for each,
	// so that a node that is broken into yields only what runs there. Cluster: on every node of the cluster, by one entry that
	// is there before any pod; for what runs on most nodes or must start at once. It can be changed: the new entries are there
	// before the old ones go.
	// +optional
	// +kubebuilder:default=Node
	Placement Placement `json:"placement,omitempty"`

	// hint tells a workload that has several identities which one this is (SPIFFE Workload API, section 5.2.1). At most
	// 255 characters. SPIRE gives a workload only one of its identities with the same hint.
	// +optional
	// +kubebuilder:validation:MaxLength=255
	Hint string `json:"hint,omitempty"`
}

// LabelValue is the value of a Kubernetes label: at most 63 characters, or empty.
// +kubebuilder:validation:MaxLength=63
// +kubebuilder:validation:XValidation:rule="self.matches('^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$')",message="podLabels must have label values, for example payment: letters, digits, hyphens, underscores and dots, with a letter or digit first and last; or the empty string"
type LabelValue string

// DNSName is a DNS name in lower case, as RFC 1123 has it: at most 253 characters.
// +kubebuilder:validation:MaxLength=253
// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?([.][a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$')",message="dnsNames must be DNS names in lower case, for example payment.example.com: labels of at most 63 letters, digits and hyphens, with a letter or digit first and last, and a dot between them; write each name out, wildcards are not allowed"
// +kubebuilder:validation:XValidation:rule="!self.matches('(^|[.])..--')",message="dnsNames must not have two hyphens as the third and fourth character of a label, as xn--... has: SPIRE refuses all of these but correct punycode; choose another name"
type DNSName string

// Placement says where an identity can be had: Node or Cluster.
// +kubebuilder:validation:Enum=Node;Cluster
type Placement string

const (
	// PlacementNode is an entry for each node that runs pods of the identity.
	PlacementNode Placement = "Node"
	// PlacementCluster is one entry for all nodes of the cluster.
	PlacementCluster Placement = "Cluster"
)

// TrustDomain is the name of a SPIFFE trust domain, as SPIFFE-ID, section 2.1, has it: at most 255 characters.
// +kubebuilder:validation:MaxLength=255
// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9._-]+$')",message="federatesWith must be names of trust domains, for example partner.example: lower case letters, digits, dots, hyphens and underscores; no spiffe://, no path"
type TrustDomain string

// ServiceIdentityStatus says what of the spec is true.
type ServiceIdentityStatus struct {
	// observedGeneration is the generation of the spec that this status was computed from.
	// +optional
	// +kubebuilder:validation:Minimum=0
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// spiffeID is the SPIFFE ID that the spec asks for. The selected pods get it where the condition Ready is True.
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	SPIFFEID string `json:"spiffeID,omitempty"`

	// entries counts the registration entries: one for each node that runs the identity, or with placement Cluster one.
	// +optional
	Entries *EntryCount `json:"entries,omitempty"`

	// waitingPods are the pods of the identity that do not have it, by why: the reason of the condition Registered where SPIRE
	// does not hold what they need; NodeUnknown where the API server does not show their node; Unscheduled where they are
	// bound to none yet.
	// +optional
	// +listType=map
	// +listMapKey=reason
	// +kubebuilder:validation:MaxItems=8
	WaitingPods []WaitingPods `json:"waitingPods,omitempty"`

	// outageBudget is how long a pod that has its X.509 SVID keeps a valid one, at least, when the SPIRE server goes away:
	// 0.45 of the SVID's lifetime, since agents renew it at half of that, give or take a tenth of it. An example is 27m0s.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	OutageBudget string `json:"outageBudget,omitempty"`

	// conditions are Accepted, Registered and Ready.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=8
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// WaitingPods are pods that wait for the same thing.
type WaitingPods struct {
	// reason is what they wait for. At most 64 characters.
	// +required
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason"`

	// count is how many they are.
	// +required
	// +kubebuilder:validation:Minimum=1
	Count int32 `json:"count"`

	// names are those of the first ten of them, in alphabetical order.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10
	// +kubebuilder:validation:items:MaxLength=253
	Names []string `json:"names,omitempty"`
}

// EntryCount counts the registration entries of an identity.
type EntryCount struct {
	// wanted is the number of nodes that run pods of the identity, and 1 with placement Cluster.
	// +required
	// +kubebuilder:validation:Minimum=0
	Wanted int32 `json:"wanted"`

	// registered is how many of the wanted entries the SPIRE server was last seen to hold, exactly as rendered.
	// +required
	// +kubebuilder:validation:Minimum=0
	Registered int32 `json:"registered"`

	// summary is registered/wanted, for the column ENTRIES.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Summary string `json:"summary,omitempty"`
}

// ServiceIdentity gives the pods of a ServiceAccount a SPIFFE ID: it becomes registration entries in the SPIRE server,
// one for each node that runs such a pod, or one for the cluster.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=sid,categories=paymesh
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="SPIFFE ID",type=string,JSONPath=`.status.spiffeID`
// +kubebuilder:printcolumn:name="Entries",type=string,JSONPath=`.status.entries.summary`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 52 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",message="metadata.name must be a DNS-1035 label of at most 52 characters, for example payment-service: a lower case letter, then lower case letters, digits and hyphens, with a letter or digit last"
type ServiceIdentity struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is the standard object metadata. The name is a DNS-1035 label of at most 52 characters.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec says which pods get which identity.
	// +required
	Spec ServiceIdentitySpec `json:"spec"`

	// status says what of the spec is true.
	// +optional
	Status ServiceIdentityStatus `json:"status,omitempty"`
}

// ServiceIdentityList is a list of ServiceIdentities.
// +kubebuilder:object:root=true
type ServiceIdentityList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	// items are the ServiceIdentities.
	Items []ServiceIdentity `json:"items"`
}
