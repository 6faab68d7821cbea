package controllers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/spire"
	"github.com/jia-app/paymesh/internal/spire/backoff"
	"github.com/jia-app/paymesh/internal/spire/registry"
	"github.com/jia-app/paymesh/internal/spire/retention"
)

// identityWorkers reconcile that many ServiceIdentities at a time: most of them wait for SPIRE, whose writes they share
// (client.Batcher), so this is also the most that a batch can have of a size that SPIRE likes.
const identityWorkers = 64

// +kubebuilder:rbac:groups=mesh.jia.app,resources=serviceidentities,verbs=list;watch;patch
// +kubebuilder:rbac:groups=mesh.jia.app,resources=serviceidentities/status,verbs=patch
// +kubebuilder:rbac:groups="",resources=namespaces;nodes;pods,verbs=list;watch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// ServiceIdentityReconciler makes SPIRE hold the entries of each ServiceIdentity.
type ServiceIdentityReconciler struct {
	Client  client.Client
	Cluster mesh.ClusterID
	// ClusterDomain is what the DNS names of Services end in: cluster.local.
	ClusterDomain string
	SPIRE         *registry.Registry
	// Surplus keeps entries for a grace time after the last pod has left their node.
	Surplus *retention.Surplus
	// Names keeps the names of Services for a grace time after the last pod that these select has gone.
	Names *retention.Grace
	// Adopting keeps the entries of somebody else's that an object adopts for the grace time, from when its own are there.
	Adopting *retention.Grace
	// Refusals keep writes that SPIRE refused from being tried again with every event.
	Refusals *backoff.Refusals
	// Brake stops deletions when there are too many at a time.
	Brake *retention.Brake
	// Witness knows which identities were there, for when one is gone without having been finalized.
	Witness *retention.Witness
	Events  events.EventRecorder
	// Census counts entries by what is true of them.
	Census *Census
	// DefaultTTL is how long X.509 SVIDs live whose identity does not say so: default_x509_svid_ttl of the SPIRE server.
	DefaultTTL time.Duration
	// CATTL is how long the SPIRE server's X.509 CA lives, which bounds its SVIDs: ca_ttl of the SPIRE server.
	CATTL time.Duration
	// AgentTTL is how long it takes at most until the agent of a node has attested again: agent_ttl of the SPIRE server.
	AgentTTL time.Duration
	Clock    clock.PassiveClock
	// RetryInterval is how long to wait before a call that failed by itself, or a deletion that SPIRE refused, is tried again:
	// nothing tells when that ends.
	RetryInterval time.Duration
}

// Reconcile brings what SPIRE holds of one ServiceIdentity in line with it.
func (r *ServiceIdentityReconciler) Reconcile(ctx context.Context, req ctrl.Request) (_ ctrl.Result, err error) {
	object := &meshv1alpha1.ServiceIdentity{}
	if err := r.Client.Get(ctx, req.NamespacedName, object); apierrors.IsNotFound(err) {
		return r.gone(ctx, identityOwner(req.NamespacedName)), nil
	} else if err != nil {
		return ctrl.Result{}, fmt.Errorf("read ServiceIdentity %s: %w", req.NamespacedName, err)
	}
	r.Witness.Saw(identityOwner(req.NamespacedName))
	if !object.DeletionTimestamp.IsZero() {
		return r.finalize(ctx, object)
	}
	if !r.SPIRE.DryRun() { // who writes no entry must not keep an object
		if err := (finalizer{r.Client, meshv1alpha1.FinalizerEntries}).ensure(ctx, object); err != nil {
			return ctrl.Result{}, err
		}
	}
	if r.SPIRE.State().Reading() && meta.FindStatusCondition(object.Status.Conditions, meshv1alpha1.ConditionRegistered) != nil {
		return ctrl.Result{}, nil // what was reported holds until all is read; then the registry wakes everybody
	}
	before := object.DeepCopy()
	defer func() { err = errors.Join(err, reporter{r.Client, r.Events}.report(ctx, before, object)) }()

	objects, err := r.observe(ctx, object)
	if err != nil {
		return ctrl.Result{}, err
	}
	m, problems, lingers := r.build(req.NamespacedName, objects)
	identity, accepted := m.Identity(req.NamespacedName)
	outcome := r.apply(ctx, req.NamespacedName, identity, accepted, problems)
	if outcome.lingers == 0 || lingers > 0 && lingers < outcome.lingers {
		outcome.lingers = lingers
	}
	if err := r.adopt(ctx, object, identity, &outcome); err != nil && outcome.state.Err == nil {
		outcome.state.Err = err
	}

	object.Status.SPIFFEID = r.Cluster.IDOf(object)
	object.Status.ObservedGeneration = object.Generation
	if outcome.decided {
		object.Status.Entries = outcome.count()
	}
	object.Status.OutageBudget = r.outageBudget(object).String()
	setAccepted(object, identity, problems)
	setRegistered(object, accepted, outcome)
	if outcome.decided || object.Status.Entries == nil { // else who waits is as it was when it was known last
		object.Status.WaitingPods = waitingPods(object, objects.Pods, outcome)
	}
	r.Census.count(identityOwner(req.NamespacedName), outcome)
	setReady(&object.Status.Conditions, object.Generation, meshv1alpha1.ConditionAccepted, meshv1alpha1.ConditionRegistered)
	return r.result(outcome), nil
}

