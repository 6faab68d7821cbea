package controllers

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/source"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/spire"
	"github.com/jia-app/paymesh/internal/spire/registry"
	"github.com/jia-app/paymesh/internal/spire/retention"
)

// identityTriggers say which keys an event concerns. They read the cache only, by index.
type identityTriggers struct {
	client  client.Client
	cluster mesh.ClusterID
}

// rivals are the other ServiceIdentities that want the same SPIFFE ID: one coming, going, or turning out to be accepted
// or not decides about them.
func (t identityTriggers) rivals(ctx context.Context, object client.Object) []ctrl.Request {
	identity, ok := object.(*meshv1alpha1.ServiceIdentity)
	if !ok {
		return nil
	}
	var others []ctrl.Request
	for _, request := range t.claimants(ctx, identity) {
		if request.NamespacedName != mesh.KeyOf(identity) {
			others = append(others, request)
		}
	}
	return others
}

func (t identityTriggers) identitiesOfPod(ctx context.Context, object client.Object) []ctrl.Request {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return nil
	}
	return t.identities(ctx, client.InNamespace(pod.Namespace), client.MatchingFields{byServiceAccount: mesh.ServiceAccountOf(pod)})
}

// identitiesOfService are those that are named after the Services of their namespace. Which of these select their pods the
// model tells.
func (t identityTriggers) identitiesOfService(ctx context.Context, service client.Object) []ctrl.Request {
	return t.identities(ctx, client.InNamespace(service.GetNamespace()), client.MatchingFields{byServiceNames: "true"})
}

// identitiesOnNode are those of the pods that are bound to the node: they may have been waiting for it to be known.
func (t identityTriggers) identitiesOnNode(ctx context.Context, node client.Object) []ctrl.Request {
	pods := &corev1.PodList{}
	if err := t.client.List(ctx, pods, client.MatchingFields{byNode: node.GetName()}); err != nil {
		log.FromContext(ctx).Error(err, "cannot list the pods of a node", "node", node.GetName())
		return nil
	}
	var requests []ctrl.Request
	for i := range pods.Items {
		requests = append(requests, t.identitiesOfPod(ctx, &pods.Items[i])...) // the queue drops doubles
	}
	return requests
}

// identitiesInNamespace are those whose grants change with the namespace's annotations, and their rivals.
func (t identityTriggers) identitiesInNamespace(ctx context.Context, namespace client.Object) []ctrl.Request {
	list := &meshv1alpha1.ServiceIdentityList{}
	if err := t.client.List(ctx, list, client.InNamespace(namespace.GetName()), client.UnsafeDisableDeepCopy); err != nil {
		log.FromContext(ctx).Error(err, "cannot list the ServiceIdentities of a namespace", "namespace", namespace.GetName())
		return nil
	}
	var requests []ctrl.Request
	for i := range list.Items {
		requests = append(requests, t.claimants(ctx, &list.Items[i])...)
	}
	return requests
}

// claimants are those that want the SPIFFE ID of an identity, itself included.
func (t identityTriggers) claimants(ctx context.Context, identity *meshv1alpha1.ServiceIdentity) []ctrl.Request {
	path, err := t.cluster.Path(identity)
	if err != nil {
		return nil // it wants none
	}
	return t.identities(ctx, client.MatchingFields{bySPIFFEPath: path})
}

func (t identityTriggers) identities(ctx context.Context, opts ...client.ListOption) []ctrl.Request {
	list := &meshv1alpha1.ServiceIdentityList{}
	// The list comes from memory: it fails only where the program is wrong (an index that nobody added).
	if err := t.client.List(ctx, list, append(opts, client.UnsafeDisableDeepCopy)...); err != nil {
		log.FromContext(ctx).Error(err, "cannot list ServiceIdentities that an event concerns")
		return nil
	}
	requests := make([]ctrl.Request, len(list.Items))
	for i := range list.Items {
		requests[i].NamespacedName = mesh.KeyOf(&list.Items[i])
	}
	return requests
}

func (t identityTriggers) allIdentities(ctx context.Context) []ctrl.Request { return t.identities(ctx) }

func (t identityTriggers) allNodes(ctx context.Context) []types.UID {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("NodeList"))
	if err := t.client.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		log.FromContext(ctx).Error(err, "cannot list the nodes")
		return nil
	}
	uids := make([]types.UID, len(list.Items))
	for i := range list.Items {
		uids[i] = list.Items[i].UID
	}
	return uids
}

