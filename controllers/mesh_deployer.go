package controllers

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/owned"
	"github.com/jia-app/paymesh/internal/workload"
	"github.com/jia-app/paymesh/internal/xds"
	"github.com/jia-app/paymesh/internal/xds/server"
)

// Deployer is what the reconcilers of MeshService and MeshGateway share: it writes the objects of an owner, reads what became
// of them, and takes them away in order.
type Deployer struct {
	Client  client.Client
	World   *World
	Objects *owned.Objects
	Proxies *server.Peers
	Events  events.EventRecorder
	// Workload and Bootstrap are the cluster's part of what is rendered.
	Workload  workload.Options
	Bootstrap xds.BootstrapOptions
	// Render is what the proxies get; that of the ProxyReconciler.
	Render Renderer
	// RetryInterval is how long to wait before an object that the API server refused, or that somebody else has, is tried
	// again: nothing tells when that ends.
	RetryInterval time.Duration
}

// Renderer gives what the proxies of a key get, and the SPIFFE ID that they have; false where the Mesh does not have it.
type Renderer func(m mesh.Mesh, key mesh.ProxyKey) (id spiffeid.ID, resources xds.Resources, ok bool)

// Render is the Renderer of every manager.
func Render(m mesh.Mesh, key mesh.ProxyKey) (spiffeid.ID, xds.Resources, bool) {
	if key.Kind == mesh.KindMeshGateway {
		g, ok := m.Gateway(key.NamespacedName)
		if !ok {
			return spiffeid.ID{}, xds.Resources{}, false
		}
		return g.ID, xds.Gateway(g), true
	}
	s, ok := m.Service(key.NamespacedName)
	if !ok {
		return spiffeid.ID{}, xds.Resources{}, false
	}
	return s.ID, xds.Sidecar(s), true
}

// rendering is what is wanted of an owner.
type rendering struct {
	// accepted is false where the Mesh does not have the owner: then nothing is wanted, and what there is stays.
	accepted bool
	objects  []workload.Object
	// problems are those of rendering the objects, some of which are then missing.
	problems []mesh.Problem
	version  string // of what its proxies get
}

// facts are what there is of an owner.
type facts struct {
	// applied is why the wanted objects are not all there.
	applied    error
	deployment *appsv1.Deployment
	// leaving are the claims of its volumes that somebody deletes.
	leaving []types.NamespacedName
	// behind says that the Deployment is not yet the one that was applied: the cache has not shown it.
	behind   bool
	pods     []corev1.Pod // that are not being deleted
	identity *meshv1alpha1.ServiceIdentity
	proxies  map[string]server.Proxy // by pod
	served   string                  // the version that the proxies are given
	unserved error                   // why they are not given what is rendered
	peers    []server.PeerState
	lacking  []string // what listeners lack to take connections
}

// deployed is what came of writing what is wanted.
type deployed struct {
	want     rendering
	problems []mesh.Problem // of the owner
	facts    facts
}

// reconcile reads an owner into object and has work done on it, with a finalizer from before the first write and a status
// whatever the outcome; or takes away what a deleted one made. Work sets the status, as far as it gets, and returns why not
// everything is written.
func (d *Deployer) reconcile(ctx context.Context, key mesh.ProxyKey, object client.Object, conditions []string, work func() error) (ctrl.Result, error) {
	if err := d.Client.Get(ctx, key.NamespacedName, object); apierrors.IsNotFound(err) {
		return ctrl.Result{}, nil
	} else if err != nil {
		return ctrl.Result{}, fmt.Errorf("read %s %s: %w", key.Kind, key.NamespacedName, err)
	}
	if !object.GetDeletionTimestamp().IsZero() {
		return ctrl.Result{}, d.finalize(ctx, key, object, conditions)
	}
	if err := (finalizer{d.Client, meshv1alpha1.FinalizerWorkload}).ensure(ctx, object); err != nil {
		return ctrl.Result{}, err
	}
	before := object.DeepCopyObject().(client.Object) //nolint:forcetypeassert // it is one
	result, err := d.result(work())
	return result, errors.Join(err, reporter{d.Client, d.Events}.report(ctx, before, object))
}

