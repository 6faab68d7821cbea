package controllers

import (
	"context"

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

	certificates certificates
}

var gatewayConditions = []string{
	meshv1alpha1.ConditionAccepted, meshv1alpha1.ConditionRegistered, meshv1alpha1.ConditionWorkloadReady, meshv1alpha1.ConditionProgrammed,
}

// Reconcile brings the objects of one MeshGateway in line with it.
func (r *MeshGatewayReconciler) Reconcile(ctx context.Context, key mesh.ProxyKey) (ctrl.Result, error) {
	object := &meshv1alpha1.MeshGateway{}
	var lacking []string
	result, err := r.reconcile(ctx, key, object, gatewayConditions, func() error {
		var gateway mesh.Gateway
		done, err := r.deploy(ctx, key, object, func(m mesh.Mesh) (want rendering) {
			if gateway, want.accepted = m.Gateway(key.NamespacedName); want.accepted {
				want.objects, want.problems = workload.Gateway(gateway, xds.GatewayFiles(gateway, r.Bootstrap), r.Workload)
			}
			return want
		})
		if err != nil {
			return err
		}
		lacking = r.certificates.lacking(ctx, gateway, done.facts.pods)
		done.facts.lacking = lacking
		r.conclude(object, gateway, done)
		return done.facts.applied
	})
	if err == nil && len(lacking) > 0 {
		result.RequeueAfter = certificateInterval
	}
	return result, err
}

// conclude sets the status from what is wanted and what there is.
func (r *MeshGatewayReconciler) conclude(object *meshv1alpha1.MeshGateway, gateway mesh.Gateway, done deployed) {
	status, want, f := &object.Status, done.want, done.facts
	status.ObservedGeneration = object.Generation
	if want.accepted {
		routes := int32(len(gateway.Routes)) //nolint:gosec // as many as exposures
		status.SPIFFEID, status.ConfigVersion, status.Routes = gateway.ID.String(), want.version, &routes
		status.Listeners = gateway.ListenerRecords(!f.renewed())
	}
	if f.deployment != nil {
		status.Replicas, status.Selector = f.deployment.Status.Replicas, metav1.FormatLabelSelector(f.deployment.Spec.Selector)
	}
	status.Proxies = proxyCount(f)
	j := judge{conditions: &status.Conditions, generation: object.Generation, deployed: done}
	j.accepted(identityOf(object), want.accepted && gateway.Trusted, nil)
	j.registered(identityOf(object))
	j.workloadReady()
	j.programmed(true)
	setReady(&status.Conditions, object.Generation, gatewayConditions...)
}

// SetupWithManager registers the controller and what wakes it: the objects that the Mesh of a MeshGateway is built from,
// those that it owns, its pods, and its proxies.
func (r *MeshGatewayReconciler) SetupWithManager(mgr ctrl.Manager) error {
	return r.controller(mgr, mesh.KindMeshGateway, "meshgateway").Complete(r)
}
