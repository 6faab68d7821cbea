package controllers

import (
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
)

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
