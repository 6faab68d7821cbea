package api_test

import (
	"context"
	"encoding/json"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

var _ = Describe("ServiceIdentity", func() {
	var object *unstructured.Unstructured

	BeforeEach(func(ctx context.Context) {
		object = identity("", nil)
		object.SetGenerateName("spec-")
		Expect(api.Create(ctx, object)).To(Succeed())
		DeferCleanup(func(ctx context.Context) { Expect(api.Delete(ctx, object)).To(Succeed()) })
	})

	// applied returns the parts of object that a manager has an opinion on.
	applied := func(content map[string]any) *unstructured.Unstructured {
		part := &unstructured.Unstructured{Object: content}
		part.SetGroupVersionKind(object.GroupVersionKind())
		part.SetNamespace(object.GetNamespace())
		part.SetName(object.GetName())
		return part
	}
	applySpec := func(ctx context.Context, owner string, spec map[string]any) error {
		spec["serviceAccountName"] = "payment"
		part := applied(map[string]any{"spec": spec})
		return api.Apply(ctx, client.ApplyConfigurationFromUnstructured(part), client.FieldOwner(owner))
	}
	applyStatus := func(ctx context.Context, owner string, status map[string]any) error {
		part := applied(map[string]any{"status": status})
		return api.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(part), client.FieldOwner(owner))
	}
	field := func(ctx context.Context, fields ...string) []any {
		Expect(api.Get(ctx, client.ObjectKeyFromObject(object), object)).To(Succeed())
		list, _, err := unstructured.NestedSlice(object.Object, fields...)
		Expect(err).NotTo(HaveOccurred())
		return list
	}
	condition := func(name, status string) map[string]any {
		return map[string]any{"type": name, "status": status, "reason": name, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
	}

	It("keeps the dnsNames of each manager that applies some", func(ctx context.Context) {
		Expect(applySpec(ctx, "one", map[string]any{"dnsNames": []any{"a.example", "b.example"}})).To(Succeed())
		Expect(applySpec(ctx, "two", map[string]any{"dnsNames": []any{"b.example", "c.example"}})).To(Succeed())
		Expect(field(ctx, "spec", "dnsNames")).To(Equal([]any{"a.example", "b.example", "c.example"}))

		Expect(applySpec(ctx, "one", map[string]any{})).To(Succeed())
		Expect(field(ctx, "spec", "dnsNames")).To(Equal([]any{"b.example", "c.example"}))
	})

	It("keeps the conditions of each manager that applies some, by their type", func(ctx context.Context) {
		Expect(applyStatus(ctx, "one", map[string]any{"conditions": []any{condition("Accepted", "True"), condition("Ready", "False")}})).To(Succeed())
		Expect(applyStatus(ctx, "two", map[string]any{"conditions": []any{condition("Audited", "True")}})).To(Succeed())
		Expect(applyStatus(ctx, "one", map[string]any{"conditions": []any{condition("Ready", "True")}})).To(Succeed())
		Expect(field(ctx, "status", "conditions")).To(ConsistOf(condition("Audited", "True"), condition("Ready", "True")))
	})

	It("lets a status be written only through its subresource, and a spec not through it", func(ctx context.Context) {
		object.Object["status"] = map[string]any{"spiffeID": "spiffe://example.org/forged"}
		Expect(api.Update(ctx, object)).To(Succeed())
		Expect(object.Object).NotTo(HaveKey("status"))

		Expect(unstructured.SetNestedField(object.Object, "other", "spec", "hint")).To(Succeed())
		object.Object["status"] = map[string]any{"spiffeID": "spiffe://example.org/payment"}
		Expect(api.Status().Update(ctx, object)).To(Succeed())
		Expect(object.Object).To(HaveKeyWithValue("status", map[string]any{"spiffeID": "spiffe://example.org/payment"}))
		Expect(object.Object["spec"]).NotTo(HaveKey("hint"))
	})

	It("is printed with its readiness, its SPIFFE ID, its entries and its age", func(ctx context.Context) {
		Expect(applyStatus(ctx, "one", map[string]any{
			"spiffeID":   "spiffe://example.org/payment",
			"entries":    map[string]any{"wanted": int64(2), "registered": int64(1), "summary": "1/2"},
			"conditions": []any{condition("Accepted", "True"), condition("Ready", "False")},
		})).To(Succeed())

		table := printed(ctx, "serviceidentities", object)
		narrow := make([]string, 0, len(table.ColumnDefinitions))
		wide := make([]string, 0, len(table.ColumnDefinitions))
		for _, column := range table.ColumnDefinitions {
			wide = append(wide, column.Name)
			if column.Priority == 0 {
				narrow = append(narrow, column.Name)
			}
		}
		// kubectl prints the names in upper case.
		Expect(narrow).To(Equal([]string{"Name", "Ready", "SPIFFE ID", "Entries", "Age"}))
		Expect(wide).To(Equal([]string{"Name", "Ready", "SPIFFE ID", "Entries", "Reason", "Age"}))
		Expect(table.Rows).To(HaveLen(1))
		Expect(table.Rows[0].Cells[:5]).To(Equal([]any{object.GetName(), "False", "spiffe://example.org/payment", "1/2", "Ready"}))
		age, err := time.ParseDuration(table.Rows[0].Cells[5].(string))
		Expect(err).NotTo(HaveOccurred())
		Expect(age).To(BeNumerically("<", time.Hour))
	})

	It("is found as sid, in the category paymesh, with a status", func() {
		client, err := discovery.NewDiscoveryClientForConfig(config)
		Expect(err).NotTo(HaveOccurred())
		list, err := client.ServerResourcesForGroupVersion("mesh.jia.app/v1alpha1")
		Expect(err).NotTo(HaveOccurred())
		found := map[string]metav1.APIResource{}
		for _, resource := range list.APIResources {
			found[resource.Name] = resource
		}
		Expect(found).To(HaveKey("serviceidentities/status"))
		kind := found["serviceidentities"]
		Expect(kind.ShortNames).To(Equal([]string{"sid"}))
		Expect(kind.Categories).To(Equal([]string{"paymesh"}))
		Expect(kind.SingularName).To(Equal("serviceidentity"))
		Expect(kind.Namespaced).To(BeTrue())
	})
})

// printed returns the object as kubectl asks for it.
func printed(ctx context.Context, plural string, object *unstructured.Unstructured) metav1.Table {
	GinkgoHelper()
	c, err := discovery.NewDiscoveryClientForConfig(config)
	Expect(err).NotTo(HaveOccurred())
	body, err := c.RESTClient().Get().
		AbsPath("apis", "mesh.jia.app", "v1alpha1", "namespaces", object.GetNamespace(), plural, object.GetName()).
		SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").
		DoRaw(ctx)
	Expect(err).NotTo(HaveOccurred())
	var table metav1.Table
	Expect(json.Unmarshal(body, &table)).To(Succeed())
	return table
}
