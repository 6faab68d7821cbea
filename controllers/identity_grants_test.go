package controllers_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
)

var _ = Describe("a grant of which a part is no path", func() {
	var r *rig
	BeforeEach(func() { r = newRig() })

	grant := func(ns *corev1.Namespace, value string) {
		GinkgoHelper()
		ns.Annotations = map[string]string{meshv1alpha1.AnnotationSPIFFEPathPrefixes: value}
		Expect(live.Update(r.ctx, ns)).To(Succeed())
		r.settle(ns)
	}

	It("takes nothing from an identity that is accepted, on new nodes neither, and says what to write", func() {
		ns, first, second := namespace("/pay, /ledger"), node(), node()
		object := identity(ns, "pay", path("/pay"))
		key := mesh.KeyOf(object)
		r.reconcile(key, ns, first, second, object, pod(ns, "pay", first.Name))
		grant(ns, "/pay/, /ledger")
		r.reconcile(key, pod(ns, "pay", second.Name))
		Expect(r.entries()).To(And(HaveKey(entryID(object, first)), HaveKey(entryID(object, second))))
		Expect(r.condition(key, "Ready")).To(Equal("True Ready"))
		Expect(r.condition(key, "Accepted")).To(Equal("True GrantInvalid"))
		Expect(r.message(key, "Accepted")).To(And(ContainSubstring(`"/pay/"`), HaveSuffix("mesh.jia.app/spiffe-path-prefixes=/pay,/ledger")))
		Eventually(r.events.Events).Should(Receive(ContainSubstring("Warning GrantInvalid")))
		r.clock.Step(2 * grace)
		r.reconcile(key)
		Expect(r.condition(key, "Accepted")).To(Equal("True GrantInvalid"))

		By("and takes it away as soon as it can be read and does not grant it")
		grant(ns, "/ledger")
		r.reconcile(key)
		Expect(r.condition(key, "Accepted")).To(Equal("False PathNotGranted"))
		Expect(r.entries()).NotTo(HaveKey(entryID(object, first)))

		By("and gives nothing back by a part that cannot be read")
		grant(ns, "/pay/, /ledger")
		r.reconcile(key)
		Expect(r.condition(key, "Accepted")).To(Equal("False PathNotGranted"))
	})

	It("takes a path away that was taken out, where the part that cannot be read did not mean it", func() {
		ns, on := namespace("/pay"), node()
		object := identity(ns, "pay", path("/pay"))
		key := mesh.KeyOf(object)
		r.reconcile(key, ns, on, object, pod(ns, "pay", on.Name))
		grant(ns, "ledger")
		r.reconcile(key)
		Expect(r.condition(key, "Accepted")).To(Equal("False PathNotGranted"))
		Expect(r.entries()).NotTo(HaveKey(entryID(object, on)))
	})

	It("judges a new claim by the parts that can be read, and names the one that cannot", func() {
		ns, on := namespace("ledger,/pay"), node()
		granted, refused := identity(ns, "pay", path("/pay")), identity(ns, "ledger", path("/ledger"))
		r.reconcile(mesh.KeyOf(granted), ns, on, granted, refused, pod(ns, "pay", on.Name), pod(ns, "ledger", on.Name))
		r.reconcile(mesh.KeyOf(refused))
		Expect(r.condition(mesh.KeyOf(granted), "Accepted")).To(Equal("True Accepted"))
		Expect(r.entries()).To(HaveKey(entryID(granted, on)))
		Expect(r.condition(mesh.KeyOf(refused), "Accepted")).To(Equal("False PathNotGranted"))
		Expect(r.message(mesh.KeyOf(refused), "Accepted")).To(And(ContainSubstring(`"ledger"`), HaveSuffix("=/ledger,/pay")))
		Expect(r.entries()).NotTo(HaveKey(entryID(refused, on)))
	})
})
