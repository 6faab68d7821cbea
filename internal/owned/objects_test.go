package owned_test

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/owned"
)

var _ = Describe("the objects of an owner", func() {
	var objects *owned.Objects
	var owner *meshv1alpha1.MeshService
	var applied int
	ctx := context.Background()

	BeforeEach(func() {
		applied = 0
		direct, err := client.NewWithWatch(apiServer.Config, client.Options{Scheme: scheme})
		Expect(err).NotTo(HaveOccurred())
		counted := interceptor.NewClient(direct, interceptor.Funcs{
			Apply: func(ctx context.Context, c client.WithWatch, content runtime.ApplyConfiguration, options ...client.ApplyOption) error {
				applied++
				return c.Apply(ctx, content, options...)
			},
		})
		objects = &owned.Objects{Client: counted, Live: direct}
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "spec-"}}
		Expect(live.Create(ctx, namespace)).To(Succeed())
		owner = &meshv1alpha1.MeshService{ObjectMeta: metav1.ObjectMeta{Namespace: namespace.Name, Name: "pay"}}
		owner.Spec.Workload.Image = "example/service:1"
		Expect(live.Create(ctx, owner)).To(Succeed())
	})

	configMap := func(name, value string) *corev1.ConfigMap {
		return &corev1.ConfigMap{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
			ObjectMeta: metav1.ObjectMeta{Namespace: owner.Namespace, Name: name, Labels: map[string]string{meshv1alpha1.LabelService: owner.Name}},
			Data:       map[string]string{"key": value},
		}
	}
	value := func(name string) string {
		GinkgoHelper()
		object := &corev1.ConfigMap{}
		Expect(live.Get(ctx, client.ObjectKey{Namespace: owner.Namespace, Name: name}, object)).To(Succeed())
		return object.Data["key"]
	}

	It("are written once, put right when changed by hand, and deleted when not wanted any more", func() {
		want := []client.Object{configMap("one", "1"), configMap("two", "2")}
		Expect(objects.Apply(ctx, owner, want)).To(Succeed())
		Expect(value("one") + value("two")).To(Equal("12"))
		Expect(objects.Apply(ctx, owner, want)).To(Succeed())
		Expect(applied).To(Equal(2))

		byHand := configMap("one", "by hand")
		Expect(live.Patch(ctx, byHand, client.RawPatch("application/merge-patch+json", []byte(`{"data":{"key":"by hand"}}`)))).To(Succeed())
		Expect(objects.Apply(ctx, owner, want)).To(Succeed())
		Expect(value("one")).To(Equal("1"))

		Expect(live.Delete(ctx, configMap("two", ""))).To(Succeed())
		Expect(objects.Apply(ctx, owner, want)).To(Succeed())
		Expect(value("two")).To(Equal("2"))

		Expect(objects.Apply(ctx, owner, want[:1])).To(Succeed())
		Expect(value("two")).To(Equal("2"), "what a rendering leaves out stays until it is pruned")
		Expect(objects.Prune(ctx, owner, want[:1])).To(Succeed())
		list := &corev1.ConfigMapList{}
		Expect(live.List(ctx, list, client.InNamespace(owner.Namespace), client.HasLabels{meshv1alpha1.LabelService})).To(Succeed())
		Expect(list.Items).To(HaveLen(1))
		Expect(metav1.IsControlledBy(&list.Items[0], owner)).To(BeTrue())
	})

	It("are not written again when only their status changed", func() {
		budget := &policyv1.PodDisruptionBudget{
			TypeMeta:   metav1.TypeMeta{APIVersion: "policy/v1", Kind: "PodDisruptionBudget"},
			ObjectMeta: metav1.ObjectMeta{Namespace: owner.Namespace, Name: "pay", Labels: map[string]string{meshv1alpha1.LabelService: owner.Name}},
			Spec:       policyv1.PodDisruptionBudgetSpec{MaxUnavailable: ptr.To(intstr.FromInt32(1)), Selector: &metav1.LabelSelector{}},
		}
		Expect(objects.Apply(ctx, owner, []client.Object{budget})).To(Succeed())
		found := &policyv1.PodDisruptionBudget{}
		Expect(live.Get(ctx, client.ObjectKeyFromObject(budget), found)).To(Succeed())
		found.Status = policyv1.PodDisruptionBudgetStatus{ObservedGeneration: found.Generation, ExpectedPods: 3, DesiredHealthy: 2, CurrentHealthy: 3, DisruptionsAllowed: 1}
		Expect(live.Status().Update(ctx, found)).To(Succeed())
		Expect(objects.Apply(ctx, owner, []client.Object{budget})).To(Succeed())
		Expect(applied).To(Equal(1))
		Expect(live.Patch(ctx, found, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"labels":{"mesh.jia.app/service":"other"}}}`)))).To(Succeed())
		Expect(objects.Apply(ctx, owner, []client.Object{budget})).To(Succeed())
		Expect(live.Get(ctx, client.ObjectKeyFromObject(budget), found)).To(Succeed())
		Expect(found.Labels).To(HaveKeyWithValue(meshv1alpha1.LabelService, owner.Name))
	})

	It("of somebody else are left alone, and keep no other from being written", func() {
		foreign := configMap("foreign", "theirs")
		Expect(live.Create(ctx, foreign)).To(Succeed())
		err := objects.Apply(ctx, owner, []client.Object{configMap("foreign", "ours"), configMap("own", "1")})
		Expect(err).To(MatchError(ContainSubstring("ConfigMap " + owner.Namespace + "/foreign exists and belongs to somebody else: delete or rename it, or rename MeshService " + owner.Namespace + "/pay")))
		Expect(value("foreign") + value("own")).To(Equal("theirs1"))
		Expect(objects.Prune(ctx, owner, []client.Object{configMap("own", "1")})).To(Succeed())
		Expect(value("foreign")).To(Equal("theirs"), "it bears the owner's label, and is not pruned")
	})

	It("that the API server refuses are named, and keep no other from being written", func() {
		bad := configMap("bad", "1")
		bad.Data["no/key"] = ""
		Expect(objects.Apply(ctx, owner, []client.Object{bad, configMap("good", "1")})).To(MatchError(ContainSubstring("apply ConfigMap " + owner.Namespace + "/bad")))
		Expect(value("good")).To(Equal("1"))
	})
})
