package controllers_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/spire/registry"
)

var _ = Describe("a dry run", func() {
	It("shows in the status what would be written for an identity and its nodes' aliases, and writes nothing to SPIRE", func() {
		r := newRig()
		ns, first, second := namespace(""), node(), node()
		object, on := identity(ns, "pay"), pod(ns, "pay", first.Name)
		key := mesh.KeyOf(object)
		r.reconcile(key, ns, first, on, object)
		written, before := r.writes(), r.entries()

		r.restartWith(registry.Options{DryRun: true})
		By("nothing, where nothing is to be written")
		r.reconcile(key)
		Expect(r.condition(key, "Registered")).To(Equal("True Registered"))
		By("creations and updates")
		r.reconcile(key, second, pod(ns, "pay", second.Name))
		Expect(r.condition(key, "Registered")).To(Equal("False DryRun"))
		Expect(r.message(key, "Registered")).To(HaveSuffix("it would create " + aliasID(second) + ", " + entryID(object, second)))
		object = r.identity(key)
		object.Spec.Hint = "changed"
		Expect(live.Update(r.ctx, object)).To(Succeed())
		r.reconcile(key, object)
		Expect(r.message(key, "Registered")).To(HaveSuffix("; update " + entryID(object, first)))
		request := ctrl.Request{NamespacedName: client.ObjectKey{Name: string(second.UID)}}
		Expect(r.nodes.Reconcile(r.ctx, request)).To(Equal(ctrl.Result{}))
		By("deletions of a deleted object, which waits")
		Expect(live.Delete(r.ctx, object)).To(Succeed())
		r.reconcile(key, object)
		Expect(r.condition(key, "Registered")).To(Equal("False DryRun"))
		Expect(r.message(key, "Registered")).To(HaveSuffix("it would delete " + entryID(object, first)))
		Expect(r.writes()).To(Equal(written))
		Expect(r.entries()).To(HaveLen(len(before)))
		By("an object that a dry run saw first has no finalizer")
		other := identity(ns, "other")
		r.reconcile(mesh.KeyOf(other), other)
		Expect(r.identity(mesh.KeyOf(other)).Finalizers).To(BeEmpty())

		By("and without it everything is done")
		r.restartWith(registry.Options{})
		r.reconcile(key)
		Expect(live.Get(r.ctx, key, object)).NotTo(Succeed())
		Expect(r.entries()).NotTo(HaveKey(entryID(object, first)))
	})

	It("shows that entries which nobody needs would go", func() {
		r := newRig()
		ns, on := namespace(""), node()
		object, workload := identity(ns, "pay"), pod(ns, "pay", on.Name)
		key := mesh.KeyOf(object)
		r.reconcile(key, ns, on, workload, object)
		r.restartWith(registry.Options{DryRun: true})
		gone(workload)
		r.reconcile(key, workload)
		r.clock.Step(grace)
		for range 20 { // which would be too many, if it were done
			r.reconcile(key)
		}
		Expect(r.condition(key, "Registered")).To(Equal("True DryRun"))
		Expect(r.message(key, "Registered")).To(HaveSuffix("it would delete " + entryID(object, on)))
		Expect(r.entries()).To(HaveKey(entryID(object, on)))
	})
})
