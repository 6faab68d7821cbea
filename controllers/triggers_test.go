package controllers

import (
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/event"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
)

func TestOnlyTheUpdateThatAddsTheFinalizerWakesNobody(t *testing.T) {
	finalized := func(change func(*meshv1alpha1.ServiceIdentity)) func(*meshv1alpha1.ServiceIdentity) {
		return func(identity *meshv1alpha1.ServiceIdentity) {
			controllerutil.AddFinalizer(identity, meshv1alpha1.FinalizerEntries)
			change(identity)
		}
	}
	nothing := func(*meshv1alpha1.ServiceIdentity) {}
	for name, test := range map[string]struct {
		before, after func(*meshv1alpha1.ServiceIdentity)
		wakes         bool
	}{
		"the finalizer comes":          {nothing, finalized(nothing), false},
		"somebody else's comes":        {nothing, func(i *meshv1alpha1.ServiceIdentity) { i.Finalizers = append(i.Finalizers, "example.com/theirs") }, true},
		"the finalizer goes":           {finalized(nothing), nothing, true},
		"nothing changes":              {finalized(nothing), finalized(nothing), true}, // a resync
		"the finalizer and the spec":   {nothing, finalized(func(i *meshv1alpha1.ServiceIdentity) { i.Generation++; i.Spec.Path = "/other" }), true},
		"the finalizer and the status": {nothing, finalized(func(i *meshv1alpha1.ServiceIdentity) { i.Status.SPIFFEID = "spiffe://jia.app/other" }), true},
		"the finalizer and a note":     {nothing, finalized(func(i *meshv1alpha1.ServiceIdentity) { i.Annotations = map[string]string{"a": "b"} }), true},
		"the finalizer and another":    {nothing, finalized(func(i *meshv1alpha1.ServiceIdentity) { i.Finalizers = append(i.Finalizers, "example.com/theirs") }), true},
		"another object of the name":   {nothing, finalized(func(i *meshv1alpha1.ServiceIdentity) { i.UID = "two" }), true},
		"it is deleted meanwhile":      {nothing, finalized(func(i *meshv1alpha1.ServiceIdentity) { i.DeletionTimestamp = &metav1.Time{} }), true},
	} {
		t.Run(name, func(t *testing.T) {
			version := func(resourceVersion string, change func(*meshv1alpha1.ServiceIdentity)) *meshv1alpha1.ServiceIdentity {
				identity := &meshv1alpha1.ServiceIdentity{}
				identity.UID, identity.Generation, identity.ResourceVersion = "one", 1, resourceVersion
				identity.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "version " + resourceVersion}}
				change(identity)
				return identity
			}
			update := event.UpdateEvent{ObjectOld: version("1", test.before), ObjectNew: version("2", test.after)}
			if wakes := notOnlyFinalized.Update(update); wakes != test.wakes {
				t.Errorf("the update wakes the reconciler: %t, want %t", wakes, test.wakes)
			}
		})
	}
}
