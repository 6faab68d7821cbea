package controllers_test

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlconfig "sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/controllers"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/workload"
	"github.com/jia-app/paymesh/internal/xds"
	"github.com/jia-app/paymesh/internal/xds/server"
)

// What wakes the reconcilers is the subject: a manager runs, and nobody calls Reconcile. The part of the SPIRE side, to say
// of each ServiceIdentity whether it is accepted, is done by the spec.
var _ = Describe("a running manager of the mesh", Ordered, func() {
	var xdsServer *server.Server
	served := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())

	BeforeAll(func() {
		mgr, err := ctrl.NewManager(apiServer.Config, ctrl.Options{
			Scheme: scheme, Cache: controllers.CacheOptions(), Logger: GinkgoLogr, Metrics: metricsserver.Options{BindAddress: "0"},
			Controller: ctrlconfig.Controller{SkipNameValidation: ptr.To(true)},
		})
		Expect(err).NotTo(HaveOccurred())
		xdsServer = server.New(server.Options{Cluster: clusterID, Log: GinkgoLogr})
		options := workload.Options{ProxyImage: "envoy", ManagerNamespace: "paymesh-system", WorkloadAPIHostPath: "/run/spire", WorkloadAPISocket: "agent.sock"}
		Expect(controllers.AddMesh(ctx, mgr, controllers.MeshOptions{
			Cluster: clusterID, Server: xdsServer, Proxies: server.NewPeers(xdsServer, server.PeersOptions{}), Workload: options,
			Bootstrap:     xds.BootstrapOptions{XDSAddress: "paymesh-xds.paymesh-system.svc:18000", WorkloadAPI: options.SocketPath()},
			RetryInterval: time.Hour,
			Serve: func(ctx context.Context) error {
				close(served)
				<-ctx.Done()
				return nil
			},
		})).To(Succeed())
		ended := make(chan error, 1)
		go func() { ended <- mgr.Start(ctx) }()
		DeferCleanup(func() {
			cancel()
			Eventually(ended).Should(Receive(Succeed()))
		})
	})

	// condition is "status reason" of an object's condition, as the API server has it.
	condition := func(object client.Object, conditionType string) func() string {
		return func() string {
			if err := live.Get(ctx, client.ObjectKeyFromObject(object), object); err != nil {
				return err.Error()
			}
			var conditions []metav1.Condition
			switch o := object.(type) {
			case *meshv1alpha1.MeshService:
				conditions = o.Status.Conditions
			case *meshv1alpha1.MeshGateway:
				conditions = o.Status.Conditions
			}
			if found := meta.FindStatusCondition(conditions, conditionType); found != nil {
				return string(found.Status) + " " + found.Reason
			}
			return ""
		}
	}
	// accept has the ServiceIdentity of an object accepted, as soon as it is there.
	accept := func(object client.Object) {
		GinkgoHelper()
		Eventually(func() error {
			identity := &meshv1alpha1.ServiceIdentity{}
			if err := live.Get(ctx, client.ObjectKeyFromObject(object), identity); err != nil {
				return err
			}
			meta.SetStatusCondition(&identity.Status.Conditions, metav1.Condition{Type: "Accepted", Status: metav1.ConditionTrue, Reason: "Accepted"})
			return live.Status().Update(ctx, identity)
		}).Should(Succeed())
	}
	patch := func(object client.Object, spec map[string]any) {
		GinkgoHelper()
		text, err := json.Marshal(map[string]any{"spec": spec})
		Expect(err).NotTo(HaveOccurred())
		Expect(live.Patch(ctx, object.DeepCopyObject().(client.Object), client.RawPatch("application/merge-patch+json", text))).To(Succeed())
	}
	version := func(kind string, object client.Object) func() string {
		return func() string {
			return xdsServer.Version(mesh.ProxyKey{Kind: kind, NamespacedName: client.ObjectKeyFromObject(object)})
		}
	}

	It("serves once everything that there is has been set", func() {
		Eventually(served).Should(BeClosed())
	})

	It("follows both halves of an edge, the identities at its ends, and what is changed by hand", func() {
		ns := namespace("")
		pay := meshService(ns, "pay", calling("contact", 50051))
		Eventually(condition(pay, "DependenciesResolved")).Should(Equal("False ServiceNotFound"))
		Eventually(version(mesh.KindMeshService, pay)).ShouldNot(BeEmpty())
		accept(pay)
		Eventually(condition(pay, "Accepted")).Should(Equal("True Accepted"))

		By("the callee comes")
		contact := meshService(ns, "contact")
		Eventually(condition(pay, "DependenciesResolved")).Should(Equal("False ServiceNotAccepted"))
		accept(contact)
		Eventually(condition(pay, "DependenciesResolved")).Should(Equal("False NotAllowed"))
		before, beforeContact := version(mesh.KindMeshService, pay)(), version(mesh.KindMeshService, contact)()

		By("the callee consents")
		patch(contact, map[string]any{"allow": []any{map[string]any{"name": "pay", "from": map[string]any{"service": map[string]any{"name": "pay"}}, "methods": []string{"*"}}}})
		Eventually(condition(pay, "DependenciesResolved")).Should(Equal("True Resolved"))
		Eventually(version(mesh.KindMeshService, pay)).ShouldNot(Equal(before))
		Eventually(version(mesh.KindMeshService, contact)).ShouldNot(Equal(beforeContact))

		By("the caller goes, and its rule with it")
		patch(pay, map[string]any{"dependsOn": nil})
		Eventually(version(mesh.KindMeshService, contact)).Should(Equal(beforeContact))

		By("a Deployment is changed by hand")
		deployment := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: "pay"}}
		patch(deployment, map[string]any{"replicas": 5})
		Eventually(func() int32 {
			Expect(live.Get(ctx, client.ObjectKeyFromObject(deployment), deployment)).To(Succeed())
			return *deployment.Spec.Replicas
		}).Should(Equal(int32(1)))

		By("an object is deleted by hand")
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: "pay"}}
		Expect(live.Delete(ctx, account)).To(Succeed())
		Eventually(func() error { return live.Get(ctx, client.ObjectKeyFromObject(account), account) }).Should(Succeed())

		By("a pod comes, and its Deployment reports")
		deployment.Status = appsv1.DeploymentStatus{ObservedGeneration: deployment.Generation, Replicas: 1, UpdatedReplicas: 1, AvailableReplicas: 1, ReadyReplicas: 1}
		Expect(live.Status().Update(ctx, deployment)).To(Succeed())
		Eventually(condition(pay, "WorkloadReady")).Should(Equal("True Available"))
	})

	It("follows the claim of a volume, which has no owner where it is to outlive its service", func() {
		ns := namespace("")
		pay := meshService(ns, "pay", func(spec *meshv1alpha1.MeshServiceSpec) {
			spec.Workload.Persistence = &meshv1alpha1.Persistence{Size: "1Gi", MountPath: "/data"}
		})
		accept(pay)
		Eventually(condition(pay, "Accepted")).Should(Equal("True Accepted"))
		Eventually(condition(pay, "WorkloadReady")).Should(Equal("False Progressing"))
		claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: "pay-data"}}
		Expect(live.Delete(ctx, claim)).To(Succeed())
		Eventually(condition(pay, "WorkloadReady")).Should(Equal("False VolumeTerminating"))

		Expect(live.Get(ctx, client.ObjectKeyFromObject(claim), claim)).To(Succeed())
		lost := claim.UID
		claim.Finalizers = nil
		Expect(live.Update(ctx, claim)).To(Succeed())
		Eventually(func() (types.UID, error) {
			again := &corev1.PersistentVolumeClaim{}
			err := live.Get(ctx, client.ObjectKeyFromObject(claim), again)
			return again.UID, client.IgnoreNotFound(err)
		}).ShouldNot(BeElementOf(lost, types.UID("")))
		Eventually(condition(pay, "WorkloadReady")).Should(Equal("False Progressing"))
	})

	It("follows a gateway, its keys, whom it admits, and who exposes", func() {
		ns := namespace("")
		gateway := &meshv1alpha1.MeshGateway{ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: "public"}}
		gateway.Spec.Listeners = []meshv1alpha1.GatewayListener{{Name: "https", Port: 443, TLS: meshv1alpha1.ListenerTLS{SecretName: "tls"}}}
		gateway.Spec.JWT = []meshv1alpha1.JWTProvider{{Name: "users", Issuer: "https://issuer", Audiences: []string{"payments"}, JWKS: meshv1alpha1.ConfigMapKey{ConfigMap: "keys", Key: "jwks.json"}}}
		Expect(live.Create(ctx, gateway)).To(Succeed())
		Eventually(condition(gateway, "Accepted")).Should(Equal("False KeysInvalid"))
		accept(gateway)
		elder := meshService(ns, "elder")
		accept(elder)
		pay := meshService(ns, "pay", func(spec *meshv1alpha1.MeshServiceSpec) {
			spec.Expose = []meshv1alpha1.Exposure{{
				Name: "api", Gateway: meshv1alpha1.ObjectReference{Name: "public"}, Hostnames: []meshv1alpha1.Hostname{"pay.example.com"},
				Methods: []meshv1alpha1.ExactMethod{"payment.v1.PaymentService/GetPayment"}, Protocols: []meshv1alpha1.NativeProtocol{meshv1alpha1.NativeGRPC},
				Auth: meshv1alpha1.ExposureAuth{JWT: "users"},
			}}
		})
		accept(pay)
		Eventually(condition(pay, "Exposed")).Should(Equal("False NotAdmitted"))

		By("the gateway admits it")
		patch(gateway, map[string]any{"routes": []any{map[string]any{"name": "payments", "namespaces": []string{ns.Name}, "hostnames": []string{"pay.example.com"}}}})
		Eventually(condition(pay, "Exposed")).Should(Equal("False GatewayNotAccepted"))

		By("its keys come")
		keys := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: "keys"}, Data: map[string]string{"jwks.json": publicKeys}}
		Expect(live.Create(ctx, keys)).To(Succeed())
		Eventually(condition(gateway, "Accepted")).Should(Equal("True Accepted"))
		Eventually(condition(pay, "Exposed")).Should(Equal("True Exposed"))
		Eventually(func() int32 { condition(gateway, "Accepted")(); return ptr.Deref(gateway.Status.Routes, -1) }).Should(Equal(int32(1)))
		before := version(mesh.KindMeshGateway, gateway)()

		By("what is served is recorded, and an older one that wants it later does not get it")
		Eventually(func() []meshv1alpha1.ExposureRecord { condition(pay, "Exposed")(); return pay.Status.Exposures }).Should(Equal([]meshv1alpha1.ExposureRecord{{
			Name: "api", Gateway: meshv1alpha1.ObjectReference{Name: "public", Namespace: meshv1alpha1.NamespaceName(ns.Name)},
			Hostnames: []meshv1alpha1.Hostname{"pay.example.com"}, Paths: []string{"POST /payment.v1.PaymentService/GetPayment"},
			Port: "grpc", Size: 1024,
		}}))
		patch(elder, map[string]any{"expose": pay.Spec.Expose})
		Eventually(condition(elder, "Exposed")).Should(Equal("False RouteClaimed"))
		Expect(elder.Status.Exposures).To(BeEmpty())
		Expect(condition(pay, "Exposed")()).To(Equal("True Exposed"))
		Expect(version(mesh.KindMeshGateway, gateway)()).To(Equal(before))
		patch(elder, map[string]any{"expose": nil})
		Eventually(condition(elder, "Exposed")).Should(Equal("True NotApplicable"))

		By("another wants the same")
		rival := meshService(ns, "rival", func(spec *meshv1alpha1.MeshServiceSpec) { spec.Expose = pay.Spec.Expose })
		accept(rival)
		Eventually(condition(rival, "Exposed")).Should(Equal("False RouteClaimed"))
		Expect(condition(pay, "Exposed")()).To(Equal("True Exposed"))

		By("the first goes, and the other takes its place")
		patch(pay, map[string]any{"expose": nil})
		Eventually(condition(rival, "Exposed")).Should(Equal("True Exposed"))
		Eventually(version(mesh.KindMeshGateway, gateway)).ShouldNot(Equal(before))
	})

	It("keeps a listener of a gateway where it is, and the place of one that is gone while older pods run", func() {
		ns := namespace("")
		gateway := &meshv1alpha1.MeshGateway{ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: "public"}}
		gateway.Spec.Listeners = []meshv1alpha1.GatewayListener{{Name: "https", Port: 443, TLS: meshv1alpha1.ListenerTLS{SecretName: "tls"}}}
		Expect(live.Create(ctx, gateway)).To(Succeed())
		listener := func(name string, port int) map[string]any {
			return map[string]any{"name": name, "port": port, "tls": map[string]any{"secretName": "tls"}}
		}
		recorded := func() map[string]int32 {
			all := map[string]int32{}
			if live.Get(ctx, client.ObjectKeyFromObject(gateway), gateway) == nil {
				for _, r := range gateway.Status.Listeners {
					all[r.Name] = r.TargetPort
				}
			}
			return all
		}
		targets := func() map[string]int32 {
			service, all := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: "public"}}, map[string]int32{}
			if live.Get(ctx, client.ObjectKeyFromObject(service), service) == nil {
				for _, port := range service.Spec.Ports {
					all[fmt.Sprint(port.Name, " ", port.Port)] = port.TargetPort.IntVal
				}
			}
			return all
		}
		renewed := func() {
			deployment := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: "public"}}
			Eventually(func() error {
				if err := live.Get(ctx, client.ObjectKeyFromObject(deployment), deployment); err != nil {
					return err
				}
				deployment.Status = appsv1.DeploymentStatus{ObservedGeneration: deployment.Generation, Replicas: 1, UpdatedReplicas: 1, AvailableReplicas: 1, ReadyReplicas: 1}
				return live.Status().Update(ctx, deployment)
			}).Should(Succeed())
		}
		Eventually(recorded).Should(Equal(map[string]int32{"https": 15643}))
		Eventually(targets).Should(Equal(map[string]int32{"https 443": 15643}))

		By("another comes before it")
		patch(gateway, map[string]any{"listeners": []any{listener("admin", 8443), listener("https", 443)}})
		Eventually(recorded).Should(Equal(map[string]int32{"https": 15643, "admin": 15644}))
		Eventually(targets).Should(Equal(map[string]int32{"https 443": 15643, "admin 8443": 15644}))

		By("the two exchange their ports, and the old one goes")
		patch(gateway, map[string]any{"listeners": []any{listener("admin", 443), listener("https", 8443)}})
		Eventually(targets).Should(Equal(map[string]int32{"https 8443": 15643, "admin 443": 15644}))
		patch(gateway, map[string]any{"listeners": []any{listener("admin", 443)}})
		Eventually(targets).Should(Equal(map[string]int32{"admin 443": 15644}))
		patch(gateway, map[string]any{"listeners": []any{listener("admin", 443), listener("partner", 9443)}})
		Eventually(recorded).Should(Equal(map[string]int32{"https": 15643, "admin": 15644, "partner": 15645}))
		Eventually(targets).Should(Equal(map[string]int32{"admin 443": 15644, "partner 9443": 15645}))

		By("no pod of an older revision runs any more")
		renewed()
		Eventually(recorded).Should(Equal(map[string]int32{"admin": 15644, "partner": 15645}))
	})

	It("lets a deleted gateway go", func() {
		ns := namespace("")
		gateway := &meshv1alpha1.MeshGateway{ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: "public"}}
		gateway.Spec.Listeners = []meshv1alpha1.GatewayListener{{Name: "https", Port: 443, TLS: meshv1alpha1.ListenerTLS{SecretName: "tls"}}}
		Expect(live.Create(ctx, gateway)).To(Succeed())
		Eventually(version(mesh.KindMeshGateway, gateway)).ShouldNot(BeEmpty())
		deployment := &appsv1.Deployment{}
		Eventually(func() error { return live.Get(ctx, client.ObjectKeyFromObject(gateway), deployment) }).Should(Succeed())
		Expect(live.Delete(ctx, gateway)).To(Succeed())
		Eventually(condition(gateway, "WorkloadReady")).Should(Equal("False Terminating"))
		Eventually(func() bool { // what the garbage collector does when the pods are gone
			Expect(live.Get(ctx, client.ObjectKeyFromObject(gateway), deployment)).To(Succeed())
			return deployment.DeletionTimestamp != nil
		}).Should(BeTrue())
		deployment.Finalizers = nil
		Expect(live.Update(ctx, deployment)).To(Succeed())
		Eventually(version(mesh.KindMeshGateway, gateway)).Should(BeEmpty())
		Eventually(func() error {
			return client.IgnoreNotFound(live.Get(ctx, client.ObjectKeyFromObject(gateway), gateway))
		}).Should(Succeed())
		Eventually(condition(gateway, "Ready")).Should(ContainSubstring("not found"))
	})
})

// publicKeys are a key set as an issuer publishes it (RFC 7517).
const publicKeys = `{"keys":[{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`
