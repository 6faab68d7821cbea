package controllers_test

import (
	"context"
	"fmt"
	"sync"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/controllers"
	"github.com/jia-app/paymesh/internal/descriptor"
	"github.com/jia-app/paymesh/internal/mesh"
)

var _ = Describe("the neighbourhood of a key", func() {
	var world *controllers.World
	var reads *countingReader
	var ns *corev1.Namespace

	BeforeEach(func() {
		ctx, cancel := context.WithCancel(context.Background())
		DeferCleanup(cancel)
		reads = &countingReader{Reader: live}
		world = &controllers.World{Client: startCache(ctx), Live: reads, Cluster: clusterID}
		ns = namespace("")
	})

	create := func(object client.Object) { Expect(live.Create(context.Background(), object)).To(Succeed()) }
	service := func(name string, change func(*meshv1alpha1.MeshServiceSpec)) {
		object := &meshv1alpha1.MeshService{ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: name}}
		object.Spec.Workload.Image = "example/service:1"
		object.Spec.Ports = []meshv1alpha1.ServicePort{{Name: "grpc", Port: 8081, Protocol: meshv1alpha1.ProtocolGRPC}}
		change(&object.Spec)
		create(object)
	}
	dependsOn := func(callee string) func(*meshv1alpha1.MeshServiceSpec) {
		return func(spec *meshv1alpha1.MeshServiceSpec) {
			spec.DependsOn = []meshv1alpha1.Dependency{{Name: "callee", Service: meshv1alpha1.ObjectReference{Name: meshv1alpha1.ObjectName(callee)}, LocalPort: 50051}}
		}
	}
	exposed := func(hostname string) func(*meshv1alpha1.MeshServiceSpec) {
		return func(spec *meshv1alpha1.MeshServiceSpec) {
			spec.Expose = []meshv1alpha1.Exposure{{
				Name: "api", Gateway: meshv1alpha1.ObjectReference{Name: "public"}, Hostnames: []meshv1alpha1.Hostname{meshv1alpha1.Hostname(hostname)},
				Methods: []meshv1alpha1.ExactMethod{"payment.v1.PaymentService/GetPayment"}, Protocols: []meshv1alpha1.NativeProtocol{meshv1alpha1.NativeGRPC},
				Auth: meshv1alpha1.ExposureAuth{JWT: "users"},
			}}
		}
	}
	gateway := func(name string) {
		object := &meshv1alpha1.MeshGateway{ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: name}}
		object.Spec.Listeners = []meshv1alpha1.GatewayListener{{Name: "https", Port: 443, TLS: meshv1alpha1.ListenerTLS{SecretName: "tls"}}}
		object.Spec.JWT = []meshv1alpha1.JWTProvider{{Name: "users", Issuer: "https://issuer", Audiences: []string{"payments"}, JWKS: meshv1alpha1.ConfigMapKey{ConfigMap: "keys", Key: "jwks.json"}}}
		create(object)
	}
	// found are the names of what a key's neighbourhood has.
	found := func(kind, name string) (names struct{ Services, Gateways, Identities, ConfigMaps []string }) {
		GinkgoHelper()
		objects, err := world.Of(context.Background(), mesh.ProxyKey{Kind: kind, NamespacedName: types.NamespacedName{Namespace: ns.Name, Name: name}})
		Expect(err).NotTo(HaveOccurred())
		for _, object := range objects.Services {
			names.Services = append(names.Services, object.Name)
		}
		for _, object := range objects.Gateways {
			names.Gateways = append(names.Gateways, object.Name)
		}
		for _, object := range objects.Identities {
			names.Identities = append(names.Identities, object.Name)
		}
		for _, object := range objects.ConfigMaps {
			names.ConfigMaps = append(names.ConfigMaps, object.Name)
		}
		return names
	}

	It("has those that the service calls, those that call it, its gateways and their other services, and nobody else", func() {
		service("middle", func(spec *meshv1alpha1.MeshServiceSpec) {
			dependsOn("callee")(spec)
			exposed("middle.example.com")(spec)
		})
		service("callee", dependsOn("behind"))
		service("behind", func(*meshv1alpha1.MeshServiceSpec) {})
		service("caller", dependsOn("middle"))
		service("rival", exposed("rival.example.com"))
		service("stranger", func(*meshv1alpha1.MeshServiceSpec) {})
		gateway("public")
		gateway("other")
		identity(ns, "callee")
		identity(ns, "stranger")
		Eventually(func() []string { return found(mesh.KindMeshService, "middle").Services }).Should(ConsistOf("middle", "callee", "caller", "rival"))
		Eventually(func() []string { return found(mesh.KindMeshService, "middle").Gateways }).Should(ConsistOf("public"))
		Eventually(func() []string { return found(mesh.KindMeshService, "middle").Identities }).Should(ConsistOf("callee"))
		Expect(found(mesh.KindMeshGateway, "public").Services).To(ConsistOf("middle", "rival"))
		Expect(found(mesh.KindMeshService, "stranger").Services).To(ConsistOf("stranger"))
		Expect(found(mesh.KindMeshService, "nobody").Services).To(BeEmpty())
	})

	It("hands on to each Build what those before it have read of descriptor sets", func() {
		of := func(kind string) *descriptor.Cache {
			objects, err := world.Of(context.Background(), mesh.ProxyKey{Kind: kind, NamespacedName: types.NamespacedName{Namespace: ns.Name, Name: "nobody"}})
			Expect(err).NotTo(HaveOccurred())
			return objects.Descriptors
		}
		Expect(of(mesh.KindMeshService)).NotTo(BeNil())
		Expect(of(mesh.KindMeshService)).To(BeIdenticalTo(of(mesh.KindMeshGateway)))
	})

	It("reads a ConfigMap past the cache once for each of its versions", func() {
		gateway("public")
		keys := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: "keys"}, Data: map[string]string{"jwks.json": "{}"}}
		create(keys)
		Eventually(func() []string { return found(mesh.KindMeshGateway, "public").ConfigMaps }).Should(ConsistOf("keys"))
		Expect(reads.count).To(Equal(1))
		found(mesh.KindMeshGateway, "public")
		Expect(reads.count).To(Equal(1))
		keys.Data["jwks.json"] = "{ }"
		Expect(live.Update(context.Background(), keys)).To(Succeed())
		Eventually(func() int {
			found(mesh.KindMeshGateway, "public")
			return reads.count
		}).Should(Equal(2))
		Expect(live.Delete(context.Background(), keys)).To(Succeed())
		Eventually(func() []string { return found(mesh.KindMeshGateway, "public").ConfigMaps }).Should(BeEmpty())
	})
})

