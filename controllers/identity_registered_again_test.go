package controllers_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/jia-app/paymesh/internal/mesh"
)

var _ = Describe("a Node that is deleted and registered again under its pods", func() {
	It("keeps the entries of the old one until its agent has attested again, whoever comes or goes, and no other in surplus", func() {
		r := newRig()
		ns, on, other := namespace(""), node(), node()
		object := identity(ns, "pay")
		key := mesh.KeyOf(object)
		first, left := pod(ns, "pay", on.Name), pod(ns, "pay", other.Name)
		r.reconcile(key, ns, on, other, object, first, left)
		old, away := on.DeepCopy(), other.DeepCopy()
		gone(on)
		gone(left)
		gone(other)
		r.settle(old, away)
		registerAgain(on)
		r.reconcile(key, on, left, pod(ns, "pay", on.Name))
		r.clock.Step(grace)
		r.reconcile(key)
		Expect(r.entries()).To(And(HaveKey(entryID(object, old)), HaveKey(entryID(object, on)), Not(HaveKey(entryID(object, away)))))
		Expect(r.condition(key, "Registered")).To(Equal("True Registered"))
		Expect(r.message(key, "Registered")).To(ContainSubstring("registered again, and the entries of the old ones stay until their agents have attested again: " + on.Name))

		By("a rollout: the pod that runs now was never on the old Node, and its agent is")
		gone(first)
		r.reconcile(key, first)
		r.clock.Step(grace)
		Expect(r.reconcile(key).RequeueAfter).To(BeNumerically("~", agentTTL-2*grace, time.Minute))
		Expect(r.entries()).To(HaveKey(entryID(object, old)))

		By("the agent has attested again by now")
		r.clock.Step(agentTTL - 2*grace + time.Minute)
		Expect(r.reconcile(key).RequeueAfter).To(Equal(grace))
		Expect(r.message(key, "Registered")).NotTo(ContainSubstring("registered again"))
		r.clock.Step(grace)
		r.reconcile(key)
		Expect(r.entries()).To(And(Not(HaveKey(entryID(object, old))), HaveKey(entryID(object, on))))
	})
})