// drift wakes the owner, where it is of this kind, of an entry that is not as it was left in SPIRE; and when SPIRE comes
// or goes everybody that is there or that SPIRE holds entries of.
func drift[K comparable](entries *registry.Registry, kind spire.OwnerKind, keyOf func(spire.Owner) K, everybody func(context.Context) []K) source.TypedSource[K] {
	return wakes(func(ctx context.Context, add func(...K)) {
		entries.Notify(func(owner spire.Owner) {
			if owner.Kind == kind {
				add(keyOf(owner))
			}
		}, func() {
			add(everybody(ctx)...)
			for _, owner := range entries.Owners(kind) {
				add(keyOf(owner))
			}
		})
	})
}

// aliases wakes the identities when what they hang on is not as it was left in SPIRE. Nobody else may make it again: that of the
// cluster where no bootstrap container runs beside the server, that of a node which the API server does not show.
func (t identityTriggers) aliases(entries *registry.Registry) source.Source {
	return wakes(func(ctx context.Context, add func(...ctrl.Request)) {
		entries.Notify(func(owner spire.Owner) {
			switch owner.Kind {
			case spire.OwnerBootstrap:
				add(t.identities(ctx, client.MatchingFields{byPlacement: string(meshv1alpha1.PlacementCluster)})...)
			case spire.OwnerNode:
				alias, err := t.cluster.NodeAlias(owner.NodeUID)
				if err != nil {
					return // no entry hangs on it
				}
				for _, below := range entries.Below(alias.String()) {
					if below.Kind == spire.OwnerIdentity {
						add(requestOfIdentity(below))
					}
				}
			case spire.OwnerIdentity: // has its own entries
			}
		}, func() {})
	})
}

// bundles wakes the identities that federate with a trust domain whose bundle has come to SPIRE or gone.
func (t identityTriggers) bundles(entries *registry.Registry) source.Source {
	return wakes(func(ctx context.Context, add func(...ctrl.Request)) {
		entries.NotifyBundles(func(trustDomains []string) {
			for _, trustDomain := range trustDomains {
				add(t.identities(ctx, client.MatchingFields{byFederation: trustDomain})...)
			}
		})
	})
}

// released wakes the identities whose deletions were held back until now.
func released(brake *retention.Brake) source.Source {
	return wakes(func(_ context.Context, add func(...ctrl.Request)) {
		brake.Notify(func(owners []spire.Owner) {
			for _, owner := range owners {
				if owner.Kind == spire.OwnerIdentity {
					add(requestOfIdentity(owner))
				}
			}
		})
	})
}

func requestOfIdentity(owner spire.Owner) ctrl.Request {
	return ctrl.Request{NamespacedName: owner.Identity}
}

// notOnlyFinalized lets through all but an update that gives the object the manager's finalizer and does nothing else. The
// reconcile that wrote it goes on: another one would find its status not in the cache yet, and write it again.
var notOnlyFinalized = updatesWhere(func(e event.UpdateEvent) bool {
	if controllerutil.ContainsFinalizer(e.ObjectOld, meshv1alpha1.FinalizerEntries) {
		return true
	}
	before, ok := e.ObjectOld.DeepCopyObject().(client.Object)
	if !ok {
		return true
	}
	controllerutil.AddFinalizer(before, meshv1alpha1.FinalizerEntries)
	before.SetResourceVersion(e.ObjectNew.GetResourceVersion())
	before.SetManagedFields(e.ObjectNew.GetManagedFields())
	return !equality.Semantic.DeepEqual(before, e.ObjectNew)
})

// placementChanges lets through what changes who runs where: most updates of a Pod do not.
var placementChanges = updatesWhere(func(e event.UpdateEvent) bool {
	before, ok := e.ObjectOld.(*corev1.Pod)
	after, ok2 := e.ObjectNew.(*corev1.Pod)
	return !ok || !ok2 || before.Spec.NodeName != after.Spec.NodeName || before.Status.Phase != after.Status.Phase ||
		before.Spec.ServiceAccountName != after.Spec.ServiceAccountName || !labels.Equals(before.Labels, after.Labels)
})

// selectionChanges lets through what changes whom a Service selects.
var selectionChanges = updatesWhere(func(e event.UpdateEvent) bool {
	before, ok := e.ObjectOld.(*corev1.Service)
	after, ok2 := e.ObjectNew.(*corev1.Service)
	return !ok || !ok2 || before.UID != after.UID || before.Spec.Type != after.Spec.Type || !labels.Equals(before.Spec.Selector, after.Spec.Selector)
})
