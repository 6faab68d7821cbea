package xds_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	"github.com/go-logr/logr/funcr"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/types/known/anypb"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/controllers"
	"github.com/jia-app/paymesh/internal/mesh"
	spireclient "github.com/jia-app/paymesh/internal/spire/client"
	"github.com/jia-app/paymesh/internal/spire/registry"
	"github.com/jia-app/paymesh/internal/spire/retention"
	"github.com/jia-app/paymesh/internal/workload"
	"github.com/jia-app/paymesh/internal/xds"
	"github.com/jia-app/paymesh/internal/xds/server"
	"github.com/jia-app/paymesh/test/lab"
)

// operator is a whole manager, against the API server and the SPIRE server of this suite. The kubelet and the controllers of
// Kubernetes are missing: tests do their part.
type operator struct {
	client client.Client
	xdsAt  string
	// render changes what the proxies get.
	mu     sync.Mutex
	ips    map[types.NamespacedName]string
	broken atomic.Pointer[types.NamespacedName]
}

func startOperator(t *testing.T) *operator {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	scheme := runtime.NewScheme()
	must(t, clientgoscheme.AddToScheme(scheme))
	must(t, meshv1alpha1.AddToScheme(scheme))
	mgr, err := ctrl.NewManager(api.Config, ctrl.Options{
		Scheme: scheme, Cache: controllers.CacheOptions(), Metrics: metricsserver.Options{BindAddress: "0"},
		Logger: funcr.New(func(_, args string) {
			if !strings.HasPrefix(args, `"level"`) { // an error
				t.Log(args)
			}
		}, funcr.Options{}),
	})
	must(t, err)
	o := &operator{xdsAt: lab.FreeAddress(t), ips: map[types.NamespacedName]string{}}
	o.client, err = client.New(api.Config, client.Options{Scheme: scheme})
	must(t, err)
	o.addIdentities(ctx, t, mgr)
	o.addMesh(ctx, t, mgr)
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the manager ended with %v", err)
		}
	})
	return o
}

func (o *operator) addIdentities(ctx context.Context, t *testing.T, mgr ctrl.Manager) {
	entries, err := spireclient.NewUnix(spire.Socket, nil)
	must(t, err)
	held := registry.New(entries, cluster, registry.Options{AuditInterval: time.Second, Logger: mgr.GetLogger()})
	must(t, mgr.Add(entries))
	must(t, mgr.Add(held))
	_, err = controllers.AddIdentities(ctx, mgr, controllers.IdentityOptions{
		Cluster: cluster, SPIRE: held, Namespace: "paymesh-system", Grace: time.Minute,
		BrakeCount: retention.DefaultBrakeCount, BrakeShare: retention.DefaultBrakeShare,
		DefaultTTL: time.Hour, CATTL: 24 * time.Hour, AgentTTL: time.Hour, RetryInterval: time.Second, Clock: clock.RealClock{},
	})
	must(t, err)
}

func (o *operator) addMesh(ctx context.Context, t *testing.T, mgr ctrl.Manager) {
	source := sourceOf(t, cluster.OperatorID())
	serves := server.New(server.Options{Address: o.xdsAt, Source: source, Cluster: cluster, Log: mgr.GetLogger()})
	peers := server.NewPeers(serves, server.PeersOptions{
		Resolve: func(context.Context) ([]string, error) { return nil, nil }, Source: source, Cluster: cluster, Log: mgr.GetLogger(),
	})
	must(t, controllers.AddMesh(ctx, mgr, controllers.MeshOptions{
		Cluster: cluster, Server: serves, Serve: serves.Start, Proxies: peers, Render: o.render, RetryInterval: time.Second,
		Workload:  workload.Options{ProxyImage: "envoy", ManagerNamespace: "paymesh-system", WorkloadAPIHostPath: "/run/spire", WorkloadAPISocket: "agent.sock"},
		Bootstrap: xds.BootstrapOptions{XDSAddress: o.xdsAt, WorkloadAPI: agent.WorkloadAPI},
	}))
	must(t, mgr.Add(peers))
}

// render is the operator's rendering, on the address of the pod, since there is one network here for all pods. A broken
// service gets a listener that nothing but a proxy finds fault with.
func (o *operator) render(m mesh.Mesh, key mesh.ProxyKey) (spiffeid.ID, xds.Resources, bool) {
	id, resources, ok := controllers.Render(m, key)
	o.mu.Lock()
	defer o.mu.Unlock()
	rebind(resources, o.ips[key.NamespacedName])
	if broken := o.broken.Load(); broken != nil && *broken == key.NamespacedName {
		for _, l := range resources.Listeners {
			if l.GetName() == "outbound/contact" {
				l.AccessLog = append(l.AccessLog, unknownOperator())
			}
		}
	}
	return id, resources, ok
}

// unknownOperator is an access log with a format that only Envoy finds fault with.
func unknownOperator() *accesslogv3.AccessLog {
	config, err := anypb.New(&streamv3.StdoutAccessLog{AccessLogFormat: &streamv3.StdoutAccessLog_LogFormat{LogFormat: &corev3.SubstitutionFormatString{
		Format: &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: "%NOPE%"}}},
	}}})
	if err != nil {
		panic(err)
	}
	return &accesslogv3.AccessLog{Name: "stdout", ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: config}}
}

