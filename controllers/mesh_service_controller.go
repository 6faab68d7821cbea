package controllers

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
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
func (r *MeshServiceReconciler) Reconcile(ctx context.Context, key mesh.ProxyKey) (ctrl.Result, error) {
	object := &meshv1alpha1.MeshService{}
	return r.reconcile(ctx, key, object, serviceConditions, func() error {
		bare, err := r.bare(ctx, key)
		if err != nil {
			return err
		}
		var service mesh.Service
		done, err := r.deploy(ctx, key, object, func(m mesh.Mesh) (want rendering) {
			if service, want.accepted = m.Service(key.NamespacedName); want.accepted {
				shown := service
				if bare {
					shown = service.BesideLibrary()
				}
				want.objects, want.problems = workload.Service(shown, xds.SidecarFiles(service, r.Bootstrap), r.Workload)
			}
			return want
		})
		if err != nil {
			return err
		}
		addresses, err := addressesOf(ctx, r.Client, service)
		if err != nil {
			return errors.Join(done.facts.applied, err)
		}
		r.conclude(object, service, done)
		object.Status.Endpoints = countOf(service, addresses)
		return done.facts.applied
	})
}

// bare reports whether pods without a sidecar run, or end.
func (r *MeshServiceReconciler) bare(ctx context.Context, key mesh.ProxyKey) (bool, error) {
	pods, err := members(ctx, r.Client, key)
	return slices.ContainsFunc(pods, func(pod corev1.Pod) bool {
		started := len(pod.Status.ContainerStatuses) > 0 // else it is not known yet what it has, and nobody calls it
		return started && !slices.ContainsFunc(pod.Status.InitContainerStatuses, func(status corev1.ContainerStatus) bool { return status.Name == workload.ContainerProxy })
	}), err
}

// conclude sets the status from what is wanted and what there is.
func (r *MeshServiceReconciler) conclude(object *meshv1alpha1.MeshService, service mesh.Service, done deployed) {
	status, spec, want, f := &object.Status, &object.Spec, done.want, done.facts
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
	j := judge{conditions: &status.Conditions, generation: object.Generation, deployed: done}
	j.accepted(identityOf(object), want.accepted && service.Trusted, service.UnusedAllows)
	j.registered(identityOf(object))
	j.workloadReady()
	j.resolved(len(spec.DependsOn) > 0)
	j.exposed(len(spec.Expose) > 0)
	j.programmed(proxied)
	setReady(&status.Conditions, object.Generation, serviceConditions...)
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
