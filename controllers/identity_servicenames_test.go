package controllers_test

import (
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
)

func serviceDNSNames(spec *meshv1alpha1.ServiceIdentitySpec) { spec.ServiceDNSNames = true }

// selecting makes a Service that selects pods by a label of the spec's own.
func selecting(namespace *corev1.Namespace, name, app string) *corev1.Service {
	GinkgoHelper()
	object := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace.Name, Name: name},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": app}, Ports: []corev1.ServicePort{{Port: 80}}},
	}
	Expect(live.Create(GinkgoT().Context(), object)).To(Succeed())
	return object
}

var _ = Describe("an identity that is named after Services", func() {
	var r *rig
	BeforeEach(func() { r = newRig() })

	labelled := func(pod *corev1.Pod, app string) *corev1.Pod {
		GinkgoHelper()
		pod.Labels = map[string]string{"app": app}
		Expect(live.Update(r.ctx, pod)).To(Succeed())
		return pod
	}

	It("has their DNS names, in place and with one write each time that they come, change and, after the grace time, go", func() {
		r.identities.ClusterDomain = "cluster.local"
		ns, on := namespace(""), node()
		object := identity(ns, "pay", serviceDNSNames, func(spec *meshv1alpha1.ServiceIdentitySpec) {
			spec.DNSNames = []meshv1alpha1.DNSName{"pay.example.com"}
		})
		key := mesh.KeyOf(object)
		forms := func(service string) []string {
			short := service + "." + ns.Name
			return []string{service, short, short + ".svc", short + ".svc.cluster.local"}
		}
		own := []string{"pay.example.com"}
		r.reconcile(key, ns, on, object, labelled(pod(ns, "pay", on.Name), "pay"), selecting(ns, "of-others", "ledger"))
		Expect(r.entries()[entryID(object, on)].GetDnsNames()).To(Equal(own))
		created := r.entries()[entryID(object, on)].GetCreatedAt()

		service := selecting(ns, "payments", "pay")
		r.reconcile(key, service)
		Expect(r.entries()[entryID(object, on)].GetDnsNames()).To(Equal(append(own, forms("payments")...)))
		r.reconcile(key)
		Expect(r.writes()).To(Equal(2))

		service.Spec.Selector = map[string]string{"app": "ledger"}
		Expect(live.Update(r.ctx, service)).To(Succeed())
		Expect(r.reconcile(key, service).RequeueAfter).To(Equal(grace))
		r.clock.Step(grace - time.Second)
		Expect(r.reconcile(key).RequeueAfter).To(Equal(time.Second))
		Expect(r.entries()[entryID(object, on)].GetDnsNames()).To(Equal(append(own, forms("payments")...)))
		Expect(r.writes()).To(Equal(2))
		r.clock.Step(time.Second)
		Expect(r.reconcile(key).RequeueAfter).To(BeZero())
		Expect(r.entries()[entryID(object, on)].GetDnsNames()).To(Equal(own))
		r.reconcile(key, selecting(ns, "again", "pay"))
		Expect(r.entries()[entryID(object, on)].GetDnsNames()).To(Equal(append(own, forms("again")...)))
		Expect(r.writes()).To(Equal(4))
		Expect(r.entries()[entryID(object, on)].GetCreatedAt()).To(Equal(created))
		Expect(r.condition(key, "Ready")).To(Equal("True Ready"))
	})

	It("keeps the names of a Service whose pod restarts: nothing is written, and no SVID signed again", func() {
		ns, one, two := namespace(""), node(), node()
		object := identity(ns, "db", serviceDNSNames)
		key := mesh.KeyOf(object)
		r.reconcile(key, ns, one, two, object, labelled(pod(ns, "db", one.Name), "db-0"), selecting(ns, "db-0", "db-0"), selecting(ns, "db-1", "db-1"))
		restarting := labelled(pod(ns, "db", two.Name), "db-1")
		r.reconcile(key, restarting)
		writes := r.writes()
		for range 3 {
			gone(restarting)
			r.reconcile(key, restarting)
			r.clock.Step(grace - time.Second)
			restarting = labelled(pod(ns, "db", two.Name), "db-1")
			Expect(r.reconcile(key, restarting).RequeueAfter).To(BeZero())
		}
		Expect(r.writes()).To(Equal(writes))
		By("and drops them at once where they are not asked for any more")
		changed := r.identity(key)
		changed.Spec.ServiceDNSNames = false
		Expect(live.Update(r.ctx, changed)).To(Succeed())
		r.reconcile(key, changed)
		Expect(r.entries()[entryID(object, one)].GetDnsNames()).To(BeEmpty())
	})

	It("keeps a name, where there are too many, whose pod restarts: no other takes its place meanwhile", func() {
		ns, on := namespace(""), node()
		object := identity(ns, "db", serviceDNSNames)
		key := mesh.KeyOf(object)
		restarting := labelled(pod(ns, "db", on.Name), "db-0")
		r.settle(restarting, labelled(pod(ns, "db", on.Name), "db"), selecting(ns, "a", "db-0"))
		for _, name := range "bcdefghijklmnopq" {
			r.settle(selecting(ns, string(name), "db"))
		}
		r.reconcile(key, ns, on, object)
		writes, before := r.writes(), r.entries()[entryID(object, on)].GetDnsNames()
		gone(restarting)
		Expect(r.reconcile(key, restarting).RequeueAfter).To(Equal(grace))
		r.reconcile(key, labelled(pod(ns, "db", on.Name), "db-0"))
		Expect(r.writes()).To(Equal(writes))
		Expect(r.entries()[entryID(object, on)].GetDnsNames()).To(Equal(before))
		Expect(before).To(ContainElement("a"))
	})

	It("says which Services it is not named after where there are too many", func() {
		ns, on := namespace(""), node()
		object := identity(ns, "pay", serviceDNSNames)
		r.settle(labelled(pod(ns, "pay", on.Name), "pay"))
		for _, name := range "abcdefghijklmnopq" {
			r.settle(selecting(ns, string(name), "pay"))
		}
		r.reconcile(mesh.KeyOf(object), ns, on, object)
		Expect(r.entries()[entryID(object, on)].GetDnsNames()).To(HaveLen(48))
		Expect(r.condition(mesh.KeyOf(object), "Registered")).To(Equal("True Registered"))
		Expect(r.message(mesh.KeyOf(object), "Registered")).To(HaveSuffix("left out: q"))
	})
})
