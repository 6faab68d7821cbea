package controllers_test

import (
	"context"
	"errors"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/controllers"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/workload"
	"github.com/jia-app/paymesh/internal/xds"
)

// behind is a cache that has not seen the last write of a Deployment.
type behind struct {
	client.Client
	old *appsv1.Deployment
}

func (b *behind) Get(ctx context.Context, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
	if deployment, ok := object.(*appsv1.Deployment); ok {
		b.old.DeepCopyInto(deployment)
		return nil
	}
	return b.Client.Get(ctx, key, object, options...)
}

// refusing does not apply.
type refusing struct {
	client.Client
	err error
}

func (c *refusing) Apply(context.Context, runtime.ApplyConfiguration, ...client.ApplyOption) error {
	return c.err
}

var _ = Describe("reconciling a MeshService", func() {
	var r *meshRig
	BeforeEach(func() { r = newMeshRig() })

	named := func(object client.Object, name string) client.Object {
		object.SetNamespace(r.ns.Name)
		object.SetName(name)
		return object
	}
	// exists reports whether the API server has an object, by name.
	exists := func(object client.Object, name string) bool {
		GinkgoHelper()
		err := live.Get(r.ctx, client.ObjectKey{Namespace: r.ns.Name, Name: name}, object)
		Expect(client.IgnoreNotFound(err)).To(Succeed())
		return err == nil
	}

	It("makes the objects that run it, and is ready for what they say", func() {
		r.reconcile("pay", r.service("pay"))
		for object, name := range map[client.Object]string{
			&meshv1alpha1.ServiceIdentity{}: "pay", &corev1.ServiceAccount{}: "pay", &corev1.Service{}: "pay", &appsv1.Deployment{}: "pay",
			&networkingv1.NetworkPolicy{}: "pay", &policyv1.PodDisruptionBudget{}: "pay", &corev1.ConfigMap{}: "pay-proxy",
		} {
			Expect(exists(object, name)).To(BeTrue(), "%T %s", object, name)
			Expect(metav1.IsControlledBy(object, r.get("pay"))).To(BeTrue(), "%T %s", object, name)
		}
		Expect(r.says("pay", "Accepted")).To(Equal("Unknown Syncing"))
		Expect(r.says("pay", "Registered")).To(Equal("Unknown Syncing"))
		Expect(r.says("pay", "WorkloadReady")).To(Equal("False Progressing"))
		Expect(r.says("pay", "Programmed")).To(Equal("Unknown NoProxies"))
		Expect(r.says("pay", "Ready")).To(Equal("False Progressing"))

		r.accept("pay")
		pod := r.running("pay")
		r.reconcile("pay")
		Expect(r.says("pay", "Accepted")).To(Equal("True Accepted"))
		Expect(r.says("pay", "Registered")).To(Equal("True Registered"))
		Expect(r.message("pay", "Registered")).To(Equal("ServiceIdentity " + r.ns.Name + "/pay: for node-1"))
		Expect(r.says("pay", "WorkloadReady")).To(Equal("True Available"))
		Expect(r.says("pay", "DependenciesResolved")).To(Equal("True NotApplicable"))
		Expect(r.says("pay", "Exposed")).To(Equal("True NotApplicable"))
		Expect(r.says("pay", "Programmed")).To(Equal("Unknown NoProxies"), "Ready means that the proxy of %s confirmed it", pod.Name)
		Expect(r.says("pay", "Ready")).To(Equal("Unknown NoProxies"))
		status := r.get("pay").Status
		Expect(status.SPIFFEID).To(Equal("spiffe://jia.app/ns/" + r.ns.Name + "/sa/pay"))
		Expect(status.ConfigVersion).To(Equal(r.server.Version(r.of("pay"))))
		Expect(status.ConfigVersion).NotTo(BeEmpty())
		Expect(status.Proxies).To(Equal(&meshv1alpha1.ProxyCount{Expected: 1, Summary: "0/1"}))
		Expect(status.Replicas).To(Equal(int32(1)))
		Expect(status.Selector).To(ContainSubstring("mesh.jia.app/service=pay"))
		Expect(status.ObservedGeneration).To(Equal(r.get("pay").Generation))

		version := r.get("pay").ResourceVersion
		Expect(r.reconcile("pay")).To(Equal(ctrl.Result{}))
		Expect(r.get("pay").ResourceVersion).To(Equal(version), "nothing changed, and nothing was written")
	})

	It("keeps a port where the peers reach it when another comes before it, and when that goes", func() {
		ports := func() map[string]int32 {
			service, numbers := &corev1.Service{}, map[string]int32{}
			Expect(exists(service, "pay")).To(BeTrue())
			for _, port := range service.Spec.Ports {
				numbers[port.Name] = port.Port
			}
			return numbers
		}
		port := func(name string, number int32) meshv1alpha1.ServicePort {
			return meshv1alpha1.ServicePort{Name: name, Port: number, Protocol: meshv1alpha1.ProtocolGRPC}
		}
		r.reconcile("pay", r.service("pay", func(spec *meshv1alpha1.MeshServiceSpec) { spec.Ports = []meshv1alpha1.ServicePort{port("grpc", 8081)} }))
		Expect(ports()).To(Equal(map[string]int32{"grpc": 15443}))
		Expect(r.get("pay").Status.Ports).To(Equal([]meshv1alpha1.PortRecord{{Name: "grpc", MeshPort: 15443}}))
		r.reconcile("pay", r.update("pay", func(spec *meshv1alpha1.MeshServiceSpec) {
			spec.Ports = []meshv1alpha1.ServicePort{port("new", 8082), port("grpc", 8081)}
		}))
		Expect(ports()).To(Equal(map[string]int32{"grpc": 15443, "new": 15444}))
		r.reconcile("pay", r.update("pay", func(spec *meshv1alpha1.MeshServiceSpec) { spec.Ports = []meshv1alpha1.ServicePort{port("new", 8082)} }))
		Expect(ports()).To(Equal(map[string]int32{"new": 15444}))
		Expect(r.get("pay").Status.Ports).To(Equal([]meshv1alpha1.PortRecord{{Name: "new", MeshPort: 15444}}))
	})

	It("puts right what was changed by hand, and deletes what is not wanted any more", func() {
		r.reconcile("pay", r.service("pay"))
		deployment := named(&appsv1.Deployment{}, "pay")
		Expect(live.Patch(r.ctx, deployment, client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"replicas":7}}`)))).To(Succeed())
		service := named(&corev1.Service{}, "pay")
		Expect(live.Delete(r.ctx, service)).To(Succeed())
		r.settle(deployment)
		r.reconcile("pay")
		Expect(exists(&corev1.Service{}, "pay")).To(BeTrue())
		found := &appsv1.Deployment{}
		Expect(exists(found, "pay")).To(BeTrue())
		Expect(*found.Spec.Replicas).To(Equal(int32(1)))

		r.reconcile("pay", r.update("pay", func(spec *meshv1alpha1.MeshServiceSpec) { spec.Ports = nil }))
		Eventually(func() bool { r.reconcile("pay"); return exists(&corev1.Service{}, "pay") }).Should(BeFalse())
		Expect(exists(&corev1.ConfigMap{}, "pay-proxy")).To(BeTrue())
	})

	It("takes away what was added by hand, and keeps a restart that was asked for", func() {
		r.reconcile("pay", r.service("pay"))
		deployment := named(&appsv1.Deployment{}, "pay")
		byHand := func(object client.Object, patch string) {
			GinkgoHelper()
			Expect(live.Patch(r.ctx, object, client.RawPatch("application/strategic-merge-patch+json", []byte(patch)), client.FieldOwner("kubectl-edit"))).To(Succeed())
		}
		byHand(deployment, `{"metadata":{"labels":{"team":"pay"}},"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":"now"}},
			"spec":{"hostNetwork":true,"containers":[{"name":"app","command":["/bin/sh"],"env":[{"name":"MTLS_ENABLED","value":"false"}]},{"name":"extra","image":"x"}]}}}}`)
		service := named(&corev1.Service{}, "pay")
		byHand(service, `{"spec":{"externalIPs":["192.0.2.1"],"publishNotReadyAddresses":true}}`)
		r.settle(deployment)
		r.reconcile("pay")
		found, account := &appsv1.Deployment{}, &corev1.Service{}
		Expect(exists(found, "pay")).To(BeTrue())
		template := found.Spec.Template
		Expect(template.Spec.HostNetwork).To(BeFalse())
		Expect(template.Spec.Containers).To(HaveLen(1))
		Expect(template.Spec.Containers[0].Command).To(BeEmpty())
		Expect(template.Spec.Containers[0].Env).NotTo(ContainElement(HaveField("Name", "MTLS_ENABLED")))
		Expect(template.Annotations).To(HaveKeyWithValue("kubectl.kubernetes.io/restartedAt", "now"))
		Expect(found.Labels).To(HaveKeyWithValue("team", "pay"), "labels of others are theirs")
		Eventually(func() []string {
			r.reconcile("pay")
			Expect(exists(account, "pay")).To(BeTrue())
			return account.Spec.ExternalIPs
		}).Should(BeEmpty())
		Expect(account.Spec.PublishNotReadyAddresses).To(BeFalse())

		version := found.ResourceVersion
		r.reconcile("pay")
		Expect(exists(found, "pay")).To(BeTrue())
		Expect(found.ResourceVersion).To(Equal(version), "there is nothing more to take away")
		r.reconcile("pay", r.update("pay", func(spec *meshv1alpha1.MeshServiceSpec) { spec.Workload.Replicas = ptr.To[int32](2) }))
		Expect(exists(found, "pay")).To(BeTrue())
		Expect(found.Spec.Template.Annotations).To(HaveKeyWithValue("kubectl.kubernetes.io/restartedAt", "now"), "a change of the replicas rolls no pod")
	})

	It("puts its ServiceIdentity right where it was changed by hand", func() {
		r.reconcile("pay", r.service("pay"))
		identity := r.accept("pay")
		identity.Spec.PodLabels = map[string]meshv1alpha1.LabelValue{meshv1alpha1.LabelService: "other", "team": "pay"}
		Expect(live.Update(r.ctx, identity)).To(Succeed())
		r.reconcile("pay", identity)
		Expect(r.says("pay", "Accepted")).To(Equal("True Accepted"))
		Expect(exists(identity, "pay")).To(BeTrue())
		Expect(identity.Spec.PodLabels).To(Equal(map[string]meshv1alpha1.LabelValue{meshv1alpha1.LabelService: "pay"}))
	})

	It("is not ready of a generation that the cache does not show yet", func() {
		r.reconcile("pay", r.service("pay", func(spec *meshv1alpha1.MeshServiceSpec) {
			spec.DataPlane, spec.Workload.PolicySupport = meshv1alpha1.DataPlaneLibrary, meshv1alpha1.PolicySupportEnforced
		}))
		r.accept("pay")
		r.running("pay")
		r.reconcile("pay")
		Expect(r.says("pay", "Ready")).To(Equal("True Ready"))
		old := &appsv1.Deployment{}
		Expect(r.cached.Get(r.ctx, r.of("pay").NamespacedName, old)).To(Succeed())
		r.services.Client = &behind{Client: r.cached, old: old}
		r.settle(r.update("pay", func(spec *meshv1alpha1.MeshServiceSpec) { spec.Workload.Image = "example/broken:1" }))
		_, err := r.services.Reconcile(r.ctx, r.of("pay"))
		Expect(err).NotTo(HaveOccurred())
		Expect(r.says("pay", "WorkloadReady")).To(Equal("False Progressing"))
		Expect(r.says("pay", "Ready")).To(Equal("False Progressing"))
	})

	It("is not ready of what the API server does not take, and tries again", func() {
		r.reconcile("pay", r.service("pay", func(spec *meshv1alpha1.MeshServiceSpec) {
			spec.DataPlane, spec.Workload.PolicySupport = meshv1alpha1.DataPlaneLibrary, meshv1alpha1.PolicySupportEnforced
		}))
		r.accept("pay")
		r.running("pay")
		r.reconcile("pay")
		Expect(r.says("pay", "Ready")).To(Equal("True Ready"))
		away := apierrors.NewServerTimeout(schema.GroupResource{Group: "apps", Resource: "deployments"}, "patch", 1)
		r.services.Objects.Client = &refusing{Client: r.cached, err: away}
		object := r.update("pay", func(spec *meshv1alpha1.MeshServiceSpec) { spec.Workload.Image = "example/service:2" })
		_, err := r.try("pay", object)
		Expect(err).To(MatchError(ContainSubstring("apply Deployment " + r.ns.Name + "/pay")))
		Expect(r.says("pay", "WorkloadReady")).To(Equal("False ApplyFailed"))
		Expect(r.says("pay", "Ready")).To(Equal("False ApplyFailed"))

		r.services.Objects.Client = &refusing{Client: r.cached, err: apierrors.NewForbidden(schema.GroupResource{Resource: "deployments"}, "pay", errors.New("exceeded quota"))}
		result, err := r.try("pay")
		Expect(err).NotTo(HaveOccurred(), "somebody has to act: that is in the condition")
		Expect(result).To(Equal(ctrl.Result{RequeueAfter: retry}))
		Expect(r.message("pay", "WorkloadReady")).To(ContainSubstring("exceeded quota"))
		r.services.Objects.Client = r.cached
		r.reconcile("pay")
		Expect(r.says("pay", "WorkloadReady")).To(Equal("False Progressing"))
	})

	It("does not take a pod for its own that only has its labels", func() {
		r.reconcile("pay", r.service("pay"))
		own := r.running("pay")
		stranger := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "stranger", Namespace: r.ns.Name, Labels: own.Labels},
			Spec:       corev1.PodSpec{ServiceAccountName: "pay", Containers: []corev1.Container{{Name: "c", Image: "c"}}},
		}
		Expect(live.Create(r.ctx, stranger)).To(Succeed())
		r.reconcile("pay", stranger)
		Expect(r.get("pay").Status.Proxies).To(Equal(&meshv1alpha1.ProxyCount{Expected: 1, Summary: "0/1"}))
		gone(own)
		deployment := &appsv1.Deployment{}
		Expect(exists(deployment, "pay")).To(BeTrue())
		object := r.get("pay")
		Expect(live.Delete(r.ctx, object)).To(Succeed())
		r.reconcile("pay", object, own)
		Expect(exists(deployment, "pay")).To(BeTrue())
		deployment.Finalizers = nil
		Expect(live.Update(r.ctx, deployment)).To(Succeed())
		r.reconcile("pay", deployment)
		Eventually(func() bool { r.reconcile("pay"); return exists(&meshv1alpha1.MeshService{}, "pay") }).Should(BeFalse())
	})

	It("says why the manager cannot serve what is rendered", func() {
		bad := func(m mesh.Mesh, key mesh.ProxyKey) (spiffeid.ID, xds.Resources, bool) {
			id, resources, ok := controllers.Render(m, key)
			resources.Listeners = append(resources.Listeners, resources.Listeners...) // two of a name
			return id, resources, ok
		}
		r.proxies.Render, r.services.Render = bad, bad
		r.settle(r.service("pay"))
		_, err := r.proxies.Reconcile(r.ctx, r.of("pay"))
		Expect(err).To(HaveOccurred())
		_, err = r.services.Reconcile(r.ctx, r.of("pay"))
		Expect(err).NotTo(HaveOccurred())
		r.settleAll("pay")
		r.running("pay")
		_, err = r.services.Reconcile(r.ctx, r.of("pay"))
		Expect(err).NotTo(HaveOccurred())
		Expect(r.says("pay", "Programmed")).To(Equal("False Pending"))
		Expect(r.message("pay", "Programmed")).To(ContainSubstring("inbound"))
	})

	It("leaves somebody else's object alone, says so, and goes on when it is gone", func() {
		foreign := named(&corev1.ServiceAccount{}, "pay")
		Expect(live.Create(r.ctx, foreign)).To(Succeed())
		Expect(r.reconcile("pay", r.service("pay"))).To(Equal(ctrl.Result{RequeueAfter: retry}))
		Expect(r.says("pay", "WorkloadReady")).To(Equal("False ForeignObject"))
		Expect(r.message("pay", "WorkloadReady")).To(ContainSubstring("ServiceAccount " + r.ns.Name + "/pay exists and belongs to somebody else"))
		Expect(exists(&appsv1.Deployment{}, "pay")).To(BeTrue(), "the others are made all the same")
		Expect(live.Delete(r.ctx, foreign)).To(Succeed())
		Expect(r.reconcile("pay")).To(Equal(ctrl.Result{}))
		Expect(r.says("pay", "WorkloadReady")).To(Equal("False Progressing"))
	})

	It("resolves a dependency when both sides agree, and says what to write until then", func() {
		r.reconcile("pay", r.service("pay", calling("contact", 50051)))
		Expect(r.says("pay", "DependenciesResolved")).To(Equal("False ServiceNotFound"))
		Expect(r.message("pay", "DependenciesResolved")).To(ContainSubstring("there is no MeshService " + r.ns.Name + "/contact"))
		r.accept("pay")

		r.reconcile("contact", r.service("contact"))
		r.accept("contact")
		r.reconcile("pay")
		Expect(r.says("pay", "DependenciesResolved")).To(Equal("False NotAllowed"))
		Expect(r.message("pay", "DependenciesResolved")).To(ContainSubstring("write there, in spec, allow: [{name: pay, from: {service: {name: pay, namespace: " + r.ns.Name + "}}"))
		before := r.server.Version(r.of("pay"))
		template := &appsv1.Deployment{}
		Expect(exists(template, "pay")).To(BeTrue())

		r.reconcile("contact", r.update("contact", allowing("pay")))
		r.reconcile("pay")
		Expect(r.says("pay", "DependenciesResolved")).To(Equal("True Resolved"))
		Expect(r.server.Version(r.of("pay"))).NotTo(Equal(before))
		after := &appsv1.Deployment{}
		Expect(exists(after, "pay")).To(BeTrue())
		Expect(after.Generation).To(Equal(template.Generation), "an allow of somebody else's rolls no pod")
	})

	It("reports an allow that nobody uses, and nothing else", func() {
		r.reconcile("contact", r.service("contact", allowing("nobody")))
		r.accept("contact")
		r.reconcile("contact")
		Expect(r.says("contact", "Accepted")).To(Equal("True Accepted"))
		Expect(r.message("contact", "Accepted")).To(ContainSubstring("nobody makes use of spec.allow nobody (yet)"))
	})

	It("leaves what runs as it is while the identity is refused or the config is wrong", func() {
		r.reconcile("pay", r.service("pay"))
		r.accept("pay")
		r.reconcile("pay")
		version := r.server.Version(r.of("pay"))
		r.judge("pay", metav1.Condition{Type: "Accepted", Status: metav1.ConditionFalse, Reason: "IDClaimed", Message: "it belongs to another"})
		r.reconcile("pay", r.update("pay", func(spec *meshv1alpha1.MeshServiceSpec) { spec.Workload.Image = "example/service:2" }))
		Expect(r.says("pay", "Accepted")).To(Equal("False IDClaimed"))
		Expect(r.message("pay", "Accepted")).To(ContainSubstring("it belongs to another"))
		Expect(r.says("pay", "WorkloadReady")).To(Equal("False NotAccepted"))
		Expect(r.says("pay", "Ready")).To(Equal("False IDClaimed"))
		deployment := &appsv1.Deployment{}
		Expect(exists(deployment, "pay")).To(BeTrue())
		Expect(deployment.Spec.Template.Spec.Containers[0].Image).To(Equal("example/service:1"))
		Expect(r.server.Version(r.of("pay"))).To(Equal(version))

		r.accept("pay")
		r.reconcile("pay", r.update("pay", func(spec *meshv1alpha1.MeshServiceSpec) {
			spec.Workload.Config = &apiextensionsv1.JSON{Raw: []byte(`{"colour":"red"}`)}
		}))
		Expect(r.says("pay", "Accepted")).To(Equal("False ConfigInvalid"))
		Expect(r.message("pay", "Accepted")).To(And(ContainSubstring("spec.workload.config"), ContainSubstring("colour")))
		Expect(exists(deployment, "pay")).To(BeTrue())
		Expect(deployment.Spec.Template.Spec.Containers[0].Image).To(Equal("example/service:1"))
		Expect(exists(&corev1.ConfigMap{}, "pay-proxy")).To(BeTrue(), "nothing is pruned of what is not rendered whole")
	})

	It("says what its pods wait for", func() {
		r.reconcile("pay", r.service("pay"))
		pod := r.running("pay")
		pod.Status.Conditions = nil
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", State: corev1.ContainerState{
			Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff", Message: "not found"},
		}}}
		Expect(live.Status().Update(r.ctx, pod)).To(Succeed())
		deployment := &appsv1.Deployment{}
		Expect(exists(deployment, "pay")).To(BeTrue())
		deployment.Status.AvailableReplicas, deployment.Status.ReadyReplicas = 0, 0
		Expect(live.Status().Update(r.ctx, deployment)).To(Succeed())
		r.reconcile("pay", pod, deployment)
		Expect(r.says("pay", "WorkloadReady")).To(Equal("False Progressing"))
		Expect(r.message("pay", "WorkloadReady")).To(ContainSubstring("pod " + pod.Name + " cannot run its container app: ImagePullBackOff: not found"))
	})

	It("tells the peers of the ready pods of its own service account, and counts them", func() {
		r.reconcile("contact", r.service("contact"))
		r.accept("contact")
		pod := r.running("contact")
		slice := &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Namespace: r.ns.Name, Name: "contact-1", Labels: map[string]string{meshv1alpha1.LabelService: "contact", discoveryv1.LabelServiceName: "contact"}},
			AddressType: discoveryv1.AddressTypeIPv4,
			Ports:       []discoveryv1.EndpointPort{{Name: ptr.To("grpc"), Port: ptr.To[int32](15443)}},
			Endpoints: []discoveryv1.Endpoint{
				{Addresses: []string{"10.0.0.1"}, TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: pod.Name}},
				{Addresses: []string{"10.0.0.2"}, TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: "stranger"}},
			},
		}
		Expect(live.Create(r.ctx, slice)).To(Succeed())
		r.reconcile("contact", slice)
		Expect(r.get("contact").Status.Endpoints).To(HaveValue(Equal(int32(1))))
	})

	It("goes in order: pods, the config of their proxies, entries, itself", func() {
		r.reconcile("pay", r.service("pay"))
		r.accept("pay")
		pod := r.running("pay")
		// As SPIRE's side keeps it until its entries are gone.
		identity := &meshv1alpha1.ServiceIdentity{}
		Expect(exists(identity, "pay")).To(BeTrue())
		identity.Finalizers = []string{meshv1alpha1.FinalizerEntries}
		Expect(live.Update(r.ctx, identity)).To(Succeed())
		r.reconcile("pay", identity)

		object := r.get("pay")
		Expect(live.Delete(r.ctx, object)).To(Succeed())
		r.reconcile("pay", object)
		deployment := &appsv1.Deployment{}
		Expect(exists(deployment, "pay")).To(BeTrue())
		Expect(deployment.DeletionTimestamp).NotTo(BeNil())
		Expect(deployment.Finalizers).To(ConsistOf("foregroundDeletion"), "it goes after its pods")
		Expect(r.says("pay", "WorkloadReady")).To(Equal("False Terminating"))
		Expect(r.message("pay", "WorkloadReady")).To(ContainSubstring(pod.Name))
		Expect(r.says("pay", "Ready")).To(Equal("False Terminating"))
		Expect(r.server.Version(r.of("pay"))).NotTo(BeEmpty(), "what drains is served to the end")
		Expect(exists(identity, "pay")).To(BeTrue())
		Expect(identity.DeletionTimestamp).To(BeNil())

		// What the garbage collector and the kubelet do.
		gone(pod)
		deployment.Finalizers = nil
		Expect(live.Update(r.ctx, deployment)).To(Succeed())
		r.reconcile("pay", pod, deployment)
		Expect(r.server.Version(r.of("pay"))).To(BeEmpty())
		Expect(exists(identity, "pay")).To(BeTrue())
		Expect(identity.DeletionTimestamp).NotTo(BeNil())
		Expect(r.message("pay", "WorkloadReady")).To(ContainSubstring("the entries of its ServiceIdentity"))
		identity.Finalizers = nil
		Expect(live.Update(r.ctx, identity)).To(Succeed())
		r.reconcile("pay", identity)
		err := live.Get(r.ctx, client.ObjectKeyFromObject(object), object)
		Expect(apierrors.IsNotFound(err)).To(BeTrue(), "%v", err)
	})

	It("keeps a volume that is to outlive it, and takes it up again", func() {
		persistent := func(spec *meshv1alpha1.MeshServiceSpec) {
			spec.Workload.Persistence = &meshv1alpha1.Persistence{Size: "1Gi", MountPath: "/data", WhenDeleted: meshv1alpha1.RetentionRetain}
		}
		r.reconcile("pay", r.service("pay", persistent))
		claim := &corev1.PersistentVolumeClaim{}
		Expect(exists(claim, "pay-data")).To(BeTrue())
		Expect(claim.OwnerReferences).To(BeEmpty())
		Expect(exists(&policyv1.PodDisruptionBudget{}, "pay")).To(BeFalse(), "the only pod can be evicted")
		Expect(r.reconcile("pay")).To(Equal(ctrl.Result{}))
		Expect(r.says("pay", "WorkloadReady")).To(Equal("False Progressing"))

		r.reconcile("pay", r.update("pay", func(spec *meshv1alpha1.MeshServiceSpec) {
			spec.Workload.Persistence.WhenDeleted = meshv1alpha1.RetentionDelete
		}))
		Expect(exists(claim, "pay-data")).To(BeTrue())
		Expect(metav1.IsControlledBy(claim, r.get("pay"))).To(BeTrue())
		r.reconcile("pay", r.update("pay", func(spec *meshv1alpha1.MeshServiceSpec) {
			spec.Workload.Persistence.WhenDeleted = meshv1alpha1.RetentionRetain
		}))
		Expect(exists(claim, "pay-data")).To(BeTrue())
		Expect(claim.OwnerReferences).To(BeEmpty())
	})

	It("says that the claim of its volume is being deleted before that goes, and that the next one is empty", func() {
		r.reconcile("pay", r.service("pay", func(spec *meshv1alpha1.MeshServiceSpec) {
			spec.Workload.Persistence = &meshv1alpha1.Persistence{Size: "1Gi", MountPath: "/data"}
		}))
		r.accept("pay")
		r.running("pay")
		claim := &corev1.PersistentVolumeClaim{}
		Expect(exists(claim, "pay-data")).To(BeTrue())
		r.reconcile("pay", claim)
		Expect(r.says("pay", "WorkloadReady")).To(Equal("True Available"))

		Expect(live.Delete(r.ctx, claim)).To(Succeed()) // the API server's own finalizer keeps it while a pod uses it
		Expect(exists(claim, "pay-data")).To(BeTrue())
		Expect(claim.DeletionTimestamp).NotTo(BeNil())
		r.reconcile("pay", claim)
		Expect(r.says("pay", "WorkloadReady")).To(Equal("False VolumeTerminating"))
		Expect(r.message("pay", "WorkloadReady")).To(ContainSubstring("kubectl get pvc -n " + r.ns.Name + " pay-data"))
		Expect(r.says("pay", "Ready")).To(Equal("False VolumeTerminating"))
		told := r.told()
		Expect(told).To(ContainElement(HavePrefix("Warning VolumeTerminating")))
		Expect(told).NotTo(ContainElement(HavePrefix("Warning VolumeLost")))

		lost := claim.UID
		claim.Finalizers = nil
		Expect(live.Update(r.ctx, claim)).To(Succeed())
		r.reconcile("pay", claim)
		Expect(exists(claim, "pay-data")).To(BeTrue())
		Expect(claim.UID).NotTo(Equal(lost))
		Expect(r.told()).To(ContainElement(HavePrefix("Warning VolumeLost PersistentVolumeClaim " + r.ns.Name + "/pay-data was deleted")))
		r.reconcile("pay", claim)
		Expect(r.says("pay", "WorkloadReady")).To(Equal("True Available"))
	})

	It("says so, too, of a service that is not accepted any more", func() {
		persistent := func(spec *meshv1alpha1.MeshServiceSpec) {
			spec.Workload.Persistence = &meshv1alpha1.Persistence{Size: "1Gi", MountPath: "/data"}
		}
		r.reconcile("pay", r.service("pay", persistent))
		r.accept("pay")
		r.running("pay")
		claim := &corev1.PersistentVolumeClaim{}
		Expect(exists(claim, "pay-data")).To(BeTrue())
		r.judge("pay", metav1.Condition{Type: "Accepted", Status: metav1.ConditionFalse, Reason: "IDClaimed", Message: "it belongs to another"})
		r.reconcile("pay", claim)
		Expect(r.says("pay", "WorkloadReady")).To(Equal("False NotAccepted"))
		Expect(live.Delete(r.ctx, claim)).To(Succeed())
		Expect(exists(claim, "pay-data")).To(BeTrue())
		r.reconcile("pay", claim)
		Expect(r.says("pay", "WorkloadReady")).To(Equal("False VolumeTerminating"))
		Expect(r.message("pay", "WorkloadReady")).To(ContainSubstring("Besides, what runs stays as it is"))
	})

	It("needs no proxy with dataPlane Library, and no pod with no replicas", func() {
		r.reconcile("pay", r.service("pay", func(spec *meshv1alpha1.MeshServiceSpec) {
			spec.DataPlane, spec.Workload.PolicySupport = meshv1alpha1.DataPlaneLibrary, meshv1alpha1.PolicySupportEnforced
		}))
		r.accept("pay")
		r.running("pay")
		r.reconcile("pay")
		Expect(r.says("pay", "Programmed")).To(Equal("True NotApplicable"))
		Expect(r.says("pay", "Ready")).To(Equal("True Ready"))
		Expect(r.get("pay").Status.Proxies).To(BeNil())

		r.reconcile("idle", r.service("idle", func(spec *meshv1alpha1.MeshServiceSpec) { spec.Workload.Replicas = ptr.To[int32](0) }))
		r.accept("idle")
		deployment := &appsv1.Deployment{}
		Expect(exists(deployment, "idle")).To(BeTrue())
		deployment.Status.ObservedGeneration = deployment.Generation
		Expect(live.Status().Update(r.ctx, deployment)).To(Succeed())
		r.reconcile("idle", deployment)
		Expect(r.says("idle", "WorkloadReady")).To(Equal("True ScaledToZero"))
		Expect(r.says("idle", "Ready")).To(Equal("True Ready"))
	})

	It("keeps what a process of its own lets in, and a sidecar does not, until the last pod without one is gone", func() {
		r.reconcile("pay", r.service("pay", func(spec *meshv1alpha1.MeshServiceSpec) {
			spec.DataPlane, spec.Workload.PolicySupport = meshv1alpha1.DataPlaneLibrary, meshv1alpha1.PolicySupportEnforced
			spec.Allow = []meshv1alpha1.AllowRule{{Name: "partner", From: meshv1alpha1.Caller{SPIFFEID: "spiffe://partner.example/billing"}, Methods: []meshv1alpha1.Method{"*"}}}
		}))
		r.accept("pay")
		r.reconcile("pay")
		pod := r.running("pay")
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
		Expect(live.Status().Update(r.ctx, pod)).To(Succeed())
		opens := func() (rules, ports int) {
			policy, network := &corev1.ConfigMap{}, &networkingv1.NetworkPolicy{}
			Expect(exists(policy, "pay-policy")).To(BeTrue())
			Expect(exists(network, "pay")).To(BeTrue())
			return strings.Count(policy.Data["policy.yaml"], "spiffe://partner.example/billing"), len(network.Spec.Ingress)
		}
		rules, ports := opens()
		Expect(rules).To(Equal(1))

		r.reconcile("pay", pod, r.update("pay", func(spec *meshv1alpha1.MeshServiceSpec) { spec.DataPlane = meshv1alpha1.DataPlaneSidecar }))
		Expect(r.says("pay", "Accepted")).To(Equal("False TrustDomainForeign"))
		stillRules, stillPorts := opens()
		Expect(stillRules).To(Equal(rules), "the pod that runs lets its caller in no more")
		Expect(stillPorts).To(Equal(ports), "the caller does not reach the pod that runs")

		pod.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: workload.ContainerProxy}} // as the next one has
		Expect(live.Status().Update(r.ctx, pod)).To(Succeed())
		r.reconcile("pay", pod)
		rules, open := opens()
		Expect(rules).To(BeZero())
		Expect(open).To(Equal(ports - 1))
	})

	It("tells of each turn by an event", func() {
		r.reconcile("pay", r.service("pay", calling("contact", 50051)))
		Expect(r.told()).To(ContainElement(HavePrefix("Warning ServiceNotFound")))
	})
})
