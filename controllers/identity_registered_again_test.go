package controllers_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/jia-app/paymesh/internal/mesh"
)

var _ = Describe("a Node that is deleted and registered again under its pods", func() {
	It("keeps the entries of the old one until no pod is left that was bound to that, and no other in surplus", func() {
		r := newRig()
		ns, on, other := namespace(""), node(), node()
		object := identity(ns, "pay")
		key := mesh.KeyOf(object)
		first, left := pod(ns, "pay", on.Name), pod(ns, "pay", other.Name)
		r.reconcile(key, ns, on, other, object, first, left)
		old := on.DeepCopy()
		gone(on)
		gone(left)
		r.settle(old)
		registerAgain(on, first)
		r.reconcile(key, on, left, pod(ns, "pay", on.Name))
		r.clock.Step(grace)
		r.reconcile(key)
		Expect(r.entries()).To(And(HaveKey(entryID(object, old)), HaveKey(entryID(object, on)), Not(HaveKey(entryID(object, other)))))
		Expect(r.condition(key, "Registered")).To(Equal("True Registered"))
		Expect(r.message(key, "Registered")).To(ContainSubstring("registered again under running pods, and the entries of the old ones stay: " + on.Name))

		gone(first)
		Expect(r.reconcile(key, first).RequeueAfter).To(Equal(grace))
		r.clock.Step(grace)
		r.reconcile(key)
		Expect(r.entries()).To(And(Not(HaveKey(entryID(object, old))), HaveKey(entryID(object, on))))
	})
})