// run does the part of Kubernetes for a MeshService: a pod on the node, and a Deployment that says so. The proxy is real.
func (o *operator) run(t *testing.T, key types.NamespacedName) *pod {
	t.Helper()
	deployment, files := &appsv1.Deployment{}, &corev1.ConfigMap{}
	lab.Eventually(t, patience, func() error { return o.client.Get(t.Context(), key, deployment) })
	must(t, o.client.Get(t.Context(), types.NamespacedName{Namespace: key.Namespace, Name: key.Name + "-proxy"}, files))
	object := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name + "-1", Labels: deployment.Spec.Template.Labels, OwnerReferences: []metav1.OwnerReference{
			{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: key.Name + "-1", UID: "1", Controller: ptr.To(true)},
		}},
		Spec: corev1.PodSpec{NodeName: "node-1", ServiceAccountName: key.Name, Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}
	object.Labels[appsv1.DefaultDeploymentUniqueLabelKey] = "1"
	must(t, o.client.Create(t.Context(), object))
	object.Status = corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
	must(t, o.client.Status().Update(t.Context(), object))
	deployment.Status = appsv1.DeploymentStatus{ObservedGeneration: deployment.Generation, Replicas: 1, UpdatedReplicas: 1, ReadyReplicas: 1, AvailableReplicas: 1}
	must(t, o.client.Status().Update(t.Context(), deployment))
	p := &pod{key: mesh.ProxyKey{Kind: mesh.KindMeshService, NamespacedName: key}, ip: o.ips[key]}
	spire.AddUnixEntry(t, agent, "/ns/"+key.Namespace+"/sa/"+key.Name) // the proxy is a process here, and no container
	p.Envoy = lab.StartEnvoy(t, lab.EnvoyOptions{
		Bootstrap: rebindBootstrap(t, files.Data["envoy.yaml"], p.ip), Node: p.key.NodeID(object.Name), Cluster: key.String(),
		Admin: net.JoinHostPort(p.ip, fmt.Sprint(mesh.AdminPort)),
	})
	return p
}

// becomes waits for a condition of a MeshService to be "status reason", and is its message.
func (o *operator) becomes(t *testing.T, key types.NamespacedName, condition, want string) (message string) {
	t.Helper()
	lab.Eventually(t, patience, func() error {
		object := &meshv1alpha1.MeshService{}
		if err := o.client.Get(t.Context(), key, object); err != nil {
			return err
		}
		found := meta.FindStatusCondition(object.Status.Conditions, condition)
		if found == nil {
			return fmt.Errorf("%s has no condition %s", key, condition)
		}
		if got := string(found.Status) + " " + found.Reason; got != want {
			return fmt.Errorf("%s of %s is %s, want %s: %s", condition, key, got, want, found.Message)
		}
		message = found.Message
		return nil
	})
	return message
}

func TestReadyMeansThatTheProxyConfirmedItAndARejectionIsNamedAndHarmsNobodyElse(t *testing.T) {
	o := startOperator(t)
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "status-"}}
	must(t, o.client.Create(t.Context(), namespace))
	pay, contact := types.NamespacedName{Namespace: namespace.Name, Name: "pay"}, types.NamespacedName{Namespace: namespace.Name, Name: "contact"}
	o.mu.Lock()
	o.ips[pay], o.ips[contact] = podAddress(), podAddress()
	o.mu.Unlock()
	service := func(key types.NamespacedName, change func(*meshv1alpha1.MeshServiceSpec)) {
		object := &meshv1alpha1.MeshService{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
		object.Spec.Workload.Image = "example/service:1"
		object.Spec.Ports = []meshv1alpha1.ServicePort{{Name: "grpc", Port: freePort(t), Protocol: meshv1alpha1.ProtocolGRPC}}
		change(&object.Spec)
		must(t, o.client.Create(t.Context(), object))
	}
	service(contact, func(spec *meshv1alpha1.MeshServiceSpec) {
		spec.Allow = []meshv1alpha1.AllowRule{{Name: "pay", From: meshv1alpha1.Caller{Service: &meshv1alpha1.ObjectReference{Name: "pay"}}, Methods: []meshv1alpha1.Method{"*"}}}
	})
	service(pay, func(spec *meshv1alpha1.MeshServiceSpec) {
		spec.DependsOn = []meshv1alpha1.Dependency{{Name: "contact", Service: meshv1alpha1.ObjectReference{Name: "contact"}, LocalPort: freePort(t)}}
	})
	callee, caller := o.run(t, contact), o.run(t, pay)
	for _, key := range []types.NamespacedName{pay, contact} {
		o.becomes(t, key, meshv1alpha1.ConditionReady, "True Ready")
	}

	o.broken.Store(&pay)
	o.touch(t, pay)
	message := o.becomes(t, pay, meshv1alpha1.ConditionProgrammed, "False NACKed")
	if !strings.Contains(message, "NOPE") || !strings.Contains(message, "the proxy of pod pay-1 rejects outbound/contact of type Listener") {
		t.Errorf("the condition says %q", message)
	}
	o.becomes(t, pay, meshv1alpha1.ConditionReady, "False NACKed")
	o.becomes(t, contact, meshv1alpha1.ConditionReady, "True Ready")
	for _, p := range []*pod{caller, callee} {
		if err := p.ready(t); err != nil {
			t.Errorf("%s does not go on with what it had: %v", p.key, err)
		}
	}
	o.broken.Store(nil)
	o.touch(t, pay)
	o.becomes(t, pay, meshv1alpha1.ConditionReady, "True Ready")
}

// touch changes a service so that it is rendered anew: with a timeout that only its routes have.
func (o *operator) touch(t *testing.T, key types.NamespacedName) {
	t.Helper()
	object := &meshv1alpha1.MeshService{}
	must(t, o.client.Get(t.Context(), key, object))
	before := object.DeepCopy()
	seconds := 1 + len(object.Spec.DependsOn[0].Timeout)
	object.Spec.DependsOn[0].Timeout = meshv1alpha1.Duration(strings.Repeat("1", seconds) + "s")
	must(t, o.client.Patch(t.Context(), object, client.MergeFrom(before)))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
