package controllers

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/source"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/owned"
	"github.com/jia-app/paymesh/internal/workload"
	"github.com/jia-app/paymesh/internal/xds/server"
)

// meshTriggers say whose Mesh an event concerns: the way back of World.Of. They read the cache only, by index. Of an update
// the old object is asked, too, so that who was a neighbour is told.
type meshTriggers struct {
	client client.Reader
	// kind is whose keys are of interest; empty for both.
	kind string
}

type (
	keyMap     = handler.TypedMapFunc[client.Object, mesh.ProxyKey]
	keyHandler = handler.TypedEventHandler[client.Object, mesh.ProxyKey]
)

// handle makes of a mapping what a watch calls.
func (t meshTriggers) handle(f keyMap) keyHandler {
	return handler.TypedEnqueueRequestsFromMapFunc(func(ctx context.Context, object client.Object) []mesh.ProxyKey {
		return slices.DeleteFunc(f(ctx, object), func(key mesh.ProxyKey) bool { return !t.concerns(key) })
	})
}

func (t meshTriggers) concerns(key mesh.ProxyKey) bool { return t.kind == "" || key.Kind == t.kind }

// watch adds what the Mesh of a key is built from to what wakes a controller.
func (t meshTriggers) watch(b *builder.TypedBuilder[mesh.ProxyKey]) *builder.TypedBuilder[mesh.ProxyKey] {
	return b.
		Watches(&meshv1alpha1.MeshService{}, t.handle(t.neighbours), builder.WithPredicates(specChanges)).
		Watches(&meshv1alpha1.MeshGateway{}, t.handle(t.neighbours), builder.WithPredicates(specChanges)).
		Watches(&meshv1alpha1.ServiceIdentity{}, t.handle(t.identified), builder.WithPredicates(claimChanges)).
		WatchesMetadata(&corev1.ConfigMap{}, t.handle(t.referring)).
		Watches(&corev1.Pod{}, t.handle(t.drained), builder.WithPredicates(comesOrGoes))
}

// neighbours are the key of a MeshService or a MeshGateway, and those whose Mesh it is part of.
func (t meshTriggers) neighbours(ctx context.Context, object client.Object) []mesh.ProxyKey {
	key := client.ObjectKeyFromObject(object)
	service, ok := object.(*meshv1alpha1.MeshService)
	if !ok {
		return append(t.services(ctx, byGateway, key), proxyKey(mesh.KindMeshGateway, key))
	}
	keys := append(t.services(ctx, byCallee, key), proxyKey(mesh.KindMeshService, key))
	for _, callee := range calleesOf(service) {
		keys = append(keys, proxyKey(mesh.KindMeshService, callee))
	}
	for _, gateway := range gatewaysOf(service) {
		keys = append(keys, proxyKey(mesh.KindMeshGateway, gateway))
		keys = append(keys, t.services(ctx, byGateway, gateway)...) // who came first may have changed
	}
	return keys
}

// identified are those that have a ServiceIdentity, with their neighbours: these rely on it.
func (t meshTriggers) identified(ctx context.Context, identity client.Object) []mesh.ProxyKey {
	return t.around(ctx, byIdentity, identity)
}

// referring are those that refer to a ConfigMap, with their neighbours: a descriptor set says what a gateway serves.
func (t meshTriggers) referring(ctx context.Context, configMap client.Object) []mesh.ProxyKey {
	return t.around(ctx, byConfigMap, configMap)
}

// around are the objects that an index has for an object, with their neighbours.
func (t meshTriggers) around(ctx context.Context, index string, object client.Object) []mesh.ProxyKey {
	var keys []mesh.ProxyKey
	for _, list := range []client.ObjectList{&meshv1alpha1.MeshServiceList{}, &meshv1alpha1.MeshGatewayList{}} {
		for _, found := range t.list(ctx, list, index, client.ObjectKeyFromObject(object)) {
			keys = append(keys, t.neighbours(ctx, found)...)
		}
	}
	return keys
}

func (t meshTriggers) services(ctx context.Context, index string, key types.NamespacedName) []mesh.ProxyKey {
	var keys []mesh.ProxyKey
	for _, object := range t.list(ctx, &meshv1alpha1.MeshServiceList{}, index, key) {
		keys = append(keys, proxyKey(mesh.KindMeshService, client.ObjectKeyFromObject(object)))
	}
	return keys
}

func (t meshTriggers) list(ctx context.Context, list client.ObjectList, index string, key types.NamespacedName) []client.Object {
	var objects []client.Object
	err := t.client.List(ctx, list, client.MatchingFields{index: key.String()})
	if err == nil {
		err = meta.EachListItem(list, func(item runtime.Object) error {
			objects = append(objects, item.(client.Object)) //nolint:forcetypeassert // items of these lists are
			return nil
		})
	}
	if err != nil { // the cache answers from memory: only a list without the index fails
		log.FromContext(ctx).Error(err, "cannot find who refers to an object", "index", index, "object", key)
	}
	return objects
}

