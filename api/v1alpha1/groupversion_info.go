// Package v1alpha1 holds the kinds of the group mesh.jia.app: their fields, validation, condition types and reasons.
// +kubebuilder:object:generate=true
// +groupName=mesh.jia.app
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the API group and version of every kind in this package.
var GroupVersion = schema.GroupVersion{Group: "mesh.jia.app", Version: "v1alpha1"}

// AddToScheme registers the kinds of this package in a scheme.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion, &ServiceIdentity{}, &ServiceIdentityList{},
		&MeshService{}, &MeshServiceList{}, &MeshGateway{}, &MeshGatewayList{})
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
