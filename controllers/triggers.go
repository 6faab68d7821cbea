package controllers

import (
	"context"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/source"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
)

// wakes is a source of keys that somebody tells of, and not the API server: subscribe is called once, when the controller starts,
// with what puts keys straight into its queue. So nothing that is told can be lost on the way.
func wakes[K comparable](subscribe func(ctx context.Context, add func(...K))) source.TypedSource[K] {
	return source.TypedFunc[K](func(ctx context.Context, queue workqueue.TypedRateLimitingInterface[K]) error {
		subscribe(ctx, func(keys ...K) {
			for _, key := range keys {
				queue.Add(key)
			}
		})
		return nil
	})
}

// updatesWhere lets through every creation and deletion, and the updates that pass.
func updatesWhere(pass func(event.UpdateEvent) bool) predicate.Predicate {
	return predicate.Funcs{UpdateFunc: pass}
}

// comesOrGoes lets through that an object was created, is being deleted, is gone, or was replaced by another of its name.
var comesOrGoes = updatesWhere(func(e event.UpdateEvent) bool {
	return e.ObjectOld.GetUID() != e.ObjectNew.GetUID() ||
		e.ObjectOld.GetDeletionTimestamp().IsZero() != e.ObjectNew.GetDeletionTimestamp().IsZero()
})

// claimChanges lets through what decides about an identity's rivals.
var claimChanges = updatesWhere(func(e event.UpdateEvent) bool {
	before, ok := e.ObjectOld.(*meshv1alpha1.ServiceIdentity)
	after, ok2 := e.ObjectNew.(*meshv1alpha1.ServiceIdentity)
	return !ok || !ok2 || before.UID != after.UID || before.Generation != after.Generation ||
		before.DeletionTimestamp.IsZero() != after.DeletionTimestamp.IsZero() || accepted(before) != accepted(after)
})

// accepted is the status and reason of the condition Accepted.
func accepted(object *meshv1alpha1.ServiceIdentity) string {
	condition := meta.FindStatusCondition(object.Status.Conditions, meshv1alpha1.ConditionAccepted)
	if condition == nil {
		return ""
	}
	return string(condition.Status) + condition.Reason
}