// build makes the model. An identity keeps the names of a Service for the grace time after the last pod of it that this selects
// has gone: one that restarts finds the entries as they were, and nobody's SVID is signed again.
func (r *ServiceIdentityReconciler) build(key types.NamespacedName, objects mesh.Objects) (_ mesh.Mesh, _ []mesh.Problem, lingers time.Duration) {
	m, problems := mesh.Build(objects)
	identity, _ := m.Identity(key)
	late, lingers := r.Names.Due(identityOwner(key), identity.LingeringServices)
	if len(late) > 0 {
		objects.NamedAfter = slices.DeleteFunc(objects.NamedAfter, func(named mesh.ServiceName) bool { return slices.Contains(late, named.Service) })
		m, problems = mesh.Build(objects)
	}
	return m, problems, lingers
}

// result turns an outcome into when to look again: a refused entry after a while, a lingering one when its grace ends.
// While SPIRE is away nothing is tried: the registry tells when it is back.
func (r *ServiceIdentityReconciler) result(outcome outcome) ctrl.Result {
	after := outcome.lingers
	if outcome.refused() {
		after = sooner(after, cmp.Or(outcome.retry, r.RetryInterval))
	}
	if outcome.state.Err != nil && r.SPIRE.State().Err == nil { // a single call failed, and nobody else will have noticed
		after = sooner(after, r.RetryInterval)
	}
	return ctrl.Result{RequeueAfter: after}
}

// outageBudget is how long a pod that has an X.509 SVID of the identity keeps a valid one at least, when SPIRE goes away.
func (r *ServiceIdentityReconciler) outageBudget(object *meshv1alpha1.ServiceIdentity) time.Duration {
	lifetime := r.DefaultTTL
	if ttl, err := time.ParseDuration(string(object.Spec.X509SVIDTTL)); err == nil && ttl > 0 {
		lifetime = ttl
	}
	return spire.OutageBudget(lifetime, r.CATTL)
}

// finalize removes the entries of a deleted ServiceIdentity from SPIRE, and only then lets it go.
func (r *ServiceIdentityReconciler) finalize(ctx context.Context, object *meshv1alpha1.ServiceIdentity) (_ ctrl.Result, err error) {
	if !controllerutil.ContainsFinalizer(object, meshv1alpha1.FinalizerEntries) {
		return ctrl.Result{}, nil
	}
	before := object.DeepCopy()
	owner := identityOwner(mesh.KeyOf(object))
	outcome := r.remove(ctx, owner, true)
	if !outcome.settled() {
		object.Status.ObservedGeneration = object.Generation
		setDeleting(object, outcome)
		setReady(&object.Status.Conditions, object.Generation, meshv1alpha1.ConditionAccepted, meshv1alpha1.ConditionRegistered)
		return r.result(outcome), reporter{r.Client, r.Events}.report(ctx, before, object)
	}
	r.forget(owner)
	return ctrl.Result{}, finalizer{r.Client, meshv1alpha1.FinalizerEntries}.drop(ctx, object)
}

// gone removes, after the grace time, what an identity has left behind that went without its finalizer.
func (r *ServiceIdentityReconciler) gone(ctx context.Context, owner spire.Owner) ctrl.Result {
	left := len(r.SPIRE.Of(owner))
	if !r.Witness.Knows(owner) {
		if r.Witness.Orphaned(owner, left) {
			log.FromContext(ctx).Info("SPIRE holds entries of a ServiceIdentity that does not exist, and that this manager has never seen: "+
				"they are left alone. If --cluster-name is right, delete them with spire-server entry delete", "entries", left)
		}
		return ctrl.Result{}
	}
	// Nobody's word: a restored etcd looks the same. So there is time to notice.
	outcome := r.remove(ctx, owner, false)
	if outcome.settled() {
		r.forget(owner)
	}
	return r.result(outcome)
}

// forget drops what is remembered of an identity that has no entries any more.
func (r *ServiceIdentityReconciler) forget(owner spire.Owner) {
	r.Surplus.Forget(owner)
	r.Names.Forget(owner)
	r.Adopting.Forget(owner)
	r.Brake.Forget(owner)
	r.Refusals.Forget(owner)
	r.Witness.Left(owner)
	r.Census.forget(owner)
}

// SetupWithManager registers the controller and what wakes it: the objects themselves, their rivals, their pods, the
// nodes and namespaces of these, and SPIRE.
func (r *ServiceIdentityReconciler) SetupWithManager(mgr ctrl.Manager) error {
	t := identityTriggers{client: mgr.GetClient(), cluster: r.Cluster}
	return ctrl.NewControllerManagedBy(mgr).
		For(&meshv1alpha1.ServiceIdentity{}, builder.WithPredicates(notOnlyFinalized)). // a status or a finalizer changed by hand is put right too
		Watches(&meshv1alpha1.ServiceIdentity{}, handler.EnqueueRequestsFromMapFunc(t.rivals), builder.WithPredicates(claimChanges)).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(t.identitiesOfPod), builder.WithPredicates(placementChanges)).
		WatchesMetadata(&corev1.Node{}, handler.EnqueueRequestsFromMapFunc(t.identitiesOnNode), builder.WithPredicates(comesOrGoes)).
		WatchesMetadata(&corev1.Namespace{}, handler.EnqueueRequestsFromMapFunc(t.identitiesInNamespace), builder.WithPredicates(predicate.AnnotationChangedPredicate{})).
		WatchesRawSource(released(r.Brake)).
		Watches(&corev1.Service{}, handler.EnqueueRequestsFromMapFunc(t.identitiesOfService), builder.WithPredicates(selectionChanges)).
		WatchesRawSource(t.bundles(r.SPIRE)).
		WatchesRawSource(t.aliases(r.SPIRE)).
		WatchesRawSource(drift(r.SPIRE, spire.OwnerIdentity, requestOfIdentity, t.allIdentities)).
		WithOptions(controller.Options{MaxConcurrentReconciles: identityWorkers}).
		Complete(r)
}

func identityOwner(key types.NamespacedName) spire.Owner {
	return spire.Owner{Kind: spire.OwnerIdentity, Identity: key}
}
