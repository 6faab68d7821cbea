package controllers

import (
	"context"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/spire"
	"github.com/jia-app/paymesh/internal/spire/registry"
	"github.com/jia-app/paymesh/internal/spire/retention"
)

// NodeReconciler makes SPIRE hold an alias for each node, so that it is there before the first pod needs it, and takes
// the alias away some time after the node is gone.
type NodeReconciler struct {
	Client  client.Client
	Cluster mesh.ClusterID
	SPIRE   *registry.Registry
	Surplus *retention.Surplus
	Witness *retention.Witness
	// AgentTTL is how long it takes at most until the agent of a node has attested again.
	AgentTTL time.Duration
}

// Reconcile brings the alias of the node with a UID in line with it: one that comes back under the same name is another one to
// SPIRE.
func (r *NodeReconciler) Reconcile(ctx context.Context, uid types.UID) (ctrl.Result, error) {
	owner := spire.Owner{Kind: spire.OwnerNode, NodeUID: uid}
	if !r.SPIRE.State().Answers() {
		return ctrl.Result{}, nil // the registry wakes every node when it has read SPIRE's entries, or SPIRE is back
	}
	nodes, err := nodesWith(ctx, r.Client, uid)
	if err != nil {
		return ctrl.Result{}, err
	}
	held := r.SPIRE.Of(owner)
	var after time.Duration
	switch {
	case len(nodes.Items) > 0:
		r.Witness.Saw(owner)
	case len(held) == 0 && r.orphans(owner):
		// The node is not shown, and somebody deleted its alias under entries that stay: it is made again, without the name.
		lost := *metadataOf("Node")
		lost.UID = owner.NodeUID
		nodes.Items = append(nodes.Items, lost)
		after = r.Surplus.Time + time.Second // then it is looked whether anything hangs on it still
	case len(held) == 0:
		r.Witness.Left(owner)
	case r.SPIRE.HasChildren(held[0].SPIFFEID):
		// The node is not shown, and may run all the same; or it is one of another cluster, whose name this manager was
		// started with. If not, the entries below the alias go as their identities find them in surplus, and the brake
		// lets them; then the alias goes too.
		if !r.Witness.Knows(owner) {
			r.Witness.Orphaned(owner, len(held))
		}
		return ctrl.Result{RequeueAfter: r.Surplus.Time + time.Second}, nil
	}
	if len(nodes.Items) == 0 && len(held) > 0 {
		if left, err := r.attested(ctx, uid, held[0].Hint); err != nil || left > 0 {
			return ctrl.Result{RequeueAfter: left}, err
		}
	}
	m, _ := mesh.Build(mesh.Objects{Cluster: r.Cluster, Nodes: nodes.Items})
	plan := spire.Diff(spire.Entries(m), held)
	result := ctrl.Result{RequeueAfter: after}
	var lingers time.Duration
	plan.Delete, lingers = r.Surplus.Due(owner, plan.Delete)
	result.RequeueAfter = sooner(result.RequeueAfter, lingers)
	if plan.Empty() {
		return result, nil
	}
	results, err := r.SPIRE.Apply(ctx, plan)
	r.Surplus.Deleted(owner, deleted(results))
	if err != nil {
		log.FromContext(ctx).Info("the alias of a node has to wait for SPIRE", "reason", err.Error())
		return ctrl.Result{}, nil
	}
	if failed := failures(results); len(failed) > 0 {
		_, why := refusal(failed)
		return ctrl.Result{}, fmt.Errorf("register the alias of the Node with UID %s: %s", uid, why)
	}
	return result, nil
}

// nodesWith is the Node with a UID, where the API server shows it.
func nodesWith(ctx context.Context, reader client.Reader, uid types.UID) (*metav1.PartialObjectMetadataList, error) {
	nodes := &metav1.PartialObjectMetadataList{}
	nodes.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("NodeList"))
	if err := reader.List(ctx, nodes, client.MatchingFields{byUID: string(uid)}); err != nil {
		return nil, fmt.Errorf("find the Node with UID %s: %w", uid, err)
	}
	return nodes, nil
}

// attested is how long it is until the agent of the Node with a name is not known by an earlier UID any more; zero where there is
// no such Node.
func (r *NodeReconciler) attested(ctx context.Context, uid types.UID, name string) (time.Duration, error) {
	node := metadataOf("Node")
	if err := r.Client.Get(ctx, client.ObjectKey{Name: name}, node); err != nil {
		return 0, client.IgnoreNotFound(err)
	}
	until := attestedBy(r.SPIRE.Aliases(name), node, r.AgentTTL)[uid]
	return max(until.Sub(r.Surplus.Clock.Now()), 0), nil
}

// orphans reports whether entries hang on the alias of a node that this manager has seen.
func (r *NodeReconciler) orphans(owner spire.Owner) bool {
	alias, err := r.Cluster.NodeAlias(owner.NodeUID)
	return err == nil && r.Witness.Knows(owner) && r.SPIRE.HasChildren(alias.String())
}

// SetupWithManager registers the controller and what wakes it: nodes that come or go, and SPIRE.
func (r *NodeReconciler) SetupWithManager(mgr ctrl.Manager) error {
	t := identityTriggers{client: mgr.GetClient(), cluster: r.Cluster}
	itself := func(_ context.Context, node client.Object) []types.UID { return []types.UID{node.GetUID()} }
	uidOf := func(owner spire.Owner) types.UID { return owner.NodeUID }
	return builder.TypedControllerManagedBy[types.UID](mgr).Named("node").
		WatchesMetadata(&corev1.Node{}, handler.TypedEnqueueRequestsFromMapFunc(itself), builder.WithPredicates(comesOrGoes)).
		WatchesRawSource(drift(r.SPIRE, spire.OwnerNode, uidOf, t.allNodes)).
		WithLogConstructor(func(uid *types.UID) logr.Logger {
			log := mgr.GetLogger().WithValues("controller", "node")
			if uid != nil {
				log = log.WithValues("uid", *uid)
			}
			return log
		}).
		Complete(r)
}
