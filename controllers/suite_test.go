package controllers_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	spiretypes "github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	clocktesting "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/cluster"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/controllers"
	"github.com/jia-app/paymesh/internal/mesh"
	spireclient "github.com/jia-app/paymesh/internal/spire/client"
	"github.com/jia-app/paymesh/internal/spire/registry"
	"github.com/jia-app/paymesh/internal/spire/retention"
	"github.com/jia-app/paymesh/test/lab"
)

const (
	grace = 5 * time.Minute
	retry = 30 * time.Second
	// agentTTL is how long a Node is young.
	agentTTL = time.Hour
	// audit is short, for the specs in which a change by hand is the subject.
	audit = time.Second
)

func TestControllers(t *testing.T) {
	RegisterFailHandler(Fail)
	ctrl.SetLogger(logr.Discard()) // else it complains
	SetDefaultEventuallyTimeout(30 * time.Second)
	SetDefaultEventuallyPollingInterval(20 * time.Millisecond)
	RunSpecs(t, "controllers, on a real API server and a real SPIRE server")
}

var (
	apiServer *lab.APIServer
	scheme    = runtime.NewScheme()
	clusterID mesh.ClusterID
	// live reads from and writes to the API server itself.
	live client.Client
)

var _ = BeforeSuite(func() {
	Expect(clientgoscheme.AddToScheme(scheme)).To(Succeed())
	Expect(meshv1alpha1.AddToScheme(scheme)).To(Succeed())
	var err error
	clusterID, err = mesh.NewClusterID(lab.TrustDomain, lab.ClusterName)
	Expect(err).NotTo(HaveOccurred())
	apiServer = lab.StartAPIServer(GinkgoT())
	live, err = client.New(apiServer.Config, client.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())
})

// rig is what a reconciler needs: a cache of the API server, a SPIRE server of its own, and a clock that the spec sets.
// Reconcilers are called by the specs, so that what one call did can be told.
type rig struct {
	ctx      context.Context
	cached   client.Client
	spire    *lab.SPIREServer
	registry *registry.Registry
	api      *spireclient.Client
	metrics  *prometheus.Registry
	clock    *clocktesting.FakeClock
	events   *events.FakeRecorder

	identities *controllers.ServiceIdentityReconciler
	nodes      *controllers.NodeReconciler
	brakes     *controllers.BrakeReconciler
	// operator is the namespace that the manager would run in.
	operator *corev1.Namespace
}

func newRig() *rig {
	GinkgoHelper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &rig{
		ctx: ctx, metrics: prometheus.NewRegistry(),
		clock: clocktesting.NewFakeClock(time.Now()), events: events.NewFakeRecorder(100),
	}
	r.spire = lab.StartSPIREServer(GinkgoT(), lab.SPIREOptions{})
	api, err := spireclient.NewUnix(r.spire.Socket, r.metrics)
	Expect(err).NotTo(HaveOccurred())
	r.api = api
	r.registry = registry.New(api, clusterID, registry.Options{AuditInterval: audit, Logger: GinkgoLogr, Registerer: r.metrics})
	r.cached = startCache(ctx)
	r.operator = namespace("")
	all := controllers.NewIdentities(r.cached, r.events, controllers.IdentityOptions{
		Cluster: clusterID, SPIRE: r.registry, Namespace: r.operator.Name, Grace: grace,
		BrakeCount: retention.LeastBrakeCount, BrakeShare: retention.DefaultBrakeShare,
		DefaultTTL: time.Hour, CATTL: 24 * time.Hour, AgentTTL: agentTTL, RetryInterval: retry, Clock: r.clock, Registerer: r.metrics,
	})
	r.identities, r.nodes, r.brakes = all.Identities, all.Nodes, all.Brake
	ended := make(chan error, 2)
	for _, start := range []func(context.Context) error{r.registry.Start, api.Start} {
		go func() { ended <- start(ctx) }()
	}
	DeferCleanup(func() {
		cancel()
		for range cap(ended) {
			Expect(<-ended).To(Succeed())
		}
	})
	Eventually(func() bool { return r.registry.State().Synced }).Should(BeTrue())
	return r
}

// startCache is a client that reads from a cache as the manager has it, which runs until ctx ends.
func startCache(ctx context.Context) client.Client {
	GinkgoHelper()
	reader, err := cluster.New(apiServer.Config, func(o *cluster.Options) {
		o.Scheme = scheme
		o.Cache = controllers.CacheOptions()
	})
	Expect(err).NotTo(HaveOccurred())
	Expect(controllers.IndexIdentities(ctx, reader.GetFieldIndexer(), clusterID)).To(Succeed())
	Expect(controllers.IndexMesh(ctx, reader.GetFieldIndexer())).To(Succeed())
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- reader.Start(running) }()
	DeferCleanup(func() {
		stop()
		Expect(<-ended).To(Succeed())
	})
	Expect(reader.GetCache().WaitForCacheSync(ctx)).To(BeTrue())
	return reader.GetClient()
}

