package controllers_test

import (
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/spire/retention"
	"github.com/jia-app/paymesh/test/lab"
)

// clusterAliasID is the ID of the entry that the identities for the whole cluster hang on.
const clusterAliasID = "pm1." + lab.ClusterName + ".nodes"

func clusterEntryID(object *meshv1alpha1.ServiceIdentity) string {
	return fmt.Sprintf("pm1.%s.%s.%s.cluster", lab.ClusterName, object.Namespace, object.Name)
}

func clusterWide(spec *meshv1alpha1.ServiceIdentitySpec) {
	spec.Placement = meshv1alpha1.PlacementCluster
}

var _ = Describe("an identity for the whole cluster", func() {
	var r *rig
	BeforeEach(func() { r = newRig() })

	// place changes the placement.
	place := func(object *meshv1alpha1.ServiceIdentity, placement meshv1alpha1.Placement) {
		GinkgoHelper()
		changed := r.identity(mesh.KeyOf(object))
		changed.Spec.Placement = placement
		Expect(live.Update(r.ctx, changed)).To(Succeed())
		r.settle(changed)
	}
	// audited waits until the audit has come by what SPIRE holds.
	audited := func(ids ...string) {
		GinkgoHelper()
		for _, id := range ids {
			Expect(r.entries()).To(HaveKey(id))
		}
		passes := r.audits()
		Eventually(r.audits).Should(BeNumerically(">=", passes+2))
	}

	It("has one entry and its parent by one RPC before any pod runs, and no pod on any node costs one", func() {
		ns, first, second := namespace(""), node(), node()
		object := identity(ns, "everywhere", clusterWide)
		key := mesh.KeyOf(object)
		r.reconcile(key, ns, object)
		Expect(r.writes()).To(Equal(1))
		Expect(r.entries()).To(HaveLen(2))
		Expect(r.entries()[clusterAliasID].GetSpiffeId().GetPath()).To(Equal("/paymesh/main/nodes"))
		Expect(r.entries()[clusterAliasID].GetSelectors()).To(HaveLen(1))
		Expect(r.entries()[clusterEntryID(object)].GetParentId().GetPath()).To(Equal("/paymesh/main/nodes"))
		Expect(r.condition(key, "Registered")).To(Equal("True Registered"))
		Expect(r.message(key, "Registered")).To(ContainSubstring("every node"))
		Expect(r.identity(key).Status.Entries.Summary).To(Equal("1/1"))
		r.reconcile(key, first, second, pod(ns, "everywhere", first.Name), pod(ns, "everywhere", second.Name), pod(ns, "everywhere", "not-shown"))
		Expect(r.writes()).To(Equal(1))
		Expect(r.condition(key, "Ready")).To(Equal("True Ready"))
	})

	It("keeps the entries of the nodes until the one for the cluster was seen, and the grace time is over", func() {
		ns, on := namespace(""), node()
		object := identity(ns, "pay")
		key := mesh.KeyOf(object)
		r.reconcile(key, ns, on, object, pod(ns, "pay", on.Name))
		place(object, meshv1alpha1.PlacementCluster)
		Expect(r.reconcile(key).RequeueAfter).To(Equal(grace))
		Expect(r.entries()).To(And(HaveKey(entryID(object, on)), HaveKey(clusterEntryID(object))))
		audited(clusterEntryID(object))
		r.clock.Step(grace)
		Expect(r.reconcile(key).RequeueAfter).To(BeZero())
		Expect(r.entries()).To(And(Not(HaveKey(entryID(object, on))), HaveKey(clusterEntryID(object)), HaveKey(aliasID(on))))
	})

	It("makes before it breaks without a grace time, too, in both directions", func() {
		r.identities.Surplus = retention.NewSurplus(0, r.clock)
		ns, on := namespace(""), node()
		object := identity(ns, "pay")
		key := mesh.KeyOf(object)
		r.reconcile(key, ns, on, object, pod(ns, "pay", on.Name))
		audited(entryID(object, on))
		for _, step := range []struct {
			to        meshv1alpha1.Placement
			old, made string
		}{
			{meshv1alpha1.PlacementCluster, entryID(object, on), clusterEntryID(object)},
			{meshv1alpha1.PlacementNode, clusterEntryID(object), entryID(object, on)},
		} {
			place(object, step.to)
			Expect(r.reconcile(key).RequeueAfter).To(Equal(retry))
			Expect(r.entries()).To(And(HaveKey(step.old), HaveKey(step.made)))
			Expect(r.condition(key, "Registered")).To(Equal("True Registered"))
			audited(step.made)
			Expect(r.reconcile(key).RequeueAfter).To(BeZero())
			Expect(r.entries()).To(And(Not(HaveKey(step.old)), HaveKey(step.made)))
		}
		Expect(r.entries()).To(HaveKey(clusterAliasID), "the manager's own entry may hang on it")
	})

	It("keeps the entries of the nodes as long as that for the cluster cannot be made", func() {
		r.identities.Surplus = retention.NewSurplus(0, r.clock)
		ns, on := namespace(""), node()
		object := identity(ns, "pay")
		key := mesh.KeyOf(object)
		r.reconcile(key, ns, on, object, pod(ns, "pay", on.Name))
		foreign := r.entries()[entryID(object, on)]
		foreign.Id, foreign.ParentId.Path = "by-hand", "/paymesh/main/nodes"
		r.createByHand(foreign)
		place(object, meshv1alpha1.PlacementCluster)
		r.reconcile(key)
		Expect(r.condition(key, "Registered")).To(Equal("False Conflict"))
		Expect(r.message(key, "Registered")).To(ContainSubstring("by-hand"))
		passes := r.audits()
		Eventually(r.audits).Should(BeNumerically(">=", passes+2))
		r.reconcile(key)
		Expect(r.entries()).To(HaveKey(entryID(object, on)))
	})

	It("leaves no entry of any placement when it is deleted, and the alias of the cluster to others", func() {
		ns, on := namespace(""), node()
		object := identity(ns, "pay")
		key := mesh.KeyOf(object)
		r.reconcile(key, ns, on, object, pod(ns, "pay", on.Name))
		place(object, meshv1alpha1.PlacementCluster)
		r.reconcile(key)
		Expect(live.Delete(r.ctx, r.identity(key))).To(Succeed())
		r.reconcile(key, object)
		Expect(r.entries()).To(And(HaveLen(2), HaveKey(clusterAliasID), HaveKey(aliasID(on))))
	})

	It("has the alias of the cluster made again when somebody deletes it", func() {
		ns := namespace("")
		object := identity(ns, "pay", clusterWide)
		r.reconcile(mesh.KeyOf(object), ns, object)
		_, err := r.spire.Entries.BatchDeleteEntry(r.ctx, &entryv1.BatchDeleteEntryRequest{Ids: []string{clusterAliasID}})
		Expect(err).NotTo(HaveOccurred())
		Eventually(func() bool {
			r.reconcile(mesh.KeyOf(object))
			_, there := r.entries()[clusterAliasID]
			return there
		}).Should(BeTrue())
	})
})