var _ = Describe("the ConfigMaps that a World has read", func() {
	It("are forgotten when nobody refers to them any more, and one that is slow to read holds up no other", func() {
		r := newMeshRig()
		slow := &slowReader{Reader: live, slow: "slow", hold: make(chan struct{})}
		world := &controllers.World{Client: r.cached, Live: slow, Cluster: clusterID}
		object := r.service("pay", func(spec *meshv1alpha1.MeshServiceSpec) {
			spec.API = &meshv1alpha1.API{DescriptorSet: meshv1alpha1.ConfigMapKey{ConfigMap: "version-0", Key: "a"}}
		})
		r.settle(object)
		for i := range 150 {
			name := fmt.Sprintf("version-%d", i)
			keys := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: r.ns.Name, Name: name}, Data: map[string]string{"a": "b"}}
			Expect(live.Create(r.ctx, keys)).To(Succeed())
			r.settle(r.update("pay", func(spec *meshv1alpha1.MeshServiceSpec) {
				spec.API.DescriptorSet.ConfigMap = meshv1alpha1.ResourceName(name)
			}))
			Eventually(func() []corev1.ConfigMap {
				objects, err := world.Of(r.ctx, r.of("pay"))
				Expect(err).NotTo(HaveOccurred())
				return objects.ConfigMaps
			}).Should(HaveLen(1))
		}
		Expect(world.Files()).To(BeNumerically("<", 100))

		Expect(live.Create(r.ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: r.ns.Name, Name: "slow"}})).To(Succeed())
		waiting := r.service("waiting", func(spec *meshv1alpha1.MeshServiceSpec) {
			spec.API = &meshv1alpha1.API{DescriptorSet: meshv1alpha1.ConfigMapKey{ConfigMap: "slow", Key: "a"}}
		})
		r.settle(waiting)
		read := make(chan error, 1)
		Eventually(func() bool { // the metadata has to come first
			go func() {
				_, err := world.Of(r.ctx, r.of("waiting"))
				read <- err
			}()
			select {
			case <-slow.began():
				return true
			case <-read:
				return false
			}
		}).Should(BeTrue())
		_, err := world.Of(r.ctx, r.of("pay"))
		Expect(err).NotTo(HaveOccurred())
		close(slow.hold)
		Eventually(read).Should(Receive(Succeed()))
	})
})

// slowReader holds up the reading of one object.
type slowReader struct {
	client.Reader
	slow  string
	hold  chan struct{}
	once  sync.Once
	start chan struct{}
}

func (r *slowReader) began() <-chan struct{} {
	r.once.Do(func() { r.start = make(chan struct{}, 1) })
	return r.start
}

func (r *slowReader) Get(ctx context.Context, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
	if key.Name == r.slow {
		r.began()
		r.start <- struct{}{}
		<-r.hold
	}
	return r.Reader.Get(ctx, key, object, options...)
}

// countingReader counts what is read past the cache.
type countingReader struct {
	client.Reader
	count int
}

func (r *countingReader) Get(ctx context.Context, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
	r.count++
	return r.Reader.Get(ctx, key, object, options...)
}
