package api_test

import (
	"context"
	"fmt"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// What a kind shows of itself.
type shown struct {
	plural, shortName string
	narrow, wide      []string
	cells             []any // of the object with every field, without its name and its age
}

var showing = map[string]shown{
	"MeshService": {
		plural: "meshservices", shortName: "msvc",
		narrow: []string{"Name", "Ready", "Identity", "Proxies", "Endpoints", "Age"},
		wide:   []string{"Name", "Ready", "Identity", "Proxies", "Endpoints", "SPIFFE ID", "Config", "Reason", "Age"},
		cells:  []any{"False", "True", "1/2", float64(3), "spiffe://example.org/shown", "0123456789abcdef", "Pending"},
	},
	"MeshGateway": {
		plural: "meshgateways", shortName: "mgw",
		narrow: []string{"Name", "Ready", "Identity", "Proxies", "Routes", "Age"},
		wide:   []string{"Name", "Ready", "Identity", "Proxies", "Routes", "SPIFFE ID", "Config", "Reason", "Age"},
		cells:  []any{"False", "True", "1/2", float64(3), "spiffe://example.org/shown", "0123456789abcdef", "Pending"},
	},
}

const shownStatus = `{spiffeID: "spiffe://example.org/shown", replicas: 2, selector: "app=shown", proxies: {expected: 2, synced: 1, summary: 1/2}, %s: 3, configVersion: 0123456789abcdef,
  conditions: [{type: Registered, status: "True", reason: Registered, message: "", lastTransitionTime: "2026-01-01T00:00:00Z"},
    {type: Ready, status: "False", reason: Pending, message: "", lastTransitionTime: "2026-01-01T00:00:00Z"}]}`

var _ = Describe("MeshService and MeshGateway", func() {
	// stored creates an object of the kind until the end of the spec.
	stored := func(ctx context.Context, kind, spec string) *unstructured.Unstructured {
		GinkgoHelper()
		object := parsed(GinkgoTB(), kind, spec)
		object.SetName("")
		object.SetGenerateName("shown-")
		Expect(api.Create(ctx, object)).To(Succeed())
		DeferCleanup(func(ctx context.Context) { Expect(api.Delete(ctx, object)).To(Succeed()) })
		return object
	}
	applied := func(ctx context.Context, to *unstructured.Unstructured, owner, spec string, options ...client.ApplyOption) map[string]any {
		GinkgoHelper()
		part := parsed(GinkgoTB(), to.GetKind(), spec)
		part.SetName(to.GetName())
		options = append(options, client.FieldOwner(owner))
		Expect(api.Apply(ctx, client.ApplyConfigurationFromUnstructured(part), options...)).To(Succeed())
		Expect(api.Get(ctx, client.ObjectKeyFromObject(to), to)).To(Succeed())
		return to.Object["spec"].(map[string]any)
	}
	minimal := map[string]string{"MeshService": "{" + aService + "}", "MeshGateway": "{" + aListener + "}"}

	for kind, want := range showing {
		It("prints a "+kind+" with its readiness, its identity, its proxies, what it serves and its age", func(ctx context.Context) {
			object := stored(ctx, kind, minimal[kind])
			counted := map[string]string{"MeshService": "endpoints", "MeshGateway": "routes"}[kind]
			var status map[string]any
			Expect(yaml.Unmarshal(fmt.Appendf(nil, shownStatus, counted), &status)).To(Succeed())
			object.Object["status"] = status
			Expect(api.Status().Update(ctx, object)).To(Succeed())

			table := printed(ctx, want.plural, object)
			var narrow, wide []string
			for _, column := range table.ColumnDefinitions {
				wide = append(wide, column.Name)
				if column.Priority == 0 {
					narrow = append(narrow, column.Name)
				}
			}
			Expect(narrow).To(Equal(want.narrow))
			Expect(wide).To(Equal(want.wide))
			Expect(table.Rows).To(HaveLen(1))
			Expect(table.Rows[0].Cells[:len(wide)-1]).To(Equal(append([]any{object.GetName()}, want.cells...)))
		})

		It("finds a "+kind+" by its short name, in the category paymesh, with a status and a scale", func() {
			c, err := discovery.NewDiscoveryClientForConfig(config)
			Expect(err).NotTo(HaveOccurred())
			list, err := c.ServerResourcesForGroupVersion("mesh.jia.app/v1alpha1")
			Expect(err).NotTo(HaveOccurred())
			found := map[string]metav1.APIResource{}
			for _, resource := range list.APIResources {
				found[resource.Name] = resource
			}
			Expect(found).To(HaveKey(want.plural + "/status"))
			Expect(found).To(HaveKey(want.plural + "/scale"))
			Expect(found[want.plural].ShortNames).To(Equal([]string{want.shortName}))
			Expect(found[want.plural].Categories).To(Equal([]string{"paymesh"}))
			Expect(found[want.plural].Namespaced).To(BeTrue())
		})

		It("scales a "+kind+" and says which pods it has, for an autoscaler", func(ctx context.Context) {
			object := stored(ctx, kind, minimal[kind])
			object.Object["status"] = map[string]any{"replicas": int64(2), "selector": "app=shown"}
			Expect(api.Status().Update(ctx, object)).To(Succeed())

			scale := scaleOf(object, 0)
			Expect(api.SubResource("scale").Get(ctx, object, scale)).To(Succeed())
			Expect(scale.Object["spec"]).To(Equal(map[string]any{"replicas": int64(1)}), "the default")
			Expect(scale.Object["status"]).To(Equal(map[string]any{"replicas": int64(2), "selector": "app=shown"}))
			scale.Object["spec"] = map[string]any{"replicas": int64(3)}
			Expect(api.SubResource("scale").Update(ctx, object, client.WithSubResourceBody(scale))).To(Succeed())
			Expect(api.Get(ctx, client.ObjectKeyFromObject(object), object)).To(Succeed())
			at := map[string][]string{"MeshService": {"spec", "workload", "replicas"}, "MeshGateway": {"spec", "replicas"}}[kind]
			replicas, _, err := unstructured.NestedInt64(object.Object, at...)
			Expect(err).NotTo(HaveOccurred())
			Expect(replicas).To(BeEquivalentTo(3))
		})
	}

	It("does not scale what has one volume", func(ctx context.Context) {
		object := stored(ctx, "MeshService", "{workload: {image: a, persistence: {size: 1Gi}}}")
		err := api.SubResource("scale").Update(ctx, object, client.WithSubResourceBody(scaleOf(object, 2)))
		Expect(err).To(MatchError(ContainSubstring("workload.replicas must be 0 or 1 with workload.persistence: ")))
	})

	It("fills in the defaults", func(ctx context.Context) {
		service := stored(ctx, "MeshService", "{workload: {image: a, persistence: {size: 1Gi}}}")
		Expect(service.Object["spec"]).To(Equal(map[string]any{"dataPlane": "Sidecar", "workload": map[string]any{
			"image": "a", "replicas": int64(1), "policySupport": "None",
			"persistence": map[string]any{"size": "1Gi", "mountPath": "/var/lib/paymesh", "whenDeleted": "Retain"},
		}}))
		gateway := stored(ctx, "MeshGateway", minimal["MeshGateway"])
		Expect(gateway.Object["spec"]).To(HaveKeyWithValue("replicas", int64(1)))
		Expect(gateway.Object["spec"]).To(HaveKeyWithValue("serviceType", "ClusterIP"))
	})

	It("keeps what each manager applies, by the names of the items", func(ctx context.Context) {
		object := stored(ctx, "MeshService", minimal["MeshService"])
		applied(ctx, object, "one", "{allow: [{name: a, from: {service: {name: a}}, methods: [a.B/C]}], workload: {resources: {limits: {cpu: 1}}}}")
		spec := applied(ctx, object, "two", "{allow: [{name: b, from: {service: {name: b}}, methods: ['*']}, {name: a, from: {service: {name: a}}, methods: [a.B/D]}], workload: {resources: {limits: {memory: 1Gi}}}}")
		Expect(spec["allow"]).To(ConsistOf(
			map[string]any{"name": "a", "from": map[string]any{"service": map[string]any{"name": "a"}}, "methods": []any{"a.B/C", "a.B/D"}},
			map[string]any{"name": "b", "from": map[string]any{"service": map[string]any{"name": "b"}}, "methods": []any{"*"}},
		))
		Expect(spec["workload"]).To(HaveKeyWithValue("resources", map[string]any{"limits": map[string]any{"cpu": int64(1), "memory": "1Gi"}}))

		spec = applied(ctx, object, "one", "{workload: {image: a}}")
		Expect(spec["allow"]).To(ConsistOf(
			map[string]any{"name": "a", "from": map[string]any{"service": map[string]any{"name": "a"}}, "methods": []any{"a.B/D"}},
			map[string]any{"name": "b", "from": map[string]any{"service": map[string]any{"name": "b"}}, "methods": []any{"*"}},
		))
	})

	It("takes a reference as a whole: the name from one manager is not completed by another's namespace", func(ctx context.Context) {
		object := stored(ctx, "MeshService", "{workload: {image: a}}")
		applied(ctx, object, "one", "{dependsOn: [{name: a, service: {name: a, namespace: people}, localPort: 50051}]}")
		spec := applied(ctx, object, "two", "{dependsOn: [{name: a, service: {name: b}, localPort: 50051}]}", client.ForceOwnership)
		Expect(spec["dependsOn"]).To(ConsistOf(map[string]any{"name": "a", "service": map[string]any{"name": "b"}, "localPort": int64(50051)}))
	})
})

func scaleOf(object *unstructured.Unstructured, replicas int64) *unstructured.Unstructured {
	scale := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "autoscaling/v1", "kind": "Scale", "spec": map[string]any{"replicas": replicas}}}
	scale.SetNamespace(object.GetNamespace())
	scale.SetName(object.GetName())
	return scale
}
