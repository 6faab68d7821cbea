package controllers

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/xds/server"
)

// ProxyReconciler has the xDS server give the proxies of each MeshService and MeshGateway what they need. It runs on every
// replica of the manager, and writes nothing else.
type ProxyReconciler struct {
	Client client.Client
	World  *World
	Server *server.Server
	Render Renderer

	first firstPass[mesh.ProxyKey]
}

// Reconcile brings what the proxies of a key are given in line with the objects. Where those cannot be read, or refuse the
// key its identity, its proxies keep what they were given.
func (r *ProxyReconciler) Reconcile(ctx context.Context, key mesh.ProxyKey) (ctrl.Result, error) {
	objects, err := r.World.Of(ctx, key)
	if err != nil {
		return ctrl.Result{}, err
	}
	switch object := objectOf(objects, key); {
	case object == nil:
		r.Server.Remove(key)
	case !object.GetDeletionTimestamp().IsZero():
		err = r.drain(ctx, key, objects)
	default:
		err = r.serve(key, objects)
	}
	if err != nil {
		return ctrl.Result{}, err
	}
	r.first.saw(key)
	return ctrl.Result{}, nil
}

// drain serves the proxies of an object that is being deleted to the last of them.
func (r *ProxyReconciler) drain(ctx context.Context, key mesh.ProxyKey, objects mesh.Objects) error {
	pods, err := members(ctx, r.Client, key)
	if err != nil {
		return err
	}
	if len(pods) > 0 {
		return r.serve(key, objects)
	}
	r.Server.Remove(key)
	return nil
}

func (r *ProxyReconciler) serve(key mesh.ProxyKey, objects mesh.Objects) error {
	m, _ := mesh.Build(objects)
	id, resources, ok := r.Render(m, key)
	if !ok {
		return nil
	}
	if err := r.Server.Set(key, id, resources); err != nil {
		r.first.saw(key) // the others do not wait for what will not come right by itself
		return reconcile.TerminalError(fmt.Errorf("render %s: %w", key, err))
	}
	return nil
}

// objectOf is the object of a key; nil where there is none.
func objectOf(objects mesh.Objects, key mesh.ProxyKey) metav1.Object {
	if key.Kind == mesh.KindMeshGateway {
		for i := range objects.Gateways {
			if client.ObjectKeyFromObject(&objects.Gateways[i]) == key.NamespacedName {
				return &objects.Gateways[i]
			}
		}
		return nil
	}
	for i := range objects.Services {
		if client.ObjectKeyFromObject(&objects.Services[i]) == key.NamespacedName {
			return &objects.Services[i]
		}
	}
	return nil
}

// SetupWithManager registers the controller on every replica, and what wakes it.
func (r *ProxyReconciler) SetupWithManager(mgr ctrl.Manager) error {
	t := meshTriggers{client: mgr.GetClient()}
	return named(mgr, t.watch(builder.TypedControllerManagedBy[mesh.ProxyKey](mgr).Named("proxies"))).
		WithOptions(controller.TypedOptions[mesh.ProxyKey]{MaxConcurrentReconciles: meshWorkers, NeedLeaderElection: ptr.To(false)}).
		Complete(r)
}
