package controllers

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	ctrl "sigs.k8s.io/controller-runtime"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/workload"
	"github.com/jia-app/paymesh/internal/xds"
)

// +kubebuilder:rbac:groups=mesh.jia.app,resources=meshservices;meshgateways,verbs=list;watch;patch
// +kubebuilder:rbac:groups=mesh.jia.app,resources=meshservices/status;meshgateways/status,verbs=patch
// +kubebuilder:rbac:groups=mesh.jia.app,resources=meshservices/finalizers;meshgateways/finalizers,verbs=update
// +kubebuilder:rbac:groups=mesh.jia.app,resources=serviceidentities,verbs=get;create;delete
// +kubebuilder:rbac:groups=apps,resources=deployments,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups="",resources=configmaps;serviceaccounts;services,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups="",resources=persistentvolumeclaims,verbs=get;list;watch;create;patch
// +kubebuilder:rbac:groups=networking.k8s.io,resources=networkpolicies,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=policy,resources=poddisruptionbudgets,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=discovery.k8s.io,resources=endpointslices,verbs=list;watch

// meshWorkers reconcile that many MeshServices, or MeshGateways, at a time: enough to hide what the API server takes for a write.
const meshWorkers = 4

// MeshServiceReconciler runs the workload of each MeshService and reports on it.
type MeshServiceReconciler struct {
	*Deployer
}

var serviceConditions = []string{
	meshv1alpha1.ConditionAccepted, meshv1alpha1.ConditionRegistered, meshv1alpha1.ConditionWorkloadReady,
	meshv1alpha1.ConditionDependenciesResolved, meshv1alpha1.ConditionExposed, meshv1alpha1.ConditionProgrammed,
}

// Reconcile brings the objects of one MeshService in line with it.
func (r *MeshServiceReconciler) Reconcile(ctx context.Context, key mesh.ProxyKey) (_ ctrl.Result, err error) {
	object := &meshv1alpha1.MeshService{}
	if err := r.Client.Get(ctx, key.NamespacedName, object); apierrors.IsNotFound(err) {
		return ctrl.Result{}, nil
	} else if err != nil {
		return ctrl.Result{}, fmt.Errorf("read MeshService %s: %w", key.NamespacedName, err)
	}
	if !object.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, r.finalize(ctx, key, object)
	}
	if err := r.ensureFinalizer(ctx, object); err != nil {
		return ctrl.Result{}, err
	}
	before := object.DeepCopy()
	defer func() { err = errors.Join(err, r.report(ctx, before, object)) }()

	objects, err := r.World.Of(ctx, key)
	if err != nil {
		return ctrl.Result{}, err
	}
	m, problems := mesh.Build(objects)
	service, accepted := m.Service(key.NamespacedName)
	want := rendering{accepted: accepted}
	if accepted {
		_, resources, _ := r.Render(m, key)
		want.version = resources.Version()
		want.objects, want.problems = workload.Service(service, xds.SidecarFiles(service, r.Bootstrap), r.Workload)
	}
	applied := r.write(ctx, object, want)
	facts, err := r.observe(ctx, key, object)
	if err != nil {
		return ctrl.Result{}, errors.Join(applied, err)
	}
	facts.applied = applied
	addresses, err := addressesOf(ctx, r.Client, service)
	if err != nil {
		return ctrl.Result{}, errors.Join(applied, err)
	}
	r.conclude(object, service, want, problemsOf(key, problems, want.problems), facts)
	object.Status.Endpoints = countOf(service, addresses)
	return r.result(applied)
}

// conclude sets the status from what is wanted and what there is.
func (r *MeshServiceReconciler) conclude(object *meshv1alpha1.MeshService, service mesh.Service, want rendering, problems []mesh.Problem, f facts) {
	status, spec := &object.Status, &object.Spec
	status.ObservedGeneration = object.Generation
	if want.accepted {
		status.SPIFFEID, status.ConfigVersion = service.ID.String(), want.version
		status.Ports, status.Exposures = service.PortRecords(), service.Exposures
	}
	if f.deployment != nil {
		status.Replicas, status.Selector = f.deployment.Status.Replicas, metav1.FormatLabelSelector(f.deployment.Spec.Selector)
	}
	proxied := spec.DataPlane != meshv1alpha1.DataPlaneLibrary
	status.Proxies = nil
	if proxied {
		status.Proxies = proxyCount(f)
	}
	j := judge{conditions: &status.Conditions, generation: object.Generation, problems: problems, want: want, facts: f}
	j.accepted(identityOf(object), want.accepted && service.Trusted, service.UnusedAllows)
	j.registered(identityOf(object))
	j.workloadReady()
	j.resolved(len(spec.DependsOn) > 0)
	j.exposed(len(spec.Expose) > 0)
	j.programmed(proxied)
	setReady(&status.Conditions, object.Generation, serviceConditions...)
}

// finalize takes away what a deleted MeshService made, and only then lets it go.
func (r *MeshServiceReconciler) finalize(ctx context.Context, key mesh.ProxyKey, object *meshv1alpha1.MeshService) error {
	waiting, err := r.dismantle(ctx, key, object)
	if err != nil {
		return err
	}
	if waiting == "" {
		return r.release(ctx, object)
	}
	before := object.DeepCopy()
	setTerminating(&object.Status.Conditions, object.Generation, waiting)
	setReady(&object.Status.Conditions, object.Generation, serviceConditions...)
	return r.report(ctx, before, object)
}

func (r *MeshServiceReconciler) report(ctx context.Context, before, object *meshv1alpha1.MeshService) error {
	if equality.Semantic.DeepEqual(before.Status, object.Status) {
		return nil
	}
	return reporter{r.Client, r.Events}.report(ctx, before, object, before.Status.Conditions, object.Status.Conditions)
}

// countOf is how many pods the peers are told of; nil for a service that nobody can call.
func countOf(service mesh.Service, addresses map[string][]netip.AddrPort) *int32 {
	if len(service.Ports) == 0 {
		return nil
	}
	pods := sets.New[netip.Addr]()
	for _, list := range addresses {
		for _, address := range list {
			pods.Insert(address.Addr())
		}
	}
	count := int32(pods.Len()) //nolint:gosec // fewer than pods of a cluster
	return &count
}

// SetupWithManager registers the controller and what wakes it: the objects that the Mesh of a MeshService is built from,
// those that it owns, its pods, its endpoints, and its proxies.
func (r *MeshServiceReconciler) SetupWithManager(mgr ctrl.Manager) error {
	return r.controller(mgr, mesh.KindMeshService, "meshservice").Complete(r)
}