// restart has the reconcilers know nothing of SPIRE, as in a manager that starts while SPIRE is away.
func (r *rig) restart() {
	GinkgoHelper()
	r.startRegistry(registry.Options{})
	Eventually(func() error { return r.registry.State().Err }).ShouldNot(Succeed())
}

// restartWith has the reconcilers read all of SPIRE anew, in another manner.
func (r *rig) restartWith(options registry.Options) {
	GinkgoHelper()
	r.startRegistry(options)
	Eventually(func() bool { return r.registry.State().Answers() }).Should(BeTrue())
}

func (r *rig) startRegistry(options registry.Options) {
	options.AuditInterval, options.Logger = audit, GinkgoLogr
	r.registry = registry.New(r.api, clusterID, options)
	r.identities.SPIRE, r.nodes.SPIRE = r.registry, r.registry
	ctx, cancel := context.WithCancel(r.ctx)
	ended := make(chan error, 1)
	go func() { ended <- r.registry.Start(ctx) }()
	DeferCleanup(func() {
		cancel()
		Expect(<-ended).To(Succeed())
	})
}

// reconcile calls the reconciler once the cache shows the objects as they were last written.
func (r *rig) reconcile(key types.NamespacedName, written ...client.Object) ctrl.Result {
	GinkgoHelper()
	r.settle(written...)
	result, err := r.identities.Reconcile(r.ctx, ctrl.Request{NamespacedName: key})
	Expect(err).NotTo(HaveOccurred())
	if now := (&meshv1alpha1.ServiceIdentity{}); live.Get(r.ctx, key, now) == nil {
		r.settle(now) // the status that it wrote
	}
	return result
}

// settle waits until the cache shows each object in the version that the API server has, or that it is gone.
func (r *rig) settle(written ...client.Object) {
	GinkgoHelper()
	for _, object := range written {
		key := client.ObjectKeyFromObject(object)
		now, seen := object.DeepCopyObject().(client.Object), object.DeepCopyObject().(client.Object)
		Eventually(func() string {
			if _, isNode := seen.(*corev1.Node); isNode { // the reconcilers read its metadata alone
				seen = partial("Node")
			} else if _, isNamespace := seen.(*corev1.Namespace); isNamespace {
				seen = partial("Namespace")
			} else if _, isClaim := seen.(*corev1.PersistentVolumeClaim); isClaim {
				seen = partial("PersistentVolumeClaim")
			}
			inCache, inServer := r.cached.Get(r.ctx, key, seen), live.Get(r.ctx, key, now)
			if client.IgnoreNotFound(inCache) != nil || client.IgnoreNotFound(inServer) != nil {
				return fmt.Sprint(inCache, inServer)
			}
			if (inCache == nil) != (inServer == nil) || inCache == nil && seen.GetResourceVersion() != now.GetResourceVersion() {
				return "the cache is behind"
			}
			return ""
		}).Should(BeEmpty(), "%T %s", object, key)
	}
}

// writes counts the calls that write to SPIRE: those of the reconcilers, since the audit only lists and gets.
func (r *rig) writes() (count int) {
	GinkgoHelper()
	families, err := r.metrics.Gather()
	Expect(err).NotTo(HaveOccurred())
	for _, family := range families {
		if family.GetName() != "paymesh_spire_rpcs_total" {
			continue
		}
		for _, metric := range family.GetMetric() {
			for _, label := range metric.GetLabel() {
				if label.GetName() == "method" && strings.HasPrefix(label.GetValue(), "Batch") {
					count += int(metric.GetCounter().GetValue())
				}
			}
		}
	}
	return count
}

// audits counts how often the registry has read through all entries.
func (r *rig) audits() float64 {
	GinkgoHelper()
	families, err := r.metrics.Gather()
	Expect(err).NotTo(HaveOccurred())
	for _, family := range families {
		if family.GetName() == "paymesh_spire_audits_total" {
			return family.GetMetric()[0].GetCounter().GetValue()
		}
	}
	Fail("nothing counts the audits")
	return 0
}

// createByHand makes an entry that is nobody's of paymesh.
func (r *rig) createByHand(entry *spiretypes.Entry) {
	GinkgoHelper()
	answer, err := r.spire.Entries.BatchCreateEntry(r.ctx, &entryv1.BatchCreateEntryRequest{Entries: []*spiretypes.Entry{entry}})
	Expect(err).NotTo(HaveOccurred())
	Expect(answer.Results[0].Status.Message).To(Equal("OK"))
}

