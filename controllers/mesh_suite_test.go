package controllers_test

import (
	"context"
	"maps"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/controllers"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/workload"
	"github.com/jia-app/paymesh/internal/xds"
	"github.com/jia-app/paymesh/internal/xds/server"
)

// meshRig is what the reconcilers of MeshService, MeshGateway and their proxies need: a cache of the API server, and an xDS
// server that is given config. No proxy connects here: those are the subject of test/integration/xds.
type meshRig struct {
	rig
	ns        *corev1.Namespace
	server    *server.Server
	services  *controllers.MeshServiceReconciler
	gateways  *controllers.MeshGatewayReconciler
	proxies   *controllers.ProxyReconciler
	endpoints *controllers.EndpointReconciler
}

func newMeshRig() *meshRig {
	GinkgoHelper()
	ctx, cancel := context.WithCancel(context.Background())
	DeferCleanup(cancel)
	r := &meshRig{rig: rig{ctx: ctx, cached: startCache(ctx), events: events.NewFakeRecorder(1000)}, ns: namespace("")}
	r.server = server.New(server.Options{Address: "127.0.0.1:0", Cluster: clusterID, Log: GinkgoLogr})
	options := workload.Options{
		ProxyImage: "envoy:1", ManagerNamespace: "paymesh-system", ManagerLabels: map[string]string{"app": "manager"},
		WorkloadAPIHostPath: "/run/spire/agent-sockets", WorkloadAPISocket: "spire-agent.sock",
	}
	all := controllers.NewMesh(r.cached, live, r.events, controllers.MeshOptions{
		Cluster: clusterID, Server: r.server, Proxies: server.NewPeers(r.server, server.PeersOptions{}), Workload: options,
		Bootstrap:     xds.BootstrapOptions{XDSAddress: "paymesh-xds.paymesh-system.svc:18000", WorkloadAPI: options.SocketPath()},
		RetryInterval: retry,
	})
	r.services, r.gateways, r.proxies, r.endpoints = all.Services, all.Gateways, all.Proxies, all.Endpoints
	return r
}

// key is that of an object in the spec's namespace.
func (r *meshRig) key(kind, name string) mesh.ProxyKey {
	return mesh.ProxyKey{Kind: kind, NamespacedName: types.NamespacedName{Namespace: r.ns.Name, Name: name}}
}

func (r *meshRig) of(name string) mesh.ProxyKey { return r.key(mesh.KindMeshService, name) }

func (r *meshRig) service(name string, change ...func(*meshv1alpha1.MeshServiceSpec)) *meshv1alpha1.MeshService {
	GinkgoHelper()
	return meshService(r.ns, name, change...)
}

// meshService makes a MeshService.
func meshService(ns *corev1.Namespace, name string, change ...func(*meshv1alpha1.MeshServiceSpec)) *meshv1alpha1.MeshService {
	GinkgoHelper()
	object := &meshv1alpha1.MeshService{ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: name}}
	object.Spec.Workload.Image = "example/service:1"
	object.Spec.Ports = []meshv1alpha1.ServicePort{{Name: "grpc", Port: 8081, Protocol: meshv1alpha1.ProtocolGRPC}}
	for _, f := range change {
		f(&object.Spec)
	}
	Expect(live.Create(context.Background(), object)).To(Succeed())
	return object
}

// update changes a MeshService as its user would.
func (r *meshRig) update(name string, change func(*meshv1alpha1.MeshServiceSpec)) *meshv1alpha1.MeshService {
	GinkgoHelper()
	object := r.get(name)
	before := object.DeepCopy()
	change(&object.Spec)
	Expect(live.Patch(r.ctx, object, client.MergeFrom(before))).To(Succeed())
	return object
}

func (r *meshRig) get(name string) *meshv1alpha1.MeshService {
	GinkgoHelper()
	object := &meshv1alpha1.MeshService{}
	Expect(live.Get(r.ctx, r.of(name).NamespacedName, object)).To(Succeed())
	return object
}

// reconcile calls every reconciler for a MeshService, once the cache shows what was written.
func (r *meshRig) reconcile(name string, written ...client.Object) ctrl.Result {
	GinkgoHelper()
	result, err := r.try(name, written...)
	Expect(err).NotTo(HaveOccurred())
	return result
}

func (r *meshRig) try(name string, written ...client.Object) (ctrl.Result, error) {
	GinkgoHelper()
	r.settle(written...)
	for _, reconcile := range []func(context.Context, mesh.ProxyKey) (ctrl.Result, error){r.proxies.Reconcile, r.endpoints.Reconcile} {
		_, err := reconcile(r.ctx, r.of(name))
		Expect(err).NotTo(HaveOccurred())
	}
	result, err := r.services.Reconcile(r.ctx, r.of(name))
	r.settleAll(name)
	return result, err
}

