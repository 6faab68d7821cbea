package v1alpha1

import (
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
)

// PolicySupport says whether an image enforces the rules of its MeshService by itself.
// +kubebuilder:validation:Enum=None;Enforced
type PolicySupport string

const (
	// PolicySupportNone is an image that leaves the rules to a sidecar.
	PolicySupportNone PolicySupport = "None"
	// PolicySupportEnforced is an image that speaks SPIFFE mTLS and refuses what its policy file does not allow.
	PolicySupportEnforced PolicySupport = "Enforced"
)

// RetentionPolicy says what becomes of data when the object that asked for it is deleted.
// +kubebuilder:validation:Enum=Retain;Delete
type RetentionPolicy string

const (
	// RetentionRetain keeps the data.
	RetentionRetain RetentionPolicy = "Retain"
	// RetentionDelete deletes the data.
	RetentionDelete RetentionPolicy = "Delete"
)

// Workload is what runs.
type Workload struct {
	// image of the process. At most 512 characters.
	// +required
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="self.matches('^[!-~]+$')",message="image must be the reference of an image, for example registry.example/payment:1.2: printable ASCII without spaces"
	Image string `json:"image"`

	// args of the image's entry point, at most 64, each at most 4,096 characters. Unset, the image's own. With config,
	// --config and its path come before them.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=4096
	Args []string `json:"args,omitempty"`

	// replicas is how many pods, from 0 to 1,000; 1 by default. 0 or 1 with persistence.
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000
	Replicas *int32 `json:"replicas,omitempty"`

	// env are environment variables of the process, at most 64. The operator adds <NAME>_ADDRESS for each of dependsOn, and
	// wins where the names are the same.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Env []EnvVar `json:"env,omitempty"`

	// resources of the process, as in a container. Unset, it is sure of nothing and has no limit. The sidecar has its own.
	// +optional
	Resources *Resources `json:"resources,omitempty"`

	// serviceAccountName is the ServiceAccount of the pods, at most 253 characters. Unset, one with this object's name is
	// created. Immutable.
	// +optional
	ServiceAccountName ResourceName `json:"serviceAccountName,omitempty"`

	// config is for images that read the payment service's config.yaml: what stands here is in that file, and the operator
	// adds what the mesh decides (addresses, SPIFFE IDs, the store's path). The file's path is the argument of --config.
	// For other images leave it out. It is checked by the operator: see the condition Accepted.
	// +optional
	// +kubebuilder:validation:Type=object
	// +kubebuilder:pruning:PreserveUnknownFields
	Config *apiextensionsv1.JSON `json:"config,omitempty"`

	// files are ConfigMaps of the namespace that the process finds as folders below /etc/paymesh/files/<name>, at most 8. The
	// kubelet refreshes them while the process runs.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	Files []FileSource `json:"files,omitempty"`

	// health is asked whether the process can take calls. Unset, it is /health on 9090 where config is set, and otherwise a
	// pod counts as ready when its proxy is and its process runs.
	// +optional
	Health *Health `json:"health,omitempty"`

	// persistence keeps a folder of the process on a volume. It then has one replica, replaced rather than rolled, and no
	// disruption budget.
	// +optional
	Persistence *Persistence `json:"persistence,omitempty"`

	// policySupport says whether the image enforces allow by itself. None (the default): it does not. Enforced is a promise
	// about the image, and needed for dataPlane Library, where nothing else stands between the network and the process.
	// +optional
	// +kubebuilder:default=None
	PolicySupport PolicySupport `json:"policySupport,omitempty"`

	// patch is a strategic merge patch of the Deployment, for what has no field here. The process's container is "app". It
	// cannot reach the proxy, the identity, the service account or the selector. It is checked by the operator: see the
	// condition Accepted.
	// +optional
	// +kubebuilder:validation:Type=object
	// +kubebuilder:pruning:PreserveUnknownFields
	Patch *apiextensionsv1.JSON `json:"patch,omitempty"`
}

// EnvVar is an environment variable.
// +kubebuilder:validation:XValidation:rule="!has(self.value) || !has(self.valueFrom)",message="env must have value or valueFrom of a variable, not both: leave one out"
type EnvVar struct {
	// name of the variable. At most 128 characters.
	// +required
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z_][A-Za-z0-9_]*$')",message="the name of a variable must consist of letters, digits and underscores, with no digit first, for example LOG_LEVEL"
	Name string `json:"name"`

	// value of the variable, at most 4,096 characters. Without it and valueFrom the variable is empty.
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	Value string `json:"value,omitempty"`

	// valueFrom takes the value from a Secret of the namespace, which the operator does not read.
	// +optional
	ValueFrom *EnvVarSource `json:"valueFrom,omitempty"`
}