// finalize takes away what a deleted owner made, and only then lets it go.
func (d *Deployer) finalize(ctx context.Context, key mesh.ProxyKey, object client.Object, conditions []string) error {
	waiting, err := d.dismantle(ctx, key, object)
	if err != nil {
		return err
	}
	if waiting == "" {
		d.Objects.Forget(object)
		return finalizer{d.Client, meshv1alpha1.FinalizerWorkload}.drop(ctx, object)
	}
	before := object.DeepCopyObject().(client.Object) //nolint:forcetypeassert // it is one
	setTerminating(conditionsOf(object), object.GetGeneration(), waiting)
	setReady(conditionsOf(object), object.GetGeneration(), conditions...)
	return reporter{d.Client, d.Events}.report(ctx, before, object)
}

// deploy builds the Mesh around an owner, writes what is rendered of it, and reads what there is then.
func (d *Deployer) deploy(ctx context.Context, key mesh.ProxyKey, owner client.Object, render func(mesh.Mesh) rendering) (deployed, error) {
	objects, err := d.World.Of(ctx, key)
	if err != nil {
		return deployed{}, err
	}
	m, problems := mesh.Build(objects)
	want := render(m)
	if want.accepted {
		_, resources, _ := d.Render(m, key)
		want.version = resources.Version()
	}
	applied := d.apply(ctx, owner, want)
	facts, err := d.observe(ctx, key, owner)
	if facts.applied = applied; err == nil && applied == nil {
		facts.applied = d.prune(ctx, owner, want, facts)
	}
	if err == nil {
		facts.leaving, err = d.Objects.Leaving(ctx, owner, want.all(), want.accepted)
	}
	if err != nil {
		return deployed{}, errors.Join(applied, err)
	}
	return deployed{want: want, problems: problemsOf(key, problems, want.problems), facts: facts}, nil
}

// apply makes the owner's objects what is rendered.
func (d *Deployer) apply(ctx context.Context, owner client.Object, r rendering) error {
	if !r.accepted {
		return nil
	}
	want := r.all()
	claims := owned.Claims(want)
	before := d.Objects.UIDs(claims)
	err := d.Objects.Apply(ctx, owner, want)
	d.tellLost(owner, claims, before)
	return err
}

// prune deletes what is not wanted any more, once all that is wanted is there: ConfigMaps last, when no pod of an older
// revision is left that mounts them, or whose node may have to mount them again.
func (d *Deployer) prune(ctx context.Context, owner client.Object, r rendering, f facts) error {
	switch {
	case !r.accepted || len(r.problems) > 0:
		return nil
	case !f.renewed():
		return d.Objects.Prune(ctx, owner, r.all(), owned.ConfigMapKind)
	}
	return d.Objects.Prune(ctx, owner, r.all())
}

// all are the objects, as the API server's client has them.
func (r rendering) all() []client.Object {
	all := make([]client.Object, len(r.objects))
	for i, object := range r.objects {
		all[i] = object
	}
	return all
}

// observe reads what there is of an owner.
func (d *Deployer) observe(ctx context.Context, key mesh.ProxyKey, owner client.Object) (f facts, err error) {
	if f.deployment, err = deploymentOf(ctx, d.Client, owner); err != nil {
		return f, err
	}
	f.behind = f.deployment != nil && !d.Objects.Shows(owned.DeploymentKind, f.deployment)
	pods, err := members(ctx, d.Client, key)
	if err != nil {
		return f, err
	}
	f.pods = staying(pods)
	identity := &meshv1alpha1.ServiceIdentity{}
	if err := d.Client.Get(ctx, identityOf(owner), identity); err == nil {
		f.identity = identity
	} else if !apierrors.IsNotFound(err) {
		return f, fmt.Errorf("read ServiceIdentity %s: %w", identityOf(owner), err)
	}
	f.served, f.unserved = d.Proxies.Version(key), d.Proxies.Problem(key)
	f.peers, f.proxies = d.Proxies.State(), map[string]server.Proxy{}
	for _, proxy := range d.Proxies.Proxies(key) {
		f.proxies[proxy.Pod] = proxy
	}
	return f, nil
}

// result turns what kept the objects from being written into when to try again. What the user has to act on is in the
// conditions, and is tried again after a while; everything else is an error, with backoff.
func (d *Deployer) result(applied error) (ctrl.Result, error) {
	switch {
	case applied == nil:
		return ctrl.Result{}, nil
	case stalled(applied):
		return ctrl.Result{RequeueAfter: d.RetryInterval}, nil
	}
	return ctrl.Result{}, applied
}

