package controllers

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/spire"
	"github.com/jia-app/paymesh/internal/spire/retention"
)

// actionDelete is what the events about the brake say was to be done.
const actionDelete = "DeleteEntries"

// BrakeReconciler tells of the deletion brake by events on the Namespace that the manager runs in, and releases it where
// that Namespace has the annotation for it.
type BrakeReconciler struct {
	Client client.Client
	Brake  *retention.Brake
	Events events.EventRecorder

	// told is the trip that the last event was about.
	told string
}

// Reconcile looks at the Namespace and at the brake.
func (r *BrakeReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	namespace := metadataOf("Namespace")
	if err := r.Client.Get(ctx, req.NamespacedName, namespace); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(fmt.Errorf("read Namespace %s, which releases the deletion brake: %w", req.Name, err))
	}
	trip, held := r.Brake.Tripped(), r.Brake.Held()
	if trip != "" && namespace.Annotations[meshv1alpha1.AnnotationReleaseDeletions] == trip && r.Brake.Release(trip) {
		r.told = ""
		r.Events.Eventf(namespace, nil, corev1.EventTypeNormal, "DeletionsReleased", actionDelete, "the %d entries that nobody needs any more, and whose deletion was held back since %s, go now", held, trip)
		return ctrl.Result{}, nil
	}
	switch trip {
	case r.told:
	case "":
		r.Events.Eventf(namespace, nil, corev1.EventTypeNormal, "DeletionsResumed", actionDelete, "every entry whose deletion was held back is needed again")
	default:
		r.Events.Eventf(namespace, nil, corev1.EventTypeWarning, meshv1alpha1.ReasonDeletionsHeld, actionDelete,
			"too many entries of the SPIRE server are needed no more at a time: none is deleted until an administrator says that this is meant: %s", r.Brake.Command())
	}
	r.told = trip
	return ctrl.Result{}, nil
}

// SetupWithManager registers the controller and what wakes it: the annotations of its Namespace, and the brake.
func (r *BrakeReconciler) SetupWithManager(mgr ctrl.Manager) error {
	own := types.NamespacedName{Name: r.Brake.Namespace()}
	return ctrl.NewControllerManagedBy(mgr).Named("deletion-brake").
		For(metadataOf("Namespace"), builder.OnlyMetadata, builder.WithPredicates(
			predicate.NewPredicateFuncs(func(o client.Object) bool { return o.GetName() == own.Name }), predicate.AnnotationChangedPredicate{})).
		WatchesRawSource(wakes(func(_ context.Context, add func(...ctrl.Request)) {
			r.Brake.Notify(func([]spire.Owner) { add(ctrl.Request{NamespacedName: own}) })
		})).
		Complete(r)
}
