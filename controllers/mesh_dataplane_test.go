package controllers_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
)

var _ = Describe("a MeshService whose dataPlane changes", func() {
	var r *meshRig
	BeforeEach(func() { r = newMeshRig() })
	library := func(spec *meshv1alpha1.MeshServiceSpec) {
		spec.DataPlane, spec.Workload.PolicySupport = meshv1alpha1.DataPlaneLibrary, meshv1alpha1.PolicySupportEnforced
	}
	allowing := func(spec *meshv1alpha1.MeshServiceSpec) {
		spec.Allow = []meshv1alpha1.AllowRule{{Name: "outsider", From: meshv1alpha1.Caller{SPIFFEID: "spiffe://jia.app/outsider"}, Methods: []meshv1alpha1.Method{"*"}}}
	}
	start := func(edits ...func(*meshv1alpha1.MeshServiceSpec)) {
		GinkgoHelper()
		r.reconcile("pay", r.service("pay", edits...))
		r.accept("pay")
		r.running("pay")
		r.reconcile("pay")
	}
	get := func(object client.Object, name string) client.Object {
		GinkgoHelper()
		Expect(live.Get(r.ctx, client.ObjectKey{Namespace: r.ns.Name, Name: name}, object)).To(Succeed())
		return object
	}
	policy := func() string {
		GinkgoHelper()
		return get(&corev1.ConfigMap{}, "pay-policy").(*corev1.ConfigMap).Data["policy.yaml"]
	}

	It("takes a caller back from the processes that enforce it themselves, whatever keeps the sidecars from coming", func() {
		start(library, allowing)
		Expect(policy()).To(ContainSubstring("spiffe://jia.app/outsider"))
		r.reconcile("pay", r.update("pay", func(spec *meshv1alpha1.MeshServiceSpec) {
			spec.DataPlane = meshv1alpha1.DataPlaneSidecar
			spec.Workload.Patch = &apiextensionsv1.JSON{Raw: []byte(`{"spec":{"paused":true}}`)}
		}))
		Expect(r.says("pay", "Accepted")).To(Equal("False PatchInvalid"))
		r.reconcile("pay", r.update("pay", func(spec *meshv1alpha1.MeshServiceSpec) { spec.Allow = nil }))
		Expect(get(&appsv1.Deployment{}, "pay").(*appsv1.Deployment).Spec.Template.Spec.InitContainers).To(BeEmpty())
		Expect(policy()).To(Equal("rules: []\n"))
	})

	It("keeps the files of the pods that run until the last of them is replaced", func() {
		start()
		get(&corev1.ConfigMap{}, "pay-proxy")
		r.reconcile("pay", r.update("pay", library))
		Expect(r.says("pay", "WorkloadReady")).To(Equal("False Progressing"))
		get(&corev1.ConfigMap{}, "pay-proxy")
		r.running("pay")
		r.reconcile("pay")
		Expect(r.says("pay", "WorkloadReady")).To(Equal("True Available"))
		Eventually(func() error {
			return live.Get(r.ctx, client.ObjectKey{Namespace: r.ns.Name, Name: "pay-proxy"}, &corev1.ConfigMap{})
		}).Should(MatchError(ContainSubstring("not found")))
	})

	It("lets the sidecars that run reach the managers, though the library that is to come has none", func() {
		start(calling("contact", 50051))
		r.reconcile("pay", r.update("pay", library))
		Expect(get(&appsv1.Deployment{}, "pay").(*appsv1.Deployment).Spec.Template.Spec.InitContainers).To(HaveLen(1), "the contact service is not there")
		var ports []int
		for _, rule := range get(&networkingv1.NetworkPolicy{}, "pay").(*networkingv1.NetworkPolicy).Spec.Egress {
			for _, port := range rule.Ports {
				ports = append(ports, port.Port.IntValue())
			}
		}
		Expect(ports).To(ContainElement(mesh.XDSPort))
	})
})
