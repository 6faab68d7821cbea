package controllers_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	spiretypes "github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	ctrl "sigs.k8s.io/controller-runtime"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/spire/registry"
	"github.com/jia-app/paymesh/test/lab"
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
		Expect(r.nodes.Reconcile(r.ctx, second.UID)).To(Equal(ctrl.Result{}))
		By("updates of what stays for the grace time only")
		gone(on)
		r.reconcile(key, on)
		Expect(r.message(key, "Registered")).To(HaveSuffix("; update " + entryID(object, first)))
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

	It("shows of a migration what is in the way, what would be adopted and what would stay, and why", func() {
		r := newRig()
		ns, on := namespace(""), node()
		object, workload := identity(ns, "pay"), pod(ns, "pay", on.Name)
		key := mesh.KeyOf(object)
		theirs := func(id, parent string, selectors ...string) {
			entry := &spiretypes.Entry{
				Id: id, SpiffeId: &spiretypes.SPIFFEID{TrustDomain: lab.TrustDomain, Path: pathOf(object)},
				ParentId: &spiretypes.SPIFFEID{TrustDomain: lab.TrustDomain, Path: parent},
			}
			for _, value := range selectors {
				entry.Selectors = append(entry.Selectors, &spiretypes.Selector{Type: "k8s", Value: value})
			}
			r.createByHand(entry)
		}
		theirs("in-the-way", "/paymesh/main/node/"+string(on.UID), "ns:"+ns.Name, "sa:pay")
		theirs("scm.of-the-pod", "/spire/agent/k8s_psat/main/"+string(on.UID), "pod-uid:"+string(workload.UID))
		theirs("scm.of-another-cluster", "/spire/agent/k8s_psat/other/some-node", "ns:"+ns.Name, "sa:pay")
		r.restartWith(registry.Options{DryRun: true})
		would := "it would create " + aliasID(on) + ", " + entryID(object, on)

		By("without a word")
		Expect(r.reconcile(key, ns, on, workload, object).RequeueAfter).To(Equal(retry))
		Expect(r.condition(key, "Registered")).To(Equal("False DryRun"))
		Expect(r.message(key, "Registered")).To(And(
			ContainSubstring(would+"; but SPIRE holds entry in-the-way, "), ContainSubstring("adopt it with the annotation mesh.jia.app/adopt-entries"),
			Not(ContainSubstring("scm."))))
		By("with one")
		object = r.identity(key)
		object.Annotations = map[string]string{meshv1alpha1.AnnotationAdoptEntries: "*"}
		Expect(live.Update(r.ctx, object)).To(Succeed())
		Expect(r.reconcile(key, object).RequeueAfter).To(Equal(retry))
		Expect(r.condition(key, "Registered")).To(Equal("False DryRun"))
		Expect(r.message(key, "Registered")).To(And(
			ContainSubstring(would+"; delete "), MatchRegexp("delete (in-the-way, scm.of-the-pod|scm.of-the-pod, in-the-way); "),
			ContainSubstring("not adopted: scm.of-another-cluster (it is not below an agent or a node of cluster main"),
			Not(ContainSubstring("but SPIRE holds"))))
		Expect(r.entries()).To(HaveLen(3))

		By("and without the dry run it comes so")
		r.restartWith(registry.Options{})
		r.reconcile(key)
		r.clock.Step(grace)
		r.reconcile(key)
		Expect(r.entries()).To(And(HaveLen(3), HaveKey("scm.of-another-cluster"), HaveKey(aliasID(on)), HaveKey(entryID(object, on))))
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