// settleAll waits until the cache shows what the reconcilers wrote of a MeshService.
func (r *meshRig) settleAll(name string) {
	GinkgoHelper()
	for _, object := range []client.Object{&meshv1alpha1.MeshService{}, &meshv1alpha1.ServiceIdentity{}, &appsv1.Deployment{}} {
		if live.Get(r.ctx, r.of(name).NamespacedName, object) == nil {
			r.settle(object)
		}
	}
}

// accept has the ServiceIdentity of a MeshService accepted and registered, as its own reconciler does.
func (r *meshRig) accept(name string) *meshv1alpha1.ServiceIdentity {
	GinkgoHelper()
	return r.judge(name, metav1.Condition{Type: meshv1alpha1.ConditionAccepted, Status: metav1.ConditionTrue, Reason: meshv1alpha1.ReasonAccepted},
		metav1.Condition{Type: meshv1alpha1.ConditionRegistered, Status: metav1.ConditionTrue, Reason: meshv1alpha1.ReasonRegistered, Message: "for node-1"})
}

func (r *meshRig) judge(name string, conditions ...metav1.Condition) *meshv1alpha1.ServiceIdentity {
	GinkgoHelper()
	object := &meshv1alpha1.ServiceIdentity{}
	Expect(live.Get(r.ctx, r.of(name).NamespacedName, object)).To(Succeed())
	for _, condition := range conditions {
		condition.ObservedGeneration = object.Generation
		meta.SetStatusCondition(&object.Status.Conditions, condition)
	}
	Expect(live.Status().Update(r.ctx, object)).To(Succeed())
	r.settle(object)
	return object
}

// running makes a pod of a MeshService with an address, which is ready, as kubelet does, and the Deployment's status say so.
func (r *meshRig) running(name string) *corev1.Pod {
	GinkgoHelper()
	deployment := &appsv1.Deployment{}
	Expect(live.Get(r.ctx, r.of(name).NamespacedName, deployment)).To(Succeed())
	object := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: name + "-", Namespace: r.ns.Name, Labels: maps.Clone(deployment.Spec.Template.Labels), OwnerReferences: []metav1.OwnerReference{
			{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: name + "-1", UID: "1", Controller: ptr.To(true)},
		}},
		Spec: corev1.PodSpec{ServiceAccountName: name, NodeName: "node-1", Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}
	object.Labels[appsv1.DefaultDeploymentUniqueLabelKey] = "1"
	Expect(live.Create(r.ctx, object)).To(Succeed())
	object.Status.Phase = corev1.PodRunning
	object.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	Expect(live.Status().Update(r.ctx, object)).To(Succeed())
	deployment.Status = appsv1.DeploymentStatus{ObservedGeneration: deployment.Generation, Replicas: 1, UpdatedReplicas: 1, AvailableReplicas: 1, ReadyReplicas: 1}
	Expect(live.Status().Update(r.ctx, deployment)).To(Succeed())
	r.settle(object, deployment)
	return object
}

// says is "status reason" of a condition of a MeshService; message what it says.
func (r *meshRig) says(name, condition string) string {
	GinkgoHelper()
	found := meta.FindStatusCondition(r.get(name).Status.Conditions, condition)
	if found == nil {
		return ""
	}
	return string(found.Status) + " " + found.Reason
}

func (r *meshRig) message(name, condition string) string {
	GinkgoHelper()
	return meta.FindStatusCondition(r.get(name).Status.Conditions, condition).Message
}

// told are the events since it was asked last.
func (r *meshRig) told() (all []string) {
	for len(r.events.Events) > 0 {
		all = append(all, <-r.events.Events)
	}
	return all
}

func calling(callee string, port int32) func(*meshv1alpha1.MeshServiceSpec) {
	return func(spec *meshv1alpha1.MeshServiceSpec) {
		spec.DependsOn = append(spec.DependsOn, meshv1alpha1.Dependency{
			Name: meshv1alpha1.ItemName(callee), Service: meshv1alpha1.ObjectReference{Name: meshv1alpha1.ObjectName(callee)}, LocalPort: port,
		})
	}
}

func allowing(caller string) func(*meshv1alpha1.MeshServiceSpec) {
	return func(spec *meshv1alpha1.MeshServiceSpec) {
		spec.Allow = append(spec.Allow, meshv1alpha1.AllowRule{
			Name: meshv1alpha1.ItemName(caller), From: meshv1alpha1.Caller{Service: &meshv1alpha1.ObjectReference{Name: meshv1alpha1.ObjectName(caller)}},
			Methods: []meshv1alpha1.Method{"contact.v1.ContactService/GetUserInfo"},
		})
	}
}
