package controllers

import (
	"context"
	"fmt"
	"net/netip"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/xds/server"
)

// EndpointReconciler has the xDS server tell callers where the pods of each MeshService are. It runs on every replica of the
// manager. An endpoint that comes or goes costs no look at the neighbours.
type EndpointReconciler struct {
	Client  client.Client
	Cluster mesh.ClusterID
	Server  *server.Server

	first firstPass[mesh.ProxyKey]
	mu    sync.Mutex
	ports map[types.NamespacedName][]string // that have been told of
}

// Reconcile brings the addresses of one MeshService in line with its EndpointSlices.
func (r *EndpointReconciler) Reconcile(ctx context.Context, key mesh.ProxyKey) (ctrl.Result, error) {
	object := &meshv1alpha1.MeshService{}
	if err := r.Client.Get(ctx, key.NamespacedName, object); apierrors.IsNotFound(err) {
		r.tell(key.NamespacedName, nil)
		r.first.saw(key)
		return ctrl.Result{}, nil
	} else if err != nil {
		return ctrl.Result{}, fmt.Errorf("read MeshService %s: %w", key.NamespacedName, err)
	}
	service, identified, err := r.service(ctx, object)
	if err != nil {
		return ctrl.Result{}, err
	}
	if identified { // else nobody may call it, and whoever does keeps the addresses that were told
		addresses, err := addressesOf(ctx, r.Client, service)
		if err != nil {
			return ctrl.Result{}, err
		}
		r.tell(key.NamespacedName, addresses)
	}
	r.first.saw(key)
	return ctrl.Result{}, nil
}

// service is the model of a MeshService without its neighbours: its ports and its service account do not depend on them.
func (r *EndpointReconciler) service(ctx context.Context, object *meshv1alpha1.MeshService) (mesh.Service, bool, error) {
	objects := mesh.Objects{Cluster: r.Cluster, Services: []meshv1alpha1.MeshService{*object}}
	identity := &meshv1alpha1.ServiceIdentity{}
	if err := r.Client.Get(ctx, identityOf(object), identity); err == nil {
		objects.Identities = append(objects.Identities, *identity)
	} else if !apierrors.IsNotFound(err) {
		return mesh.Service{}, false, fmt.Errorf("read ServiceIdentity %s: %w", identityOf(object), err)
	}
	m, _ := mesh.Build(objects)
	service, ok := m.Service(client.ObjectKeyFromObject(object))
	return service, ok, nil
}

// tell tells of the addresses of each port, and that those are gone which had addresses before.
func (r *EndpointReconciler) tell(key types.NamespacedName, addresses map[string][]netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, port := range r.ports[key] {
		if _, still := addresses[port]; !still {
			r.Server.SetEndpoints(mesh.EndpointKey{Service: key, PortName: port}, nil)
		}
	}
	delete(r.ports, key)
	for port, list := range addresses {
		r.Server.SetEndpoints(mesh.EndpointKey{Service: key, PortName: port}, list)
		if r.ports == nil {
			r.ports = map[types.NamespacedName][]string{}
		}
		r.ports[key] = append(r.ports[key], port)
	}
}

// addressesOf are where the peers reach each port of a service, by its name.
func addressesOf(ctx context.Context, reader client.Reader, service mesh.Service) (map[string][]netip.AddrPort, error) {
	list := &discoveryv1.EndpointSliceList{}
	if err := reader.List(ctx, list, client.InNamespace(service.Key.Namespace), client.MatchingLabels{
		meshv1alpha1.LabelService: service.Key.Name, discoveryv1.LabelServiceName: service.Key.Name,
	}); err != nil {
		return nil, fmt.Errorf("list the EndpointSlices of MeshService %s: %w", service.Key, err)
	}
	var failed error
	accountOf := func(name string) (string, bool) {
		pod := &corev1.Pod{}
		err := reader.Get(ctx, types.NamespacedName{Namespace: service.Key.Namespace, Name: name}, pod)
		if client.IgnoreNotFound(err) != nil {
			failed = fmt.Errorf("read Pod %s/%s: %w", service.Key.Namespace, name, err)
		}
		return mesh.ServiceAccountOf(pod), err == nil
	}
	addresses := map[string][]netip.AddrPort{}
	for _, port := range service.Ports {
		addresses[port.Name] = mesh.Addresses(list.Items, port, service.ServiceAccountName, accountOf)
	}
	return addresses, failed
}

// SetupWithManager registers the controller on every replica, and what wakes it.
func (r *EndpointReconciler) SetupWithManager(mgr ctrl.Manager) error {
	t := meshTriggers{client: mgr.GetClient(), kind: mesh.KindMeshService}
	return named(mgr, builder.TypedControllerManagedBy[mesh.ProxyKey](mgr).Named("endpoints")).
		Watches(&meshv1alpha1.MeshService{}, t.handle(self), builder.WithPredicates(specChanges)).
		Watches(&meshv1alpha1.ServiceIdentity{}, t.handle(t.identity), builder.WithPredicates(claimChanges)).
		Watches(&discoveryv1.EndpointSlice{}, t.handle(slicesOf), builder.WithPredicates(endpointChanges)).
		Watches(&corev1.Pod{}, t.handle(pods), builder.WithPredicates(comesOrGoes)). // a slice may come before its pod
		WithOptions(controller.TypedOptions[mesh.ProxyKey]{MaxConcurrentReconciles: meshWorkers, NeedLeaderElection: ptr.To(false)}).
		Complete(r)
}
