// Package bench measures, on the real parts. Its benchmarks run by make targets and never as tests.
package bench

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
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
	identitiesPerNamespace = 100
	nodeCount              = 10
	workers                = 8
)

// world is a cluster of some size: an API server with identities, each with a pod, and a SPIRE server with their entries.
type world struct {
	b          *testing.B
	ctx        context.Context
	live       client.Client
	cached     client.Client
	metrics    *prometheus.Registry
	registry   *registry.Registry
	reconciler *controllers.ServiceIdentityReconciler
	keys       []client.ObjectKey
	nodes      []string
	// events counts the pods that podEvent has added.
	events int
}

// BenchmarkReconcile shows that what a reconcile costs does not grow with the cluster. "own" is the time of a
// reconcile without its calls to SPIRE, whose answer to a create takes longer the more it holds; "own-ratio" is that beside
// the first, smallest cluster in the same run.
func BenchmarkReconcile(b *testing.B) {
	ctrl.SetLogger(logr.Discard())
	baseline := map[string]float64{}
	sizes := []int{100, 10_000}
	for _, size := range sizes {
		b.Run(fmt.Sprintf("identities=%d", size), func(b *testing.B) {
			w := build(b, size)
			for _, kind := range []struct {
				name string
				run  func(*testing.B, *world)
			}{{"unchanged", unchanged}, {"pod-event", podEvent}} {
				name := kind.name
				b.Run(name, func(b *testing.B) {
					b.StopTimer()
					b.ResetTimer()
					before, spent := w.rpcs()
					kind.run(b, w)
					perOp := float64(b.Elapsed().Nanoseconds()) / float64(b.N)
					after, until := w.rpcs()
					inSPIRE := (until - spent) * 1e9 / float64(b.N)
					own := perOp - inSPIRE
					if size == sizes[0] { // Go calls with one iteration first: the last call counts
						baseline[name] = own
					}
					b.ReportMetric(float64(after-before)/float64(b.N), "rpcs/op")
					b.ReportMetric(inSPIRE, "spire-ns/op")
					b.ReportMetric(own, "own-ns/op")
					b.ReportMetric(own/baseline[name], "own-ratio")
				})
			}
		})
	}
}

// unchanged reconciles the same hundred identities again and again, for which all is right; the same number in every
// world, so that the processor's caches are as warm in each.
func unchanged(b *testing.B, w *world) {
	some := w.keys[:100]
	for range 5 {
		for _, key := range some { // warm up
			w.reconcile(key)
		}
	}
	b.StartTimer()
	for i := range b.N {
		w.reconcile(some[i%len(some)])
	}
	b.StopTimer()
}

// podEvent reconciles an identity that has a new pod on a node where it had none: up to the entry in SPIRE.
func podEvent(b *testing.B, w *world) {
	for range b.N {
		// Each round over the identities takes them one node further, from the one that they have.
		i, round := w.events%len(w.keys), w.events/len(w.keys)
		w.events++
		key := w.keys[i]
		pod := w.pod(key, w.nodes[(i+1+round)%nodeCount], "extra-")
		for seen := (&corev1.Pod{}); w.cached.Get(w.ctx, client.ObjectKeyFromObject(pod), seen) != nil; {
			time.Sleep(time.Millisecond) //nolint:forbidigo // off the clock: until the cache shows the pod
		}
		b.StartTimer()
		w.reconcile(key)
		b.StopTimer()
	}
}

func (w *world) reconcile(key client.ObjectKey) {
	if _, err := w.reconciler.Reconcile(w.ctx, ctrl.Request{NamespacedName: key}); err != nil {
		w.b.Fatal(err)
	}
}

