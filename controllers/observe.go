package controllers

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/spire"
	"github.com/jia-app/paymesh/internal/workload"
)

// The indexes by which a key's neighbours are found, so that what a reconcile reads does not grow with the cluster.
const (
	byServiceAccount = "spec.serviceAccountName" // Pods and ServiceIdentities
	byNode           = "spec.nodeName"           // Pods
	bySPIFFEPath     = "spiffePath"              // ServiceIdentities
	byUID            = "metadata.uid"            // Nodes
	byServiceNames   = "spec.serviceDNSNames"    // ServiceIdentities
	byPlacement      = "spec.placement"          // ServiceIdentities
	byFederation     = "spec.federatesWith"      // ServiceIdentities
)

// IndexFields adds the indexes of this package to a cache. Call it once, before the cache is started.
func IndexFields(ctx context.Context, indexer client.FieldIndexer, cluster mesh.ClusterID) error {
	for _, index := range []struct {
		object client.Object
		field  string
		values func(client.Object) []string
	}{
		{&corev1.Pod{}, byServiceAccount, func(o client.Object) []string { return []string{mesh.ServiceAccountOf(o.(*corev1.Pod))} }},
		{&corev1.Pod{}, byNode, func(o client.Object) []string { return []string{o.(*corev1.Pod).Spec.NodeName} }},
		{&meshv1alpha1.ServiceIdentity{}, byServiceAccount, func(o client.Object) []string {
			return []string{o.(*meshv1alpha1.ServiceIdentity).Spec.ServiceAccountName}
		}},
		{&meshv1alpha1.ServiceIdentity{}, bySPIFFEPath, func(o client.Object) []string {
			path, err := cluster.Path(o.(*meshv1alpha1.ServiceIdentity))
			if err != nil {
				return nil // it is nobody's rival
			}
			return []string{path}
		}},
		{&meshv1alpha1.ServiceIdentity{}, byFederation, func(o client.Object) (trustDomains []string) {
			for _, trustDomain := range o.(*meshv1alpha1.ServiceIdentity).Spec.FederatesWith {
				trustDomains = append(trustDomains, string(trustDomain))
			}
			return trustDomains
		}},
		{&meshv1alpha1.ServiceIdentity{}, byPlacement, func(o client.Object) []string {
			return []string{string(o.(*meshv1alpha1.ServiceIdentity).Spec.Placement)}
		}},
		{&meshv1alpha1.ServiceIdentity{}, byServiceNames, func(o client.Object) []string {
			return []string{strconv.FormatBool(o.(*meshv1alpha1.ServiceIdentity).Spec.ServiceDNSNames)}
		}},
		{metadataOf("Node"), byUID, func(o client.Object) []string { return []string{string(o.GetUID())} }},
	} {
		if err := indexer.IndexField(ctx, index.object, index.field, index.values); err != nil {
			return fmt.Errorf("index %T by %s: %w", index.object, index.field, err)
		}
	}
	return nil
}

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
	for _, object := range []client.Object{
		&appsv1.Deployment{}, &corev1.PersistentVolumeClaim{}, &corev1.ServiceAccount{},
		&networkingv1.NetworkPolicy{}, &policyv1.PodDisruptionBudget{},
	} {
		options.ByObject[object] = cache.ByObject{Label: own}
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

// stripPod keeps of a Pod only what decides who runs where, and, of those of MeshServices and MeshGateways, what they wait for;
// of a gateway's also where its listeners are, and which certificates it has of them.
func stripPod(object any) (any, error) {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return object, nil // a tombstone
	}
	var owners []metav1.OwnerReference
	status := corev1.PodStatus{Phase: pod.Status.Phase}
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

// observe reads a ServiceIdentity's neighbourhood: its rivals, their namespaces, its pods and their nodes, and who of
// them holds entries. What cannot be read is an error: an unreadable world is not an empty one.
func (r *ServiceIdentityReconciler) observe(ctx context.Context, object *meshv1alpha1.ServiceIdentity) (mesh.Objects, error) {
	objects := mesh.Objects{Cluster: r.Cluster}
	rivals := &meshv1alpha1.ServiceIdentityList{}
	if path, err := r.Cluster.Path(object); err == nil { // else it has none, and no rivals
		if err := r.Client.List(ctx, rivals, client.MatchingFields{bySPIFFEPath: path}); err != nil {
			return objects, fmt.Errorf("list the ServiceIdentities with the path %s: %w", path, err)
		}
	}
	objects.Identities = append(objects.Identities, *object)
	for _, rival := range rivals.Items {
		if mesh.KeyOf(&rival) != mesh.KeyOf(object) {
			objects.Identities = append(objects.Identities, rival)
		}
	}
	objects.Entries.Unknown = !r.SPIRE.State().Synced
	objects.Bundles = r.SPIRE.Bundles()
	namespaces := sets.New[string]()
	for i := range objects.Identities {
		key := mesh.KeyOf(&objects.Identities[i])
		namespaces.Insert(key.Namespace)
		id := r.Cluster.IDOf(&objects.Identities[i]) // an object of this name may have had another ID before
		if slices.ContainsFunc(r.SPIRE.Of(identityOwner(key)), func(held spire.Held) bool { return held.SPIFFEID == id }) {
			objects.Entries.Of = append(objects.Entries.Of, key)
		}
	}
	for name := range namespaces {
		namespace := metadataOf("Namespace")
		if err := r.Client.Get(ctx, client.ObjectKey{Name: name}, namespace); err != nil {
			return objects, fmt.Errorf("read Namespace %s, which says what paths are granted: %w", name, err)
		}
		objects.Namespaces = append(objects.Namespaces, *namespace)
	}
	if object.Spec.ServiceDNSNames {
		if err := r.observeServices(ctx, object, &objects); err != nil {
			return objects, err
		}
	}
	if err := r.observePods(ctx, object, &objects); err != nil {
		return objects, err
	}
	objects.EarlierNodes = r.earlierNodes(mesh.KeyOf(object), objects.Nodes)
	return objects, nil
}

// earlierNodes are those by whose UIDs SPIRE may know the agents of nodes that were registered within the lifetime of an
// agent's SVID: by the name that their alias has, and where somebody has taken that away, what hangs on it is kept all the same.
func (r *ServiceIdentityReconciler) earlierNodes(key types.NamespacedName, nodes []metav1.PartialObjectMetadata) (earlier []mesh.EarlierNode) {
	shown, last := sets.New[types.UID](), metav1.Time{}
	for i := range nodes {
		shown.Insert(nodes[i].UID)
	}
	for i := range nodes {
		until := metav1.NewTime(nodes[i].CreationTimestamp.Add(r.AgentTTL))
		if !until.After(r.Clock.Now()) {
			continue
		}
		for _, alias := range r.SPIRE.Aliases(nodes[i].Name) {
			if uid := types.UID(spire.NodeOf(alias.ID)); !shown.Has(uid) {
				earlier = append(earlier, mesh.EarlierNode{Identity: key, Name: nodes[i].Name, UID: uid, Until: until})
			}
		}
		if last.Before(&until) {
			last = until
		}
	}
	if last.IsZero() {
		return nil
	}
	for _, held := range r.SPIRE.Of(identityOwner(key)) {
		uid := types.UID(spire.NodeOf(held.ID))
		if shown.Has(uid) || spire.IsClusterWide(held.ID) {
			continue
		}
		aliases := r.SPIRE.Of(spire.Owner{Kind: spire.OwnerNode, NodeUID: uid})
		if len(aliases) == 0 || aliases[0].Hint == "" {
			earlier = append(earlier, mesh.EarlierNode{Identity: key, UID: uid, Until: last})
		}
	}
	return earlier
}

// observeServices adds the Services of the identity's namespace, and those that SPIRE has it named after.
func (r *ServiceIdentityReconciler) observeServices(ctx context.Context, object *meshv1alpha1.ServiceIdentity, objects *mesh.Objects) error {
	services := &corev1.ServiceList{}
	if err := r.Client.List(ctx, services, client.InNamespace(object.Namespace)); err != nil {
		return fmt.Errorf("list the Services of namespace %s: %w", object.Namespace, err)
	}
	objects.KubeServices, objects.ClusterDomain = services.Items, r.ClusterDomain
	for _, held := range r.SPIRE.Of(identityOwner(mesh.KeyOf(object))) {
		for _, service := range mesh.NamedAfter(object, held.DNSNames) {
			objects.NamedAfter = append(objects.NamedAfter, mesh.ServiceName{Identity: mesh.KeyOf(object), Service: service})
		}
	}
	return nil
}

// observePods adds the pods of the identity's service account, which are the cache's own and not to be changed, and the nodes
// that they are bound to. A node that the cache does not show is left out, and the model says so.
func (r *ServiceIdentityReconciler) observePods(ctx context.Context, object *meshv1alpha1.ServiceIdentity, objects *mesh.Objects) error {
	pods := &corev1.PodList{}
	if err := r.Client.List(ctx, pods, client.InNamespace(object.Namespace), client.MatchingFields{byServiceAccount: object.Spec.ServiceAccountName}, client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("list the Pods of service account %s/%s: %w", object.Namespace, object.Spec.ServiceAccountName, err)
	}
	objects.Pods = pods.Items
	names := sets.New[string]()
	for i := range pods.Items {
		if name := pods.Items[i].Spec.NodeName; name != "" {
			names.Insert(name)
		}
	}
	for name := range names {
		node := metadataOf("Node")
		if err := r.Client.Get(ctx, client.ObjectKey{Name: name}, node); err != nil {
			if apierrors.IsNotFound(err) {
				continue
			}
			return fmt.Errorf("read Node %s: %w", name, err)
		}
		objects.Nodes = append(objects.Nodes, *node)
	}
	return nil
}

// metadataOf is an empty object of a core kind of which only the metadata is read, watched and kept.
func metadataOf(kind string) *metav1.PartialObjectMetadata {
	object := &metav1.PartialObjectMetadata{}
	object.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind(kind))
	return object
}
