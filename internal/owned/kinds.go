package owned

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
)

// The kinds that somebody names.
var (
	DeploymentKind = appsv1.SchemeGroupVersion.WithKind("Deployment")
	ConfigMapKind  = corev1.SchemeGroupVersion.WithKind("ConfigMap")
	IdentityKind   = meshv1alpha1.GroupVersion.WithKind(mesh.KindServiceIdentity)
	claimKind      = corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim")
)

// Kind is what there is to know of a kind of objects that a MeshService or a MeshGateway owns.
type Kind struct {
	schema.GroupVersionKind
	// OthersToo says that the controllers read also those that the operator has not made.
	OthersToo bool

	// whole and wholes are an empty object and an empty list, of a kind of which the controllers read more than the metadata.
	whole  client.Object
	wholes client.ObjectList
	// kept says that what is not wanted any more stays: what a mistake in the spec no longer wants would take the payments
	// with it.
	kept bool
	// shared says that Kubernetes itself has a say in the spec.
	shared bool
}

// kinds are in the order in which they are pruned.
var kinds = []Kind{
	{GroupVersionKind: DeploymentKind, whole: &appsv1.Deployment{}, wholes: &appsv1.DeploymentList{}},
	{GroupVersionKind: ConfigMapKind, OthersToo: true},
	{GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Service"), OthersToo: true},
	{GroupVersionKind: corev1.SchemeGroupVersion.WithKind("ServiceAccount"), shared: true},
	{GroupVersionKind: IdentityKind, OthersToo: true, whole: &meshv1alpha1.ServiceIdentity{}, wholes: &meshv1alpha1.ServiceIdentityList{}},
	{GroupVersionKind: networkingv1.SchemeGroupVersion.WithKind("NetworkPolicy")},
	{GroupVersionKind: policyv1.SchemeGroupVersion.WithKind("PodDisruptionBudget")},
	{GroupVersionKind: claimKind, kept: true, shared: true},
}

// Kinds are all of them.
func Kinds() []Kind { return slices.Clone(kinds) }

// about is what there is to know of a kind.
func about(kind schema.GroupVersionKind) Kind {
	if at := slices.IndexFunc(kinds, func(k Kind) bool { return k.GroupVersionKind == kind }); at >= 0 {
		return kinds[at]
	}
	return Kind{GroupVersionKind: kind}
}

// Object is an empty object in the form in which the cache has those of the kind: whole, or the metadata alone. Whoever reads or
// watches them in the other form starts a second informer.
func (k Kind) Object() client.Object {
	if k.whole != nil {
		return k.whole.DeepCopyObject().(client.Object) //nolint:forcetypeassert // it is one
	}
	object := &metav1.PartialObjectMetadata{}
	object.SetGroupVersionKind(k.GroupVersionKind)
	return object
}

// list is an empty list of what Object gives.
func (k Kind) list() client.ObjectList {
	if k.wholes != nil {
		return k.wholes.DeepCopyObject().(client.ObjectList) //nolint:forcetypeassert // it is one
	}
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(k.GroupVersion().WithKind(k.Kind + "List"))
	return list
}
