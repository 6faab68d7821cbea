package controllers_test

import (
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

	It("has their DNS names, in place and with one write each time that they come, change and go", func() {
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
		r.reconcile(key, service)
		Expect(r.entries()[entryID(object, on)].GetDnsNames()).To(Equal(own))
		r.reconcile(key, selecting(ns, "again", "pay"))
		Expect(r.entries()[entryID(object, on)].GetDnsNames()).To(Equal(append(own, forms("again")...)))
		Expect(r.writes()).To(Equal(4))
		Expect(r.entries()[entryID(object, on)].GetCreatedAt()).To(Equal(created))
		Expect(r.condition(key, "Ready")).To(Equal("True Ready"))
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
