package mesh

import (
	"cmp"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
)

// What an object refers to: what Build looks for, what is read for it, and by what the way back is found from an object that
// has changed to those that refer to it. Who knows it here alone can forget it in none of the three.

// CalleesOf are the MeshServices that a MeshService depends on.
func CalleesOf(object *meshv1alpha1.MeshService) []types.NamespacedName {
	keys := make([]types.NamespacedName, len(object.Spec.DependsOn))
	for i, dependency := range object.Spec.DependsOn {
		keys[i] = referenced(object, dependency.Service)
	}
	return keys
}

// GatewaysOf are the MeshGateways that a MeshService is exposed at.
func GatewaysOf(object *meshv1alpha1.MeshService) []types.NamespacedName {
	keys := make([]types.NamespacedName, len(object.Spec.Expose))
	for i, exposure := range object.Spec.Expose {
		keys[i] = referenced(object, exposure.Gateway)
	}
	return keys
}

// IdentityOf is the ServiceIdentity of a MeshService or a MeshGateway: the one that it names, or that is created for it.
func IdentityOf(object metav1.Object) types.NamespacedName {
	key := keyOf(object)
	key.Name = cmp.Or(string(sourceOf(object).Name), key.Name)
	return key
}

// sourceOf is what a MeshService or a MeshGateway says of its identity; empty where it says nothing.
func sourceOf(object metav1.Object) meshv1alpha1.IdentitySource {
	var source *meshv1alpha1.IdentitySource
	switch o := object.(type) {
	case *meshv1alpha1.MeshService:
		source = o.Spec.Identity
	case *meshv1alpha1.MeshGateway:
		source = o.Spec.Identity
	}
	if source == nil {
		return meshv1alpha1.IdentitySource{}
	}
	return *source
}

// ConfigMapsOf are the ConfigMaps that a MeshService or a MeshGateway has files in.
func ConfigMapsOf(object metav1.Object) []types.NamespacedName {
	var keys []types.NamespacedName
	switch o := object.(type) {
	case *meshv1alpha1.MeshService:
		if o.Spec.API != nil {
			keys = append(keys, configMapOf(o, o.Spec.API.DescriptorSet))
		}
	case *meshv1alpha1.MeshGateway:
		for _, provider := range o.Spec.JWT {
			keys = append(keys, configMapOf(o, provider.JWKS))
		}
	}
	return keys
}

// referenced is the key that a reference means in an object.
func referenced(from metav1.Object, reference meshv1alpha1.ObjectReference) types.NamespacedName {
	return types.NamespacedName{Namespace: cmp.Or(string(reference.Namespace), from.GetNamespace()), Name: string(reference.Name)}
}

// configMapOf is the ConfigMap that a file of an object is in.
func configMapOf(from metav1.Object, file meshv1alpha1.ConfigMapKey) types.NamespacedName {
	return types.NamespacedName{Namespace: from.GetNamespace(), Name: string(file.ConfigMap)}
}
