package controllers

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/owned"
	"github.com/jia-app/paymesh/internal/workload"
)

// CacheOptions keep in the cache only what the controllers read: of the kinds that the operator writes, its own objects. Of
// ConfigMaps only the metadata is ever asked for, and of all of them, since people's are referred to.
func CacheOptions() cache.Options {
	options := cache.Options{
		DefaultTransform: cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Pod{}: {Transform: stripPod},
			// All of them: identities are named after people's, too.
			&corev1.Service{}:   {Transform: stripService},
			&corev1.ConfigMap{}: {Transform: stripConfigMap},
			// The labels of a Service are those of its slices.
			&discoveryv1.EndpointSlice{}: {Label: labels.NewSelector().Add(hasLabel(meshv1alpha1.LabelService))},
		},
	}
	own := labels.SelectorFromSet(labels.Set{workload.LabelManagedBy: workload.ManagedBy})
	for _, kind := range owned.Kinds() {
		if !kind.OthersToo {
			options.ByObject[kind.Object()] = cache.ByObject{Label: own}
		}
	}
	return options
}

func hasLabel(key string) labels.Requirement {
	requirement, err := labels.NewRequirement(key, selection.Exists, nil)
	utilruntime.Must(err) // for a key that is no label's
	return *requirement
}

// stripConfigMap keeps of the metadata of a ConfigMap what says whose it is and that it changed: its annotations may hold all
// that it holds, as kubectl apply writes them.
func stripConfigMap(object any) (any, error) {
	if configMap, ok := object.(metav1.Object); ok {
		configMap.SetManagedFields(nil)
		configMap.SetAnnotations(nil)
	}
	return object, nil
}

// stripPod keeps of a Pod only what decides who runs where, and since when, and, of those of MeshServices and MeshGateways, what they wait for;
// of a gateway's also where its listeners are, and which certificates it has of them.
func stripPod(object any) (any, error) {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return object, nil // a tombstone
	}
	var owners []metav1.OwnerReference
	status := corev1.PodStatus{Phase: pod.Status.Phase}
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodScheduled {
			status.Conditions = []corev1.PodCondition{condition}
		}
	}
	var certificates []corev1.Volume
	if key, ours := memberOf(pod); ours {
		owners = pod.OwnerReferences
		if key.Kind == mesh.KindMeshGateway {
			status.PodIP, certificates = pod.Status.PodIP, workload.Certificates(pod)
		}
		status.Conditions = pod.Status.Conditions
		status.InitContainerStatuses, status.ContainerStatuses = pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses
	}
	return &corev1.Pod{
		TypeMeta: pod.TypeMeta,
		ObjectMeta: metav1.ObjectMeta{
			Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion,
			Labels: pod.Labels, CreationTimestamp: pod.CreationTimestamp, DeletionTimestamp: pod.DeletionTimestamp, OwnerReferences: owners,
		},
		Spec:   corev1.PodSpec{NodeName: pod.Spec.NodeName, ServiceAccountName: pod.Spec.ServiceAccountName, Volumes: certificates},
		Status: status,
	}, nil
}

// stripService keeps of a Service whom it selects, and of one of which only the metadata is read what everything keeps.
func stripService(object any) (any, error) {
	service, ok := object.(*corev1.Service)
	if !ok {
		return cache.TransformStripManagedFields()(object)
	}
	return &corev1.Service{
		TypeMeta: service.TypeMeta,
		ObjectMeta: metav1.ObjectMeta{
			Namespace: service.Namespace, Name: service.Name, UID: service.UID, ResourceVersion: service.ResourceVersion,
			DeletionTimestamp: service.DeletionTimestamp,
		},
		Spec: corev1.ServiceSpec{Type: service.Spec.Type, Selector: service.Spec.Selector},
	}, nil
}

// metadataOf is an empty object of a core kind of which only the metadata is read, watched and kept.
func metadataOf(kind string) *metav1.PartialObjectMetadata {
	object := &metav1.PartialObjectMetadata{}
	object.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind(kind))
	return object
}
