package controllers_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
)

var _ = Describe("the deletion brake", func() {
	const many = 12
	var r *rig
	var ns *corev1.Namespace
	var nodes []*corev1.Node
	BeforeEach(func() {
		r = newRig()
		ns, nodes = namespace(""), nil
		for range many {
			nodes = append(nodes, node())
		}
	})
	// everywhere makes an identity with a pod on each node, registered.
	everywhere := func(name string) (*meshv1alpha1.ServiceIdentity, []*corev1.Pod) {
		GinkgoHelper()
		object := identity(ns, name)
		r.settle(ns, object)
		var pods []*corev1.Pod
		for _, on := range nodes {
			pods = append(pods, pod(ns, name, on.Name))
			r.settle(on, pods[len(pods)-1])
		}
		r.reconcile(mesh.KeyOf(object))
		Expect(r.condition(mesh.KeyOf(object), "Ready")).To(Equal("True Ready"))
		return object, pods
	}
	own := func(object *meshv1alpha1.ServiceIdentity) (count int) {
		for _, on := range nodes {
			if r.entries()[entryID(object, on)] != nil {
				count++
			}
		}
		return count
	}
	brake := func() {
		GinkgoHelper()
		Expect(r.brakes.Reconcile(r.ctx, ctrl.Request{NamespacedName: types.NamespacedName{Name: r.operator.Name}})).To(Equal(ctrl.Result{}))
	}
	vanish := func(pods []*corev1.Pod) {
		GinkgoHelper()
		for _, each := range pods {
			gone(each)
			r.settle(each)
		}
	}

	It("keeps all entries where too many are needed no more at a time, says so, and lets them go by an annotation with the time of it", func() {
		object, pods := everywhere("pay")
		key := mesh.KeyOf(object)
		for len(r.events.Events) > 0 {
			<-r.events.Events
		}
		vanish(pods)
		Expect(r.reconcile(key).RequeueAfter).To(Equal(grace))
		r.clock.Step(grace)
		Expect(r.reconcile(key)).To(Equal(ctrl.Result{}))
		Expect(own(object)).To(Equal(many))
		Expect(r.condition(key, "Registered")).To(Equal("True DeletionsHeld"))
		Expect(r.condition(key, "Ready")).To(Equal("True Ready"))
		command := r.brakes.Brake.Command()
		Expect(r.message(key, "Registered")).To(HaveSuffix(command))
		Expect(<-r.events.Events).To(HavePrefix("Normal NoPods"))
		Expect(<-r.events.Events).To(HavePrefix("Warning DeletionsHeld"))
		By("an event on the manager's namespace, once")
		r.settle(r.operator)
		brake()
		brake()
		Expect(<-r.events.Events).To(And(HavePrefix("Warning DeletionsHeld"), HaveSuffix(command)))
		Expect(r.events.Events).To(BeEmpty())

		By("a word for another trip does nothing")
		r.operator.Annotations = map[string]string{meshv1alpha1.AnnotationReleaseDeletions: "2026-01-01T00:00:00Z"}
		Expect(live.Update(r.ctx, r.operator)).To(Succeed())
		r.settle(r.operator)
		brake()
		r.reconcile(key)
		Expect(own(object)).To(Equal(many))

		By("the word for this one lets them go")
		r.operator.Annotations[meshv1alpha1.AnnotationReleaseDeletions] = r.brakes.Brake.Tripped()
		Expect(live.Update(r.ctx, r.operator)).To(Succeed())
		r.settle(r.operator)
		brake()
		Expect(<-r.events.Events).To(HavePrefix("Normal DeletionsReleased the 12 entries"))
		r.reconcile(key)
		Expect(own(object)).To(BeZero())
		Expect(r.condition(key, "Registered")).To(Equal("True NoPods"))
	})

	It("has what it keeps follow the identity: pods that this ceased to select must not have it for that long", func() {
		object, pods := everywhere("pay")
		key := mesh.KeyOf(object)
		vanish(pods)
		r.reconcile(key)
		r.clock.Step(grace)
		r.reconcile(key)
		Expect(r.condition(key, "Registered")).To(Equal("True DeletionsHeld"))
		object = r.identity(key)
		object.Spec.PodLabels = map[string]meshv1alpha1.LabelValue{"tier": "gold"}
		Expect(live.Update(r.ctx, object)).To(Succeed())
		r.reconcile(key, object)
		Expect(own(object)).To(Equal(many))
		Expect(r.entries()[entryID(object, nodes[0])].Selectors).To(ContainElement(HaveField("Value", "pod-label:tier:gold")))
	})

	It("does not let go while a pod is bound to a node that is not shown: it is not known what is needed again", func() {
		object, pods := everywhere("pay")
		key := mesh.KeyOf(object)
		vanish(pods)
		r.reconcile(key)
		r.clock.Step(grace)
		r.reconcile(key)
		trip := r.brakes.Brake.Tripped()
		Expect(trip).NotTo(BeEmpty())
		lost := pod(ns, "pay", "not-shown")
		r.reconcile(key, lost)
		Expect(r.condition(key, "Registered")).To(Equal("Unknown NodeUnknown"))
		Expect(r.brakes.Brake.Tripped()).To(Equal(trip))
		Expect(r.brakes.Brake.Held()).To(Equal(many))
		r.clock.Step(2 * time.Second)
		vanish([]*corev1.Pod{lost})
		r.reconcile(key)
		Expect(r.brakes.Brake.Tripped()).To(Equal(trip), "a word for this trip would be good for no other")
		Expect(own(object)).To(Equal(many))
	})

	It("does not count the entries of an object that somebody deletes, and deletes them also when it has tripped", func() {
		object, pods := everywhere("pay")
		other, _ := everywhere("other")
		vanish(pods)
		r.reconcile(mesh.KeyOf(object))
		r.clock.Step(grace)
		Expect(live.Delete(r.ctx, other)).To(Succeed())
		r.reconcile(mesh.KeyOf(other), other)
		Expect(own(other)).To(BeZero())
		Expect(apierrors.IsNotFound(live.Get(r.ctx, mesh.KeyOf(other), other))).To(BeTrue())

		r.reconcile(mesh.KeyOf(object))
		Expect(r.brakes.Brake.Held()).To(Equal(many))
		Expect(live.Delete(r.ctx, object)).To(Succeed())
		r.reconcile(mesh.KeyOf(object), object)
		Expect(own(object)).To(BeZero())
		Expect(apierrors.IsNotFound(live.Get(r.ctx, mesh.KeyOf(object), object))).To(BeTrue())
		Expect(r.brakes.Brake.Tripped()).To(BeEmpty(), "nothing is held back any more")
	})

	It("holds back what a grant that was taken back, or an object that went without its finalizer, would cost", func() {
		granted := identity(ns, "granted", path("/braked-"+ns.Name))
		stripped, _ := everywhere("stripped")
		ns.Annotations = map[string]string{meshv1alpha1.AnnotationSPIFFEPathPrefixes: granted.Spec.Path}
		Expect(live.Update(r.ctx, ns)).To(Succeed())
		for _, on := range nodes {
			r.settle(pod(ns, "granted", on.Name))
		}
		r.reconcile(mesh.KeyOf(granted), ns, granted)
		Expect(own(granted)).To(Equal(many))
		ns.Annotations = nil
		Expect(live.Update(r.ctx, ns)).To(Succeed())
		r.reconcile(mesh.KeyOf(granted), ns)
		Expect(own(granted)).To(Equal(many))
		Expect(r.condition(mesh.KeyOf(granted), "Registered")).To(Equal("False DeletionsHeld"))
		Expect(r.condition(mesh.KeyOf(granted), "Ready")).To(Equal("False PathNotGranted"))

		stripped = r.identity(mesh.KeyOf(stripped))
		stripped.Finalizers = nil
		Expect(live.Update(r.ctx, stripped)).To(Succeed())
		gone(stripped)
		r.reconcile(mesh.KeyOf(stripped), stripped)
		r.clock.Step(grace)
		r.reconcile(mesh.KeyOf(stripped))
		Expect(own(stripped)).To(Equal(many))
		Expect(r.brakes.Brake.Held()).To(Equal(2 * many))
		Expect(r.brakes.Brake.Release(r.brakes.Brake.Tripped())).To(BeTrue())
		r.reconcile(mesh.KeyOf(granted))
		r.reconcile(mesh.KeyOf(stripped))
		Expect(own(granted) + own(stripped)).To(BeZero())
	})

	It("never takes an alias away from entries that hang on it, though its node is not shown any more", func() {
		object, _ := everywhere("pay")
		lost := nodes[0]
		_, err := r.nodes.Reconcile(r.ctx, lost.UID)
		Expect(err).NotTo(HaveOccurred())
		gone(lost)
		r.settle(lost)
		for range 3 {
			_, err := r.nodes.Reconcile(r.ctx, lost.UID)
			Expect(err).NotTo(HaveOccurred())
			r.reconcile(mesh.KeyOf(object))
			r.clock.Step(grace)
		}
		Expect(r.entries()).To(HaveKey(aliasID(lost)))
		Expect(own(object)).To(Equal(many))
		Expect(r.condition(mesh.KeyOf(object), "Registered")).To(Equal("Unknown NodeUnknown"))
	})
})