// entries are what SPIRE holds, by ID.
func (r *rig) entries() map[string]*spiretypes.Entry {
	GinkgoHelper()
	list, err := r.spire.Entries.ListEntries(r.ctx, &entryv1.ListEntriesRequest{})
	Expect(err).NotTo(HaveOccurred())
	byID := map[string]*spiretypes.Entry{}
	for _, entry := range list.Entries {
		byID[entry.Id] = entry
	}
	return byID
}

func (r *rig) identity(key types.NamespacedName) *meshv1alpha1.ServiceIdentity {
	GinkgoHelper()
	object := &meshv1alpha1.ServiceIdentity{}
	Expect(live.Get(r.ctx, key, object)).To(Succeed())
	return object
}

// condition is "status reason" of a condition.
func (r *rig) condition(key types.NamespacedName, conditionType string) string {
	GinkgoHelper()
	return statusOf(r.identity(key), conditionType)
}

func (r *rig) message(key types.NamespacedName, conditionType string) string {
	GinkgoHelper()
	return meta.FindStatusCondition(r.identity(key).Status.Conditions, conditionType).Message
}

func statusOf(object *meshv1alpha1.ServiceIdentity, conditionType string) string {
	condition := meta.FindStatusCondition(object.Status.Conditions, conditionType)
	if condition == nil {
		return ""
	}
	return string(condition.Status) + " " + condition.Reason
}

// pathOf is the path of the SPIFFE ID that the object wants.
func pathOf(object *meshv1alpha1.ServiceIdentity) string {
	GinkgoHelper()
	path, err := clusterID.Path(object)
	Expect(err).NotTo(HaveOccurred())
	return path
}

// namespace makes a namespace of its own for a spec, with path prefixes granted to it.
func namespace(granted string) *corev1.Namespace {
	GinkgoHelper()
	object := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "spec-"}}
	if granted != "" {
		object.Annotations = map[string]string{meshv1alpha1.AnnotationSPIFFEPathPrefixes: granted}
	}
	Expect(live.Create(context.Background(), object)).To(Succeed())
	return object
}

// node makes a node of its own for a spec.
func node() *corev1.Node {
	GinkgoHelper()
	object := &corev1.Node{ObjectMeta: metav1.ObjectMeta{GenerateName: "node-"}}
	Expect(live.Create(context.Background(), object)).To(Succeed())
	DeferCleanup(func() { _ = live.Delete(context.Background(), object) })
	return object
}

// registerAgain makes a Node of the same name.
func registerAgain(on *corev1.Node) {
	GinkgoHelper()
	*on = corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: on.Name}}
	Expect(live.Create(context.Background(), on)).To(Succeed())
}

// pod makes a pod of a service account, bound to a node.
func pod(namespace *corev1.Namespace, serviceAccount, nodeName string) *corev1.Pod {
	GinkgoHelper()
	object := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "pod-", Namespace: namespace.Name},
		Spec: corev1.PodSpec{
			ServiceAccountName: serviceAccount, NodeName: nodeName,
			Containers: []corev1.Container{{Name: "c", Image: "c"}},
		},
	}
	Expect(live.Create(context.Background(), object)).To(Succeed())
	return object
}

// gone deletes an object for good: no kubelet will confirm the end of a pod.
func gone(object client.Object) {
	GinkgoHelper()
	Expect(live.Delete(context.Background(), object, client.GracePeriodSeconds(0))).To(Succeed())
}

func identity(namespace *corev1.Namespace, name string, change ...func(*meshv1alpha1.ServiceIdentitySpec)) *meshv1alpha1.ServiceIdentity {
	GinkgoHelper()
	object := &meshv1alpha1.ServiceIdentity{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace.Name, Name: name},
		Spec:       meshv1alpha1.ServiceIdentitySpec{ServiceAccountName: name},
	}
	for _, f := range change {
		f(&object.Spec)
	}
	Expect(live.Create(context.Background(), object)).To(Succeed())
	DeferCleanup(func() { // no operator runs any more that would drop the finalizer
		if live.Get(context.Background(), client.ObjectKeyFromObject(object), object) == nil {
			object.Finalizers = nil
			_ = live.Update(context.Background(), object)
			_ = live.Delete(context.Background(), object)
		}
	})
	return object
}

func path(path string) func(*meshv1alpha1.ServiceIdentitySpec) {
	return func(spec *meshv1alpha1.ServiceIdentitySpec) { spec.Path = path }
}

func partial(kind string) *metav1.PartialObjectMetadata {
	object := &metav1.PartialObjectMetadata{}
	object.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind(kind))
	return object
}

func entryID(object *meshv1alpha1.ServiceIdentity, node *corev1.Node) string {
	return fmt.Sprintf("pm1.%s.%s.%s.%s", lab.ClusterName, object.Namespace, object.Name, node.UID)
}

func aliasID(node *corev1.Node) string {
	return fmt.Sprintf("pm1.%s.node.%s", lab.ClusterName, node.UID)
}