// build makes a world in which every identity is registered.
func build(b *testing.B, size int) *world {
	b.Helper()
	w := &world{b: b, metrics: prometheus.NewRegistry()}
	var cancel context.CancelFunc
	w.ctx, cancel = context.WithCancel(context.Background())
	scheme := runtime.NewScheme()
	w.must(clientgoscheme.AddToScheme(scheme), meshv1alpha1.AddToScheme(scheme))
	id, err := mesh.NewClusterID(lab.TrustDomain, lab.ClusterName)
	w.must(err)
	apiServer, spireServer := lab.StartAPIServer(b), lab.StartSPIREServer(b, lab.SPIREOptions{CacheReload: 5 * time.Second})
	w.live, err = client.New(apiServer.Config, client.Options{Scheme: scheme})
	w.must(err)
	for i := range nodeCount {
		w.nodes = append(w.nodes, apiServer.CreateNode(b, fmt.Sprintf("node-%d", i)).Name)
	}
	w.populate(size)

	reader, err := cluster.New(apiServer.Config, func(o *cluster.Options) { o.Scheme, o.Cache = scheme, controllers.CacheOptions() })
	w.must(err, controllers.IndexIdentities(w.ctx, reader.GetFieldIndexer(), id))
	w.cached = reader.GetClient()
	api, err := spireclient.NewUnix(spireServer.Socket, w.metrics)
	w.must(err)
	w.registry = registry.New(api, id, registry.Options{AuditInterval: time.Hour, Logger: logr.Discard()}) // no audit in the figures
	w.reconciler = controllers.NewIdentities(w.cached, &events.FakeRecorder{}, controllers.IdentityOptions{
		Cluster: id, SPIRE: w.registry, Grace: time.Hour, BrakeCount: retention.DefaultBrakeCount, BrakeShare: retention.DefaultBrakeShare,
		DefaultTTL: time.Hour, CATTL: 24 * time.Hour, AgentTTL: time.Hour, RetryInterval: time.Hour, Clock: clock.RealClock{},
	}).Identities
	var running sync.WaitGroup
	for _, start := range []func(context.Context) error{reader.Start, w.registry.Start, api.Start} {
		running.Go(func() { _ = start(w.ctx) })
	}
	b.Cleanup(func() { cancel(); running.Wait() })
	lab.Eventually(b, time.Minute, func() error {
		if !reader.GetCache().WaitForCacheSync(w.ctx) || !w.registry.State().Synced {
			return fmt.Errorf("not filled yet: %+v", w.registry.State())
		}
		return nil
	})
	start := time.Now()
	w.each(w.keys, w.reconcile)
	lab.Eventually(b, time.Minute, func() error { // the cache shows the statuses, so that no reconcile writes one
		last := &meshv1alpha1.ServiceIdentity{}
		for _, key := range w.keys {
			if err := w.cached.Get(w.ctx, key, last); err != nil {
				return err
			}
			if len(last.Status.Conditions) == 0 {
				return fmt.Errorf("%s has no status yet", key)
			}
		}
		return nil
	})
	b.Logf("%d identities from nothing to Ready in %s", size, time.Since(start).Round(time.Millisecond))
	return w
}

// populate makes the identities, each with a pod.
func (w *world) populate(size int) {
	for i := range size {
		w.keys = append(w.keys, client.ObjectKey{Namespace: fmt.Sprintf("ns-%d", i/identitiesPerNamespace), Name: fmt.Sprintf("id-%d", i)})
	}
	for i := range (size + identitiesPerNamespace - 1) / identitiesPerNamespace {
		w.must(w.live.Create(w.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("ns-%d", i)}}))
	}
	number := map[client.ObjectKey]int{}
	for i, key := range w.keys {
		number[key] = i
	}
	w.each(w.keys, func(key client.ObjectKey) {
		w.must(w.live.Create(w.ctx, &meshv1alpha1.ServiceIdentity{
			ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name},
			Spec:       meshv1alpha1.ServiceIdentitySpec{ServiceAccountName: key.Name},
		}))
		w.pod(key, w.nodes[number[key]%nodeCount], "first-")
	})
}

func (w *world) pod(key client.ObjectKey, node, name string) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, GenerateName: name},
		Spec:       corev1.PodSpec{ServiceAccountName: key.Name, NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "c"}}},
	}
	w.must(w.live.Create(w.ctx, pod))
	return pod
}

// each calls f for every key, some at a time.
func (w *world) each(keys []client.ObjectKey, f func(client.ObjectKey)) {
	queue := make(chan client.ObjectKey)
	var running sync.WaitGroup
	for range workers {
		running.Go(func() {
			for key := range queue {
				f(key)
			}
		})
	}
	for _, key := range keys {
		queue <- key
	}
	close(queue)
	running.Wait()
}

// rpcs counts the calls to the SPIRE server, and adds up the seconds that they took.
func (w *world) rpcs() (count int, seconds float64) {
	families, err := w.metrics.Gather()
	w.must(err)
	for _, family := range families {
		if family.GetName() == "paymesh_spire_rpc_duration_seconds" {
			for _, metric := range family.GetMetric() {
				count += int(metric.GetHistogram().GetSampleCount())
				seconds += metric.GetHistogram().GetSampleSum()
			}
		}
	}
	return count, seconds
}

func (w *world) must(errs ...error) {
	w.b.Helper()
	for _, err := range errs {
		if err != nil {
			w.b.Fatal(err)
		}
	}
}