// pods are whose pod an object is.
func pods(_ context.Context, pod client.Object) []mesh.ProxyKey {
	if key, ok := memberOf(pod); ok {
		return []mesh.ProxyKey{key}
	}
	return nil
}

// drained are whose pod an object is, where they are being deleted: their proxies are served until the last pod is gone.
func (t meshTriggers) drained(ctx context.Context, pod client.Object) []mesh.ProxyKey {
	return slices.DeleteFunc(pods(ctx, pod), func(key mesh.ProxyKey) bool {
		var object client.Object = &meshv1alpha1.MeshService{}
		if key.Kind == mesh.KindMeshGateway {
			object = &meshv1alpha1.MeshGateway{}
		}
		return t.client.Get(ctx, key.NamespacedName, object) == nil && object.GetDeletionTimestamp().IsZero()
	})
}

// slicesOf are whose endpoints an EndpointSlice has.
func slicesOf(_ context.Context, slice client.Object) []mesh.ProxyKey {
	if key, ok := labelled(slice); ok {
		return []mesh.ProxyKey{key}
	}
	return nil
}

// ownerOf is the key of who owns an object, or of whom a claim is that is to outlive its owner.
func ownerOf(_ context.Context, object client.Object) []mesh.ProxyKey {
	owner := metav1.GetControllerOf(object)
	if key, ok := labelled(object); ok && owner == nil && workload.Retained(object) {
		return []mesh.ProxyKey{key}
	}
	if owner == nil || owner.APIVersion != meshv1alpha1.GroupVersion.String() {
		return nil
	}
	return []mesh.ProxyKey{proxyKey(owner.Kind, types.NamespacedName{Namespace: object.GetNamespace(), Name: owner.Name})}
}

// identity are those that have a ServiceIdentity: they pass on what it says.
func (t meshTriggers) identity(ctx context.Context, identity client.Object) []mesh.ProxyKey {
	key := client.ObjectKeyFromObject(identity)
	keys := t.services(ctx, byIdentity, key)
	for _, object := range t.list(ctx, &meshv1alpha1.MeshGatewayList{}, byIdentity, key) {
		keys = append(keys, proxyKey(mesh.KindMeshGateway, client.ObjectKeyFromObject(object)))
	}
	return keys
}

// self is the key of a MeshService or a MeshGateway.
func self(_ context.Context, object client.Object) []mesh.ProxyKey {
	return []mesh.ProxyKey{proxyKey(owned.KindOf(object), client.ObjectKeyFromObject(object))}
}

// reports wakes those of whose proxies something is new.
func (t meshTriggers) reports(proxies *server.Peers) source.TypedSource[mesh.ProxyKey] {
	return wakes(func(_ context.Context, add func(...mesh.ProxyKey)) {
		proxies.Notify(func(key mesh.ProxyKey) {
			if t.concerns(key) {
				add(key)
			}
		})
	})
}

// specChanges lets through what changes what an object wants, and of its status what every replica builds on: the record of
// what it has.
var specChanges = updatesWhere(func(e event.UpdateEvent) bool {
	if !equality.Semantic.DeepEqual(recordsOf(e.ObjectOld), recordsOf(e.ObjectNew)) {
		return true
	}
	return e.ObjectOld.GetUID() != e.ObjectNew.GetUID() || e.ObjectOld.GetGeneration() != e.ObjectNew.GetGeneration() ||
		e.ObjectOld.GetDeletionTimestamp().IsZero() != e.ObjectNew.GetDeletionTimestamp().IsZero()
})

// recordsOf are what is recorded of an object in its status.
func recordsOf(object client.Object) []any {
	switch o := object.(type) {
	case *meshv1alpha1.MeshService:
		return []any{o.Status.Ports, o.Status.Exposures}
	case *meshv1alpha1.MeshGateway:
		return []any{o.Status.Listeners}
	}
	return nil
}

// endpointChanges lets through what changes who is called where.
var endpointChanges = updatesWhere(func(e event.UpdateEvent) bool {
	before, ok := e.ObjectOld.(*discoveryv1.EndpointSlice)
	after, ok2 := e.ObjectNew.(*discoveryv1.EndpointSlice)
	return !ok || !ok2 || !equality.Semantic.DeepEqual(before.Endpoints, after.Endpoints) || !equality.Semantic.DeepEqual(before.Ports, after.Ports) ||
		!equality.Semantic.DeepEqual(before.Labels, after.Labels)
})
