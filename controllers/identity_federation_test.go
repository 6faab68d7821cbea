package controllers_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	bundlev1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/bundle/v1"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
)

func federatesWith(names ...meshv1alpha1.TrustDomain) func(*meshv1alpha1.ServiceIdentitySpec) {
	return func(spec *meshv1alpha1.ServiceIdentitySpec) { spec.FederatesWith = names }
}

var _ = Describe("an identity that federates", func() {
	var r *rig
	BeforeEach(func() { r = newRig() })

	drain := func() (texts []string) {
		for {
			select {
			case text := <-r.events.Events:
				texts = append(texts, text)
			default:
				return texts
			}
		}
	}

	It("has its entry with the partners whose bundle there is, names the others, and takes them up when their bundle is there", func() {
		r.spire.SetBundle(GinkgoT(), "bank.example")
		Eventually(r.registry.Bundles).Should(Equal([]string{"bank.example"}))
		ns, on := namespace(""), node()
		object := identity(ns, "pay", federatesWith("late.example", "bank.example", "jia.app"))
		key := mesh.KeyOf(object)
		r.reconcile(key, ns, on, pod(ns, "pay", on.Name), object)
		Expect(r.entries()[entryID(object, on)].GetFederatesWith()).To(Equal([]string{"bank.example"}))
		Expect(r.condition(key, "Registered")).To(Equal("True FederationDegraded"))
		Expect(r.condition(key, "Ready")).To(Equal("True Ready"))
		Expect(r.message(key, "Registered")).To(And(ContainSubstring(on.Name), ContainSubstring("late.example"),
			ContainSubstring("spire-server bundle set -id spiffe://late.example"), Not(ContainSubstring("bank.example"))))
		Expect(drain()).To(ContainElement(HavePrefix("Warning FederationDegraded")))

		r.spire.SetBundle(GinkgoT(), "late.example")
		Eventually(r.registry.Bundles).Should(ContainElement("late.example"))
		before := r.writes()
		r.reconcile(key)
		Expect(r.writes()).To(Equal(before + 1))
		Expect(r.entries()[entryID(object, on)].GetFederatesWith()).To(ConsistOf("bank.example", "late.example"))
		Expect(r.condition(key, "Registered")).To(Equal("True Registered"))
		Expect(drain()).To(ContainElement(HavePrefix("Normal Registered")))
		Expect(r.reconcile(key).RequeueAfter).To(BeZero())
		Expect(r.writes()).To(Equal(before + 1))
	})

	It("has its entry without a partner at the second look where its bundle went in between", func() {
		r.spire.SetBundle(GinkgoT(), "bank.example")
		Eventually(r.registry.Bundles).Should(Equal([]string{"bank.example"}))
		ns, on := namespace(""), node()
		object := identity(ns, "pay", federatesWith("bank.example"))
		key := mesh.KeyOf(object)
		r.settle(ns, on, object, pod(ns, "pay", on.Name))
		turned := make(chan []string, 1)
		r.registry.NotifyBundles(func(trustDomains []string) { turned <- trustDomains })
		r.spire.DeleteBundle(GinkgoT(), "bank.example", bundlev1.BatchDeleteFederatedBundleRequest_DISSOCIATE)
		r.reconcile(key)                                              // refused, or already without it where the audit was quicker
		Eventually(turned).Should(Receive(ConsistOf("bank.example"))) // which wakes the identity
		r.reconcile(key)
		Expect(r.entries()).To(HaveKey(entryID(object, on)))
		Expect(r.entries()[entryID(object, on)].GetFederatesWith()).To(BeEmpty())
		Expect(r.condition(key, "Registered")).To(Equal("True FederationDegraded"))
	})

	It("gets a partner back whose bundle was deleted and set again between two looks of the audit", func() {
		r.spire.SetBundle(GinkgoT(), "bank.example")
		Eventually(r.registry.Bundles).Should(Equal([]string{"bank.example"}))
		ns, on := namespace(""), node()
		object := identity(ns, "pay", federatesWith("bank.example"))
		r.reconcile(mesh.KeyOf(object), ns, on, pod(ns, "pay", on.Name), object)
		Expect(r.entries()[entryID(object, on)].GetFederatesWith()).To(Equal([]string{"bank.example"}))
		r.spire.DeleteBundle(GinkgoT(), "bank.example", bundlev1.BatchDeleteFederatedBundleRequest_DISSOCIATE)
		r.spire.SetBundle(GinkgoT(), "bank.example")
		Expect(r.entries()[entryID(object, on)].GetFederatesWith()).To(BeEmpty())
		Eventually(func() []string {
			r.reconcile(mesh.KeyOf(object))
			return r.entries()[entryID(object, on)].GetFederatesWith()
		}).Should(Equal([]string{"bank.example"}))
	})

	It("says what is missing before the first pod runs, and follows a change of its spec in place", func() {
		r.spire.SetBundle(GinkgoT(), "bank.example")
		Eventually(r.registry.Bundles).Should(Equal([]string{"bank.example"}))
		ns, on := namespace(""), node()
		object := identity(ns, "pay", federatesWith("late.example"))
		key := mesh.KeyOf(object)
		r.reconcile(key, ns, on, object)
		Expect(r.condition(key, "Registered")).To(Equal("True FederationDegraded"))
		r.reconcile(key, pod(ns, "pay", on.Name))
		created := r.entries()[entryID(object, on)].GetCreatedAt()
		object = r.identity(key)
		object.Spec.FederatesWith = []meshv1alpha1.TrustDomain{"bank.example"}
		Expect(live.Update(r.ctx, object)).To(Succeed())
		r.reconcile(key, object)
		entry := r.entries()[entryID(object, on)]
		Expect(entry.GetFederatesWith()).To(Equal([]string{"bank.example"}))
		Expect(entry.GetCreatedAt()).To(Equal(created))
		Expect(entry.GetRevisionNumber()).To(Equal(int64(1)))
		Expect(r.condition(key, "Registered")).To(Equal("True Registered"))
	})
})
