package controllers

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"sigs.k8s.io/controller-runtime/pkg/client"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/spire"
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

// IndexIdentities adds the indexes that the controllers of the identities need to a cache. Call it once, before the cache is started.
func IndexIdentities(ctx context.Context, indexer client.FieldIndexer, cluster mesh.ClusterID) error {
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
	var err error
	objects.EarlierNodes, err = r.earlierNodes(ctx, mesh.KeyOf(object), objects.Nodes)
	return objects, err
}

// earlierNodes are those by whose UIDs SPIRE may know the agents of nodes that were registered within the lifetime of an
// agent's SVID: by the name that their alias has, and where somebody has taken that away, what hangs on it is kept all the same.
func (r *ServiceIdentityReconciler) earlierNodes(ctx context.Context, key types.NamespacedName, nodes []metav1.PartialObjectMetadata) (earlier []mesh.EarlierNode, _ error) {
	shown, last := sets.New[types.UID](), metav1.Time{}
	for i := range nodes {
		shown.Insert(nodes[i].UID)
	}
	now := r.Clock.Now()
	for i := range nodes {
		young := metav1.NewTime(nodes[i].CreationTimestamp.Add(r.AgentTTL))
		if !young.After(now) {
			continue
		}
		for uid, until := range attestedBy(r.SPIRE.Aliases(nodes[i].Name), &nodes[i], r.AgentTTL) {
			if !shown.Has(uid) && until.After(now) {
				earlier = append(earlier, mesh.EarlierNode{Identity: key, Name: nodes[i].Name, UID: uid, Until: metav1.NewTime(until)})
			}
		}
		if last.Before(&young) {
			last = young
		}
	}
	if last.IsZero() {
		return nil, nil
	}
	for _, held := range r.SPIRE.Of(identityOwner(key)) {
		uid := types.UID(spire.NodeOf(held.ID))
		if shown.Has(uid) || spire.IsClusterWide(held.ID) {
			continue
		}
		until := last
		if aliases := r.SPIRE.Of(spire.Owner{Kind: spire.OwnerNode, NodeUID: uid}); len(aliases) > 0 {
			if aliases[0].Hint != "" {
				continue
			}
			until = metav1.NewTime(time.Unix(aliases[0].CreatedAt, 0).Add(r.AgentTTL)) // since it was made again
		} else if there, err := nodesWith(ctx, r.Client, uid); err != nil {
			return nil, err
		} else if len(there.Items) > 0 {
			continue // its alias has a name, and comes with the next look at the node
		}
		if until.After(now) {
			earlier = append(earlier, mesh.EarlierNode{Identity: key, UID: uid, Until: until})
		}
	}
	return earlier, nil
}

// attestedBy is until when the agent of a Node may be known by each of the UIDs that Nodes of its name had before: it attests
// again within the lifetime of its SVID after the next one came, as its alias or, after the last, the Node itself says.
func attestedBy(aliases []spire.Held, node client.Object, agentTTL time.Duration) map[types.UID]time.Time {
	aliases = slices.DeleteFunc(slices.Clone(aliases), func(alias spire.Held) bool { return spire.NodeOf(alias.ID) == string(node.GetUID()) })
	slices.SortStableFunc(aliases, func(x, y spire.Held) int { return cmp.Compare(x.CreatedAt, y.CreatedAt) })
	until := map[types.UID]time.Time{}
	for i, alias := range aliases {
		next := node.GetCreationTimestamp().Time
		if i+1 < len(aliases) {
			next = time.Unix(aliases[i+1].CreatedAt, 0)
		}
		until[types.UID(spire.NodeOf(alias.ID))] = next.Add(agentTTL)
	}
	return until
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
