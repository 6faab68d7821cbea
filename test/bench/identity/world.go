package main

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"golang.org/x/sync/errgroup"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/spire"
	"github.com/jia-app/paymesh/test/bench/identity/figures"
	"github.com/jia-app/paymesh/test/lab"
)

const (
	identitiesPerNamespace = 100
	// apiWriters is how many requests the bench has under way at the API server when it makes many objects.
	apiWriters = 8
	// The namespaces of the identities that events and SVIDs are about.
	eventsNamespace, svidsNamespace = "events", "svids"
)

// world is an API server with nodes, a SPIRE server and an agent, and the manager while it runs.
type world struct {
	ctx      context.Context
	t        *lifetime
	settings figures.Settings
	binary   string
	cluster  mesh.ClusterID
	api      *lab.APIServer
	spire    *lab.SPIREServer
	bare     *bare
	live     client.Client
	// nodes run the pods of the identities; agent is that of another one, which runs the manager too.
	nodes     []*corev1.Node
	agent     *lab.Agent
	agentNode *corev1.Node
	manager   *lab.Manager
	// subjects are the identities that come from nothing, and wanted their entries with the aliases of all nodes.
	subjects []subject
	wanted   []spire.Entry
}

// subject is a ServiceIdentity with the node of its pod; both objects have the same name.
type subject struct {
	client.ObjectKey
	node *corev1.Node
}

func newWorld(ctx context.Context, t *lifetime, settings figures.Settings, binary string) *world {
	w := &world{ctx: ctx, t: t, settings: settings, binary: binary}
	var err error
	if w.cluster, err = mesh.NewClusterID(lab.TrustDomain, lab.ClusterName); err != nil {
		t.Fatalf("%v", err)
	}
	w.api = lab.StartAPIServer(t)
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, meshv1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatalf("%v", err)
		}
	}
	if w.live, err = client.New(w.api.Config, client.Options{Scheme: scheme}); err != nil {
		t.Fatalf("make a client of the API server: %v", err)
	}
	w.spire = lab.StartSPIREServer(t, lab.SPIREOptions{
		APIServer: w.api, CacheReload: fromMillis(settings.CacheReloadMillis), EventsBasedCache: settings.EventsBasedCache,
		LogLevel: "INFO", Telemetry: true, // DEBUG would write lines for each entry
	})
	w.bare = newBare(t, w.spire.Socket)
	w.agentNode = w.api.CreateNode(t, "agent")
	w.agent = w.spire.StartAgent(t, w.agentNode)
	w.spire.AddUnixEntry(t, w.agent, w.cluster.OperatorID().Path())
	for i := range settings.Nodes {
		w.nodes = append(w.nodes, w.api.CreateNode(t, fmt.Sprintf("node-%d", i)))
	}
	return w
}

func (w *world) version() (string, error) {
	version, err := w.api.Clients.Discovery().ServerVersion()
	if err != nil {
		return "", fmt.Errorf("ask the API server for its version: %w", err)
	}
	return version.GitVersion, nil
}

// fill makes the foreign entries, and takes the time for a single one there.
func (w *world) fill(size *figures.Size) error {
	took, err := w.bare.create(w.ctx, foreign(size.Foreign))
	if err != nil {
		return err
	}
	size.Fill = figures.NewRate(size.Foreign, took)
	size.BareSingle, err = w.single()
	return err
}

// populate makes the identities that come from nothing, and their pods.
func (w *world) populate(*figures.Size) error {
	for i := range w.settings.Identities {
		key := client.ObjectKey{Namespace: fmt.Sprintf("ns-%d", i/identitiesPerNamespace), Name: fmt.Sprintf("id-%d", i)}
		w.subjects = append(w.subjects, subject{key, w.nodes[i%len(w.nodes)]})
	}
	namespaces := []string{eventsNamespace, svidsNamespace}
	for i := 0; i < len(w.subjects); i += identitiesPerNamespace {
		namespaces = append(namespaces, w.subjects[i].Namespace)
	}
	for _, name := range namespaces {
		if err := w.live.Create(w.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
			return fmt.Errorf("create Namespace %s: %w", name, err)
		}
	}
	for _, s := range w.subjects {
		w.wanted = append(w.wanted, w.entriesOf(s, s.node)...)
	}
	var nodes []metav1.PartialObjectMetadata
	for _, node := range append([]*corev1.Node{w.agentNode}, w.nodes...) {
		nodes = append(nodes, metav1.PartialObjectMetadata{ObjectMeta: node.ObjectMeta})
	}
	m, _ := mesh.Build(mesh.Objects{Cluster: w.cluster, Nodes: nodes})
	w.wanted = append(w.wanted, spire.Entries(m)...)
	return each(w.ctx, apiWriters, w.subjects, func(ctx context.Context, s subject) error {
		if err := w.createPod(ctx, s, s.Name, s.node); err != nil {
			return err
		}
		return w.createIdentity(ctx, s)
	})
}

// entriesOf are the entries that the manager is to make for a subject with a pod on the node, as it renders them.
func (w *world) entriesOf(s subject, node *corev1.Node) []spire.Entry {
	m, _ := mesh.Build(mesh.Objects{
		Cluster: w.cluster, Identities: []meshv1alpha1.ServiceIdentity{*identityOf(s)},
		Namespaces: []metav1.PartialObjectMetadata{{ObjectMeta: metav1.ObjectMeta{Name: s.Namespace}}},
		Pods:       []corev1.Pod{*podOf(s, s.Name, node)},
		Nodes:      []metav1.PartialObjectMetadata{{ObjectMeta: node.ObjectMeta}},
	})
	m.Nodes = nil // their aliases are there already
	return spire.Entries(m)
}

func identityOf(s subject) *meshv1alpha1.ServiceIdentity {
	return &meshv1alpha1.ServiceIdentity{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name},
		Spec:       meshv1alpha1.ServiceIdentitySpec{ServiceAccountName: s.Name},
	}
}

func podOf(s subject, name string, node *corev1.Node) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: name},
		Spec:       corev1.PodSpec{ServiceAccountName: s.Name, NodeName: node.Name, Containers: []corev1.Container{{Name: "c", Image: "c"}}},
	}
}

func (w *world) createIdentity(ctx context.Context, s subject) error {
	if err := w.live.Create(ctx, identityOf(s)); err != nil {
		return fmt.Errorf("create ServiceIdentity %s: %w", s.ObjectKey, err)
	}
	return nil
}

func (w *world) createPod(ctx context.Context, s subject, name string, node *corev1.Node) error {
	if err := w.live.Create(ctx, podOf(s, name, node)); err != nil {
		return fmt.Errorf("create Pod %s/%s: %w", s.Namespace, name, err)
	}
	return nil
}

// deletePod has it gone at once: there is no kubelet to wait for.
func (w *world) deletePod(ctx context.Context, s subject) error {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name}}
	if err := w.live.Delete(ctx, pod, &client.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}); err != nil {
		return fmt.Errorf("delete Pod %s: %w", s.ObjectKey, err)
	}
	return nil
}

// each calls f for all subjects, some at a time.
func each(ctx context.Context, atATime int, subjects []subject, f func(context.Context, subject) error) error {
	running, ctx := errgroup.WithContext(ctx)
	running.SetLimit(atATime)
	for _, s := range subjects {
		running.Go(func() error { return f(ctx, s) })
	}
	return running.Wait()
}