// stalled reports whether somebody has to act: an object is somebody else's, or the API server does not take it as it is.
func stalled(err error) bool {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, one := range joined.Unwrap() {
			if !stalled(one) {
				return false
			}
		}
		return true
	}
	return errors.Is(err, owned.ErrForeign) || apierrors.IsInvalid(err) || apierrors.IsForbidden(err) || apierrors.IsBadRequest(err)
}

// dismantle takes away what a deleted owner made: its pods, then the config of their proxies, then its identity with its
// entries. It says what it waits for; with nothing left to wait for, the owner may go, and the rest of its objects with it.
func (d *Deployer) dismantle(ctx context.Context, key mesh.ProxyKey, owner client.Object) (waiting string, err error) {
	gone, err := d.Objects.Remove(ctx, owner, owned.DeploymentKind)
	if err != nil {
		return "", err
	}
	pods, err := members(ctx, d.Client, key)
	if err != nil {
		return "", err
	}
	if len(pods) > 0 {
		return "its pods end: " + names(podNames(pods)), nil
	}
	if !gone {
		return "its Deployment is being deleted", nil
	}
	if d.Proxies.Version(key) != "" {
		return "the config of its proxies is being withdrawn", nil
	}
	if gone, err = d.Objects.Remove(ctx, owner, owned.IdentityKind); err != nil {
		return "", err
	}
	if !gone {
		key := identityOf(owner)
		return fmt.Sprintf("the entries of its ServiceIdentity are being deleted from the SPIRE server: see kubectl describe -n %s serviceidentity/%s", key.Namespace, key.Name), nil
	}
	return "", nil
}

// problemsOf are the problems of a key.
func problemsOf(key mesh.ProxyKey, lists ...[]mesh.Problem) []mesh.Problem {
	var own []mesh.Problem
	for _, list := range lists {
		for _, problem := range list {
			if problem.Kind == key.Kind && problem.Object == key.NamespacedName {
				own = append(own, problem)
			}
		}
	}
	return own
}

// said are the messages of the problems of a condition, and the reason of the first.
func said(problems []mesh.Problem, condition string) (reason, message string) {
	var messages []string
	for _, problem := range problems {
		if problem.Condition != condition {
			continue
		}
		if reason == "" {
			reason = problem.Reason
		}
		messages = append(messages, problem.Message)
	}
	return reason, strings.Join(messages, "; ")
}

func podNames(pods []corev1.Pod) []string {
	list := make([]string, len(pods))
	for i := range pods {
		list[i] = pods[i].Name
	}
	return list
}

func proxyKey(kind string, key types.NamespacedName) mesh.ProxyKey {
	return mesh.ProxyKey{Kind: kind, NamespacedName: key}
}

// controller is a controller of one of the kinds: woken by what the Mesh is built from, by its objects, and by its proxies.
func (d *Deployer) controller(mgr ctrl.Manager, kind, name string) *builder.TypedBuilder[mesh.ProxyKey] {
	t := meshTriggers{client: mgr.GetClient(), kind: kind}
	var object client.Object = &meshv1alpha1.MeshService{}
	if kind == mesh.KindMeshGateway {
		object = &meshv1alpha1.MeshGateway{}
	}
	b := t.watch(builder.TypedControllerManagedBy[mesh.ProxyKey](mgr).Named(name)).
		Watches(object, t.handle(self)). // every update: a status or a finalizer changed by hand is put right too
		Watches(&meshv1alpha1.ServiceIdentity{}, t.handle(t.identity)).
		Watches(&corev1.Pod{}, t.handle(pods)).
		WatchesRawSource(t.reports(d.Proxies))
	if kind == mesh.KindMeshService {
		b = b.Watches(&discoveryv1.EndpointSlice{}, t.handle(slicesOf))
	}
	for _, owns := range owned.Kinds() {
		b = b.Watches(owns.Object(), t.handle(ownerOf))
	}
	return named(mgr, b).WithOptions(controller.TypedOptions[mesh.ProxyKey]{MaxConcurrentReconciles: meshWorkers})
}

// named has each line of a controller's log name the object.
func named(mgr ctrl.Manager, b *builder.TypedBuilder[mesh.ProxyKey]) *builder.TypedBuilder[mesh.ProxyKey] {
	return b.WithLogConstructor(func(key *mesh.ProxyKey) logr.Logger {
		if key == nil {
			return mgr.GetLogger()
		}
		return mgr.GetLogger().WithValues("kind", key.Kind, "namespace", key.Namespace, "name", key.Name)
	})
}
