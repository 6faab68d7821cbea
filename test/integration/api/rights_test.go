package api_test

import (
	"context"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
)

var _ = Describe("config/rbac", func() {
	const viewer, editor = "somebody-who-views", "somebody-who-edits"

	BeforeEach(func(ctx context.Context) {
		for _, object := range built("config/rbac") {
			if object.GetName() != "paymesh-viewer" && object.GetName() != "paymesh-editor" {
				continue
			}
			Expect(api.Create(ctx, object)).To(Succeed())
			DeferCleanup(func(ctx context.Context) { Expect(api.Delete(ctx, object)).To(Succeed()) })
		}
		// What the cluster's own roles view and edit are made of.
		for role, users := range map[string][]string{"paymesh-viewer": {viewer, editor}, "paymesh-editor": {editor}} {
			binding := &rbacv1.RoleBinding{
				ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: role},
				RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			}
			for _, user := range users {
				binding.Subjects = append(binding.Subjects, rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user})
			}
			Expect(api.Create(ctx, binding)).To(Succeed())
			DeferCleanup(func(ctx context.Context) { Expect(api.Delete(ctx, binding)).To(Succeed()) })
		}
	})

	It("lets who views a namespace see every kind in it, and who edits it change and scale them, and nobody write a status", func(ctx context.Context) {
		may := func(user, verb, resource string) bool {
			resource, subresource, _ := strings.Cut(resource, "/")
			review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{User: user, ResourceAttributes: &authorizationv1.ResourceAttributes{
				Namespace: namespace, Verb: verb, Group: meshv1alpha1.GroupVersion.Group, Resource: resource, Subresource: subresource,
			}}}
			Expect(api.Create(ctx, review)).To(Succeed())
			return review.Status.Allowed
		}
		Eventually(func() bool { return may(viewer, "get", "meshservices") && may(editor, "create", "meshservices") }).Should(BeTrue(), "the API server has seen the roles")

		client, err := discovery.NewDiscoveryClientForConfig(config)
		Expect(err).NotTo(HaveOccurred())
		resources, err := client.ServerResourcesForGroupVersion(meshv1alpha1.GroupVersion.String())
		Expect(err).NotTo(HaveOccurred())
		Expect(len(resources.APIResources)).To(BeNumerically(">=", 8))
		for _, resource := range resources.APIResources {
			kind, part, _ := strings.Cut(resource.Name, "/")
			Expect(may(viewer, "get", resource.Name)).To(BeTrue(), resource.Name)
			for _, verb := range []string{"patch", "update"} {
				Expect(may(viewer, verb, resource.Name)).To(BeFalse(), resource.Name)
				Expect(may(editor, verb, resource.Name)).To(Equal(part != "status"), resource.Name)
			}
			for _, verb := range []string{"create", "delete", "deletecollection"} {
				Expect(may(viewer, verb, kind)).To(BeFalse(), kind)
				Expect(may(editor, verb, kind)).To(BeTrue(), kind)
			}
		}
	})
})
