package controllers_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
)

func pathTemplate(template string, labels map[string]meshv1alpha1.LabelValue) func(*meshv1alpha1.ServiceIdentitySpec) {
	return func(spec *meshv1alpha1.ServiceIdentitySpec) { spec.PathTemplate, spec.PodLabels = template, labels }
}

var _ = Describe("an identity with a path template", func() {
	var r *rig
	BeforeEach(func() { r = newRig() })

	It("gets the path that its values make, held to the grants of its namespace", func() {
		ns, on := namespace(""), node()
		object := identity(ns, "pay", pathTemplate("/shops/{{cluster}}/{{namespace}}/{{podLabels.tier}}", map[string]meshv1alpha1.LabelValue{"tier": "gold"}))
		key := mesh.KeyOf(object)
		running := pod(ns, "pay", on.Name)
		running.Labels = map[string]string{"tier": "gold"}
		Expect(live.Update(r.ctx, running)).To(Succeed())
		r.reconcile(key, ns, on, running, object)
		Expect(r.condition(key, "Accepted")).To(Equal("False PathNotGranted"))
		Expect(r.message(key, "Accepted")).To(ContainSubstring("=/shops/main/" + ns.Name + "/gold"))
		Expect(r.entries()).To(BeEmpty())

		ns.Annotations = map[string]string{meshv1alpha1.AnnotationSPIFFEPathPrefixes: "/shops/main/" + ns.Name}
		Expect(live.Update(r.ctx, ns)).To(Succeed())
		r.reconcile(key, ns)
		Expect(r.condition(key, "Ready")).To(Equal("True Ready"))
		Expect(r.identity(key).Status.SPIFFEID).To(Equal("spiffe://jia.app/shops/main/" + ns.Name + "/gold"))
		Expect(r.entries()[entryID(object, on)].GetSpiffeId().GetPath()).To(Equal("/shops/main/" + ns.Name + "/gold"))
	})

	It("has no ID and no entry where a label is not pinned, and says what to write", func() {
		ns, on := namespace("/shops"), node()
		object := identity(ns, "pay", pathTemplate("/shops/{{podLabels.tier}}", nil))
		key := mesh.KeyOf(object)
		r.reconcile(key, ns, on, pod(ns, "pay", on.Name), object)
		Expect(r.condition(key, "Accepted")).To(Equal("False PathValueMissing"))
		Expect(r.message(key, "Accepted")).To(ContainSubstring("needs the label tier in spec.podLabels"))
		Expect(r.condition(key, "Registered")).To(Equal("False NotAccepted"))
		Expect(r.identity(key).Status.SPIFFEID).To(BeEmpty())
		Expect(r.entries()).To(BeEmpty())
		Expect(live.Delete(r.ctx, r.identity(key))).To(Succeed())
		r.reconcile(key, object)
		Eventually(func() error { return live.Get(r.ctx, key, object) }).ShouldNot(Succeed())
	})

	It("is a rival of who has the same path by the letter", func() {
		ns, on := namespace("/shops"), node()
		first := identity(ns, "first", path("/shops/main"))
		r.reconcile(mesh.KeyOf(first), ns, on, pod(ns, "first", on.Name), first)
		second := identity(ns, "second", pathTemplate("/shops/{{cluster}}", nil))
		r.reconcile(mesh.KeyOf(second), pod(ns, "second", on.Name), second)
		Expect(r.condition(mesh.KeyOf(second), "Accepted")).To(Equal("False IDClaimed"))
		Expect(r.message(mesh.KeyOf(second), "Accepted")).To(ContainSubstring(ns.Name + "/first"))
		Expect(live.Delete(r.ctx, r.identity(mesh.KeyOf(first)))).To(Succeed())
		r.reconcile(mesh.KeyOf(first), first)
		Eventually(func() error { return live.Get(r.ctx, mesh.KeyOf(first), first) }).ShouldNot(Succeed())
		r.reconcile(mesh.KeyOf(second), first)
		Expect(r.condition(mesh.KeyOf(second), "Ready")).To(Equal("True Ready"))
	})
})
