package controllers_test

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
)

// showing is a cache that still shows a ServiceIdentity as it was.
type showing struct {
	client.Client
	old *meshv1alpha1.ServiceIdentity
}

func (s *showing) Get(ctx context.Context, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
	if identity, ok := object.(*meshv1alpha1.ServiceIdentity); ok {
		s.old.DeepCopyInto(identity)
		return nil
	}
	return s.Client.Get(ctx, key, object, options...)
}

var _ = Describe("the finalizer of a ServiceIdentity", func() {
	It("is not taken from a new object while the cache still shows the old one of its name", func() {
		r := newRig()
		ns := namespace("")
		object := identity(ns, "pay")
		key := mesh.KeyOf(object)
		r.reconcile(key, ns, object)
		Expect(live.Delete(r.ctx, object)).To(Succeed())
		r.identities.Client = &showing{Client: r.cached, old: r.identity(key)}
		By("somebody removes it by hand, and makes the object again")
		Expect(live.Patch(r.ctx, object, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`)))).To(Succeed())
		anew := identity(ns, "pay")
		anew.Finalizers = []string{"example.com/mine", meshv1alpha1.FinalizerEntries}
		Expect(live.Update(r.ctx, anew)).To(Succeed())

		result, err := r.identities.Reconcile(r.ctx, ctrl.Request{NamespacedName: key})
		Expect(err).NotTo(HaveOccurred())
		Expect(result).To(Equal(ctrl.Result{}), "the cache will tell of the new one")
		Expect(r.identity(key).Finalizers).To(ConsistOf("example.com/mine", meshv1alpha1.FinalizerEntries))
	})
})
