package controllers

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/workload"
	"github.com/jia-app/paymesh/internal/xds"
)

// MeshGatewayReconciler runs each MeshGateway and reports on it.
type MeshGatewayReconciler struct {
	*Deployer
}

var gatewayConditions = []string{
	meshv1alpha1.ConditionAccepted, meshv1alpha1.ConditionRegistered, meshv1alpha1.ConditionWorkloadReady, meshv1alpha1.ConditionProgrammed,
}

// Reconcile brings the objects of one MeshGateway in line with it.
func (r *MeshGatewayReconciler) Reconcile(ctx context.Context, key mesh.ProxyKey) (_ ctrl.Result, err error) {
	object := &meshv1alpha1.MeshGateway{}
	if err := r.Client.Get(ctx, key.NamespacedName, object); apierrors.IsNotFound(err) {
		return ctrl.Result{}, nil
	} else if err != nil {
		return ctrl.Result{}, fmt.Errorf("read MeshGateway %s: %w", key.NamespacedName, err)
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
	gateway, accepted := m.Gateway(key.NamespacedName)
	want := rendering{accepted: accepted}
	if accepted {
		_, resources, _ := r.Render(m, key)
		want.version = resources.Version()
		want.objects, want.problems = workload.Gateway(gateway, xds.GatewayFiles(gateway, r.Bootstrap), r.Workload)
	}
	applied := r.write(ctx, object, want)
	facts, err := r.observe(ctx, key, object)
	if err != nil {
		return ctrl.Result{}, errors.Join(applied, err)
	}
	facts.applied = applied
	r.conclude(object, gateway, want, problemsOf(key, problems, want.problems), facts)
	return r.result(applied)
}

// conclude sets the status from what is wanted and what there is.
func (r *MeshGatewayReconciler) conclude(object *meshv1alpha1.MeshGateway, gateway mesh.Gateway, want rendering, problems []mesh.Problem, f facts) {
	status := &object.Status
	status.ObservedGeneration = object.Generation
	if want.accepted {
		routes := int32(len(gateway.Routes)) //nolint:gosec // as many as exposures
		status.SPIFFEID, status.ConfigVersion, status.Routes = gateway.ID.String(), want.version, &routes
	}
	if f.deployment != nil {
		status.Replicas, status.Selector = f.deployment.Status.Replicas, metav1.FormatLabelSelector(f.deployment.Spec.Selector)
	}
	status.Proxies = proxyCount(f)
	j := judge{conditions: &status.Conditions, generation: object.Generation, problems: problems, want: want, facts: f}
	j.accepted(identityOf(object), want.accepted && gateway.Trusted, nil)
	j.registered(identityOf(object))
	j.workloadReady()
	j.programmed(true)
	setReady(&status.Conditions, object.Generation, gatewayConditions...)
}

// finalize takes away what a deleted MeshGateway made, and only then lets it go.
func (r *MeshGatewayReconciler) finalize(ctx context.Context, key mesh.ProxyKey, object *meshv1alpha1.MeshGateway) error {
	waiting, err := r.dismantle(ctx, key, object)
	if err != nil {
		return err
	}
	if waiting == "" {
		return r.release(ctx, object)
	}
	before := object.DeepCopy()
	setTerminating(&object.Status.Conditions, object.Generation, waiting)
	setReady(&object.Status.Conditions, object.Generation, gatewayConditions...)
	return r.report(ctx, before, object)
}

func (r *MeshGatewayReconciler) report(ctx context.Context, before, object *meshv1alpha1.MeshGateway) error {
	if equality.Semantic.DeepEqual(before.Status, object.Status) {
		return nil
	}
	return reporter{r.Client, r.Events}.report(ctx, before, object, before.Status.Conditions, object.Status.Conditions)
}

// SetupWithManager registers the controller and what wakes it: the objects that the Mesh of a MeshGateway is built from,
// those that it owns, its pods, and its proxies.
func (r *MeshGatewayReconciler) SetupWithManager(mgr ctrl.Manager) error {
	return r.controller(mgr, mesh.KindMeshGateway, "meshgateway").Complete(r)
}