// EnvVarSource is where a value comes from.
type EnvVarSource struct {
	// secretKeyRef is a key of a Secret in the same namespace.
	// +required
	SecretKeyRef SecretKey `json:"secretKeyRef"`
}

// SecretKey names a key of a Secret in the same namespace.
// +structType=atomic
type SecretKey struct {
	// name of the Secret. At most 253 characters.
	// +required
	Name ResourceName `json:"name"`

	// key in its data. At most 253 characters.
	// +required
	Key DataKey `json:"key"`
}

// FileSource is a ConfigMap that a process finds as a folder.
type FileSource struct {
	// name of the folder below /etc/paymesh/files. At most 63 characters.
	// +required
	Name ItemName `json:"name"`

	// configMap in the same namespace. At most 253 characters.
	// +required
	ConfigMap ResourceName `json:"configMap"`
}

// Health is an HTTP page that answers 200 when the process can take calls.
type Health struct {
	// path of the page, for example /health. At most 256 characters.
	// +required
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:XValidation:rule="self.matches('^/[!-~]*$')",message="path must begin with a slash and have no spaces and only printable ASCII, for example /health"
	Path string `json:"path"`

	// port of the page, on the pod's address, from 1024 to 65535. 8500 and those from 15000 to 15999 are taken.
	// +required
	// +kubebuilder:validation:Minimum=1024
	// +kubebuilder:validation:Maximum=65535
	// +kubebuilder:validation:XValidation:rule="self != 8500 && (self < 15000 || self > 15999)",message="port must not be 8500 (the proxy's admin) or from 15000 to 15999 (the proxy's listeners): choose another"
	Port int32 `json:"port"`
}

// Persistence is a volume.
// +kubebuilder:validation:XValidation:rule="(has(self.storageClassName) ? self.storageClassName : \"\") == (has(oldSelf.storageClassName) ? oldSelf.storageClassName : \"\")",fieldPath=".storageClassName",message="storageClassName cannot be set, changed or removed later, for a volume stays in its class: create another MeshService and move the data there"
// +kubebuilder:validation:XValidation:rule="type(self.size) == string && !self.size.matches('^[0-9]+([.][0-9]+)?(m|k|[MGTPE]|[KMGTPE]i)?$') || type(oldSelf.size) == string && !oldSelf.size.matches('^[0-9]+([.][0-9]+)?(m|k|[MGTPE]|[KMGTPE]i)?$') || quantity(string(self.size)).compareTo(quantity(string(oldSelf.size))) >= 0",fieldPath=".size",message="size cannot shrink, for a volume only grows: leave it as it was, or create another MeshService and move the data there"
type Persistence struct {
	// size of the volume, at least 1Mi. It can grow where the storage class allows that, and never shrinks.
	// +required
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? self < 0 || self >= 1048576 : !self.matches('^[0-9]+([.][0-9]+)?(m|k|[MGTPE]|[KMGTPE]i)?$') || quantity(self).compareTo(quantity('1Mi')) >= 0",message="size must be at least 1Mi, for example 1Gi"
	Size Amount `json:"size"`

	// storageClassName of the volume, at most 253 characters. Unset, the cluster's default. Immutable.
	// +optional
	StorageClassName *ResourceName `json:"storageClassName,omitempty"`

	// mountPath is where the process finds the volume: /var/lib/paymesh by default. At most 256 characters; no folder of the
	// system or of the operator.
	// +optional
	// +kubebuilder:default=/var/lib/paymesh
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:XValidation:rule="self.matches('^(/[A-Za-z0-9._-]+)+$') && !self.matches('(^|/)[.]{1,2}(/|$)')",message="mountPath must be an absolute path, for example /var/lib/paymesh: a slash and letters, digits, dots, hyphens and underscores, again and again; no . or .. between slashes, no slash at the end"
	// +kubebuilder:validation:XValidation:rule="!self.matches('^/(bin|boot|dev|etc|lib|lib32|lib64|proc|run|sbin|sys|usr|var/run)(/|$)')",message="mountPath must not be in a folder of the system or of the operator, such as /etc, /proc, /run or /usr, which the volume would hide: choose one such as /var/lib/paymesh"
	MountPath string `json:"mountPath,omitempty"`

	// whenDeleted says what becomes of the volume when the MeshService is deleted. Retain (the default) keeps it, and a
	// MeshService of the same name finds its data again. Delete deletes it.
	// +optional
	// +kubebuilder:default=Retain
	WhenDeleted RetentionPolicy `json:"whenDeleted,omitempty"`
}
