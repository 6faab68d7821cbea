package controllers_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/spire"
)

var _ = Describe("a Node that is deleted and registered again under its pods", func() {
	var r *rig
	var ns *corev1.Namespace
	var on, old *corev1.Node
	var object *meshv1alpha1.ServiceIdentity
	var key types.NamespacedName
	var first *corev1.Pod
	again := func() {
		GinkgoHelper()
		old = on.DeepCopy()
		gone(on)
		r.settle(old)
		registerAgain(on)
		r.settle(on)
	}
	BeforeEach(func() {
		r = newRig()
		ns, on = namespace(""), node()
		object, first = identity(ns, "pay"), pod(ns, "pay", on.Name)
		key = mesh.KeyOf(object)
		r.reconcile(key, ns, on, object, first)
	})

	It("has entries for the old one, too, until its agent has attested again, whoever comes or goes, and no other in surplus", func() {
		other := node()
		left := pod(ns, "pay", other.Name)
		r.reconcile(key, other, left)
		gone(left)
		gone(other)
		r.settle(left, other)
		again()
		r.reconcile(key, pod(ns, "pay", on.Name))
		r.clock.Step(grace)
		r.reconcile(key)
		Expect(r.entries()).To(And(HaveKey(entryID(object, old)), HaveKey(entryID(object, on)), Not(HaveKey(entryID(object, other)))))
		Expect(r.condition(key, "Registered")).To(Equal("True Registered"))
		Expect(r.message(key, "Registered")).To(ContainSubstring("holds the entries for " + on.Name + "; these nodes were registered again"))
		Expect(r.message(key, "Registered")).To(ContainSubstring(on.Name + " (until " + on.CreationTimestamp.Add(agentTTL).UTC().Format(time.RFC3339) + ")"))
		Expect(r.identity(key).Status.Entries.Summary).To(Equal("2/2"))

		By("a rollout: the pod that runs now was never on the old Node, and its agent is")
		gone(first)
		r.reconcile(key, first)
		r.clock.Step(grace)
		Expect(r.reconcile(key).RequeueAfter).To(BeNumerically("~", agentTTL-2*grace, time.Minute))
		Expect(r.entries()).To(HaveKey(entryID(object, old)))

		By("an identity that comes only now")
		newcomer := identity(ns, "newcomer")
		r.reconcile(mesh.KeyOf(newcomer), newcomer, pod(ns, "newcomer", on.Name))
		Expect(r.entries()).To(And(HaveKey(entryID(newcomer, old)), HaveKey(entryID(newcomer, on))))

		By("the agent has attested again by now")
		r.clock.Step(agentTTL - 2*grace + time.Minute)
		Expect(r.reconcile(key).RequeueAfter).To(Equal(grace))
		Expect(r.message(key, "Registered")).NotTo(ContainSubstring("registered again"))
		r.clock.Step(grace)
		r.reconcile(key)
		Expect(r.entries()).To(And(Not(HaveKey(entryID(object, old))), HaveKey(entryID(object, on))))
	})

	It("has them though somebody deletes the alias that they hang on, which comes back without the name", func() {
		Expect(r.nodes.Reconcile(r.ctx, on.UID)).To(Equal(ctrl.Result{}))
		again()
		r.reconcile(key)
		_, err := r.spire.Entries.BatchDeleteEntry(r.ctx, &entryv1.BatchDeleteEntryRequest{Ids: []string{aliasID(old)}})
		Expect(err).NotTo(HaveOccurred())
		Eventually(func(g Gomega) {
			result, err := r.nodes.Reconcile(r.ctx, old.UID)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(result.RequeueAfter).To(Equal(grace + time.Second))
			g.Expect(r.entries()).To(HaveKey(aliasID(old)))
		}).Should(Succeed())
		r.reconcile(key)
		r.clock.Step(grace)
		r.reconcile(key)
		Expect(r.entries()).To(HaveKey(entryID(object, old)))
	})

	It("leaves an alias that somebody deleted to its Node, where the API server shows that: it has the name", func() {
		other := node()
		left := pod(ns, "pay", other.Name)
		r.reconcile(key, other, left)
		gone(left)
		r.reconcile(key, left)
		_, err := r.spire.Entries.BatchDeleteEntry(r.ctx, &entryv1.BatchDeleteEntryRequest{Ids: []string{aliasID(other)}})
		Expect(err).NotTo(HaveOccurred())
		Eventually(func() []spire.Held { return r.registry.Of(spire.Owner{Kind: spire.OwnerNode, NodeUID: other.UID}) }).Should(BeEmpty())
		r.reconcile(key)
		Expect(r.entries()).NotTo(HaveKey(aliasID(other)))
		Expect(r.nodes.Reconcile(r.ctx, other.UID)).To(Equal(ctrl.Result{}))
		r.reconcile(key)
		Expect(r.entries()[aliasID(other)].GetHint()).To(Equal(other.Name))
	})

	It("keeps the alias of the old one for who comes, where nothing hangs on it", func() {
		other := node()
		Expect(r.nodes.Reconcile(r.ctx, other.UID)).To(Equal(ctrl.Result{}))
		on = other
		r.settle(on)
		_, err := r.nodes.Reconcile(r.ctx, on.UID)
		Expect(err).NotTo(HaveOccurred())
		again()
		Expect(r.nodes.Reconcile(r.ctx, old.UID)).To(HaveField("RequeueAfter", BeNumerically("~", agentTTL, time.Minute)))
		r.clock.Step(agentTTL + time.Minute)
		Expect(r.nodes.Reconcile(r.ctx, old.UID)).To(Equal(ctrl.Result{RequeueAfter: grace}))
		r.clock.Step(grace)
		Expect(r.nodes.Reconcile(r.ctx, old.UID)).To(Equal(ctrl.Result{}))
		Expect(r.entries()).NotTo(HaveKey(aliasID(old)))
	})
})
