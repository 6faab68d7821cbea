package controllers_test

import (
	"context"
	"maps"
	"slices"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	spiretypes "github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/controllers"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/spire"
	"github.com/jia-app/paymesh/internal/spire/registry"
	"github.com/jia-app/paymesh/internal/spire/retention"
	"github.com/jia-app/paymesh/test/lab"
)

var _ = Describe("identities beside one another", func() {
	var r *rig
	BeforeEach(func() { r = newRig() })

	It("are two on one pod, each with its own entry and selectors", func() {
		ns, on := namespace("/ledger"), node()
		first := identity(ns, "pay")
		second := identity(ns, "ledger", path("/ledger"), func(spec *meshv1alpha1.ServiceIdentitySpec) { spec.ServiceAccountName = "pay" })
		r.settle(ns, on, pod(ns, "pay", on.Name), first, second)
		r.reconcile(mesh.KeyOf(first))
		r.reconcile(mesh.KeyOf(second))
		Expect(r.entries()[entryID(first, on)].GetSpiffeId().GetPath()).To(Equal("/ns/" + ns.Name + "/sa/pay"))
		Expect(r.entries()[entryID(second, on)].GetSpiffeId().GetPath()).To(Equal("/ledger"))
		for _, object := range []*meshv1alpha1.ServiceIdentity{first, second} {
			Expect(r.condition(mesh.KeyOf(object), "Ready")).To(Equal("True Ready"))
		}
	})

	It("are one on many pods, with an entry a node", func() {
		ns, one, two := namespace(""), node(), node()
		object := identity(ns, "pay")
		r.settle(ns, one, two, object)
		for range 3 {
			r.settle(pod(ns, "pay", one.Name), pod(ns, "pay", two.Name))
		}
		r.reconcile(mesh.KeyOf(object))
		Expect(r.writes()).To(Equal(1))
		Expect(r.identity(mesh.KeyOf(object)).Status.Entries.Summary).To(Equal("2/2"))
	})

	It("are of the same name and service account in several namespaces, and one that is deleted takes nothing of the other", func() {
		first, second, on := namespace(""), namespace(""), node()
		a, b := identity(first, "pay"), identity(second, "pay")
		r.reconcile(mesh.KeyOf(a), first, second, on, a, b, pod(first, "pay", on.Name), pod(second, "pay", on.Name))
		r.reconcile(mesh.KeyOf(b))
		Expect(slices.Collect(maps.Keys(r.entries()))).To(ConsistOf(aliasID(on), entryID(a, on), entryID(b, on)))
		Expect(live.Delete(r.ctx, r.identity(mesh.KeyOf(a)))).To(Succeed())
		r.reconcile(mesh.KeyOf(a), a)
		Expect(slices.Collect(maps.Keys(r.entries()))).To(ConsistOf(aliasID(on), entryID(b, on)))
	})

	It("are of several clusters, each with its operator, on one SPIRE server, and none touches what another has", func() {
		other, operator := r.secondCluster("other")
		ns := namespace("/shared")
		here := identity(ns, "here", path("/shared"), clusterWide)
		r.reconcile(mesh.KeyOf(here), ns, here)
		By("the other operator, which does not see what is of this cluster, takes the same ID for its own cluster")
		changed := r.identity(mesh.KeyOf(here))
		byOther := func(object *meshv1alpha1.ServiceIdentity) {
			GinkgoHelper()
			_, err := operator.Reconcile(r.ctx, ctrl.Request{NamespacedName: mesh.KeyOf(object)})
			Expect(err).NotTo(HaveOccurred())
			r.settle(r.identity(mesh.KeyOf(object)))
		}
		byOther(changed)
		id := "pm1.other." + ns.Name + ".here.cluster"
		Expect(r.entries()[id].GetSpiffeId().GetPath()).To(Equal("/shared"))
		Expect(r.entries()[id].GetParentId().GetPath()).To(Equal("/paymesh/other/nodes"))
		Expect(r.entries()).To(And(HaveLen(4), HaveKey(clusterEntryID(here)), HaveKey(clusterAliasID), HaveKey("pm1.other.nodes")))
		Expect(other.Owners(spire.OwnerIdentity)).To(HaveLen(1))
		By("and neither touches what the other has")
		ns.Annotations = nil
		Expect(live.Update(r.ctx, ns)).To(Succeed())
		r.reconcile(mesh.KeyOf(here), ns)
		Expect(r.entries()).To(And(Not(HaveKey(clusterEntryID(here))), HaveKey(id)))
		passes := r.audits()
		Eventually(r.audits).Should(BeNumerically(">=", passes+2))
		Expect(r.entries()[id].GetRevisionNumber()).To(BeZero())
		byOther(here)
		Expect(r.entries()).To(And(HaveLen(2), HaveKey(clusterAliasID), HaveKey("pm1.other.nodes")))
	})

	It("name the other where an entry with the same parent, ID and selectors is there, whoever made it", func() {
		ns, on := namespace("/taken"), node()
		object := identity(ns, "pay", path("/taken"))
		r.settle(ns, on, object, pod(ns, "pay", on.Name))
		r.createByHand(&spiretypes.Entry{
			Id:        "pm1.other.payments.their-own.1111",
			SpiffeId:  &spiretypes.SPIFFEID{TrustDomain: lab.TrustDomain, Path: "/taken"},
			ParentId:  &spiretypes.SPIFFEID{TrustDomain: lab.TrustDomain, Path: "/paymesh/main/node/" + string(on.UID)},
			Selectors: []*spiretypes.Selector{{Type: "k8s", Value: "ns:" + ns.Name}, {Type: "k8s", Value: "sa:pay"}},
		})
		r.reconcile(mesh.KeyOf(object))
		Expect(r.condition(mesh.KeyOf(object), "Registered")).To(Equal("False Conflict"))
		Expect(r.message(mesh.KeyOf(object), "Registered")).To(ContainSubstring("pm1.other.payments.their-own.1111"))
		Expect(r.entries()).To(HaveKey("pm1.other.payments.their-own.1111"))
	})

	It("have their entry as soon as a pod is bound, before anything of it has started, and keep it for the pod that comes after it", func() {
		ns, on := namespace(""), node()
		object, waiting := identity(ns, "pay"), pod(ns, "pay", "")
		key := mesh.KeyOf(object)
		r.reconcile(key, ns, on, object, waiting)
		Expect(r.condition(key, "Registered")).To(Equal("True NoPods"))
		Expect(live.SubResource("binding").Create(r.ctx, waiting, &corev1.Binding{
			ObjectMeta: metav1.ObjectMeta{Name: waiting.Name}, Target: corev1.ObjectReference{Kind: "Node", Name: on.Name},
		})).To(Succeed())
		r.reconcile(key, waiting)
		Expect(live.Get(r.ctx, client.ObjectKeyFromObject(waiting), waiting)).To(Succeed())
		Expect(waiting.Status.ContainerStatuses).To(BeEmpty())
		Expect(r.entries()).To(HaveKey(entryID(object, on)))
		writes := r.writes()
		gone(waiting)
		Expect(r.reconcile(key, waiting).RequeueAfter).To(Equal(grace))
		r.clock.Step(grace / 2)
		r.reconcile(key, pod(ns, "pay", on.Name))
		Expect(r.writes()).To(Equal(writes))
		Expect(r.entries()[entryID(object, on)].GetRevisionNumber()).To(BeZero())
	})
})

// secondCluster is the operator of another cluster on the same SPIRE server.
func (r *rig) secondCluster(name string) (*registry.Registry, *controllers.ServiceIdentityReconciler) {
	GinkgoHelper()
	id, err := mesh.NewClusterID(lab.TrustDomain, name)
	Expect(err).NotTo(HaveOccurred())
	entries := registry.New(r.api, id, registry.Options{AuditInterval: audit, Logger: GinkgoLogr})
	ctx, cancel := context.WithCancel(r.ctx)
	ended := make(chan error, 1)
	go func() { ended <- entries.Start(ctx) }()
	DeferCleanup(func() {
		cancel()
		Expect(<-ended).To(Succeed())
	})
	Eventually(func() bool { return entries.State().Synced }).Should(BeTrue())
	operator := *r.identities
	operator.Cluster, operator.SPIRE, operator.Witness = id, entries, retention.NewWitness(nil)
	operator.Surplus = retention.NewSurplus(grace, r.clock)
	return entries, &operator
}
