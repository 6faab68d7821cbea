package controllers

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"sigs.k8s.io/controller-runtime/pkg/client"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/descriptor"
	"github.com/jia-app/paymesh/internal/mesh"
)

// The indexes by which neighbours are found.
const (
	byCallee    = "spec.dependsOn.service" // MeshServices
	byGateway   = "spec.expose.gateway"    // MeshServices
	byIdentity  = "spec.identity.name"     // MeshServices and MeshGateways
	byConfigMap = "configMap"              // MeshServices and MeshGateways
)

// IndexMesh adds the indexes that a World needs to a cache. Call it once, before the cache is started.
func IndexMesh(ctx context.Context, indexer client.FieldIndexer) error {
	identity := func(object client.Object) []types.NamespacedName { return []types.NamespacedName{identityOf(object)} }
	for _, index := range []struct {
		object client.Object
		field  string
		keys   func(client.Object) []types.NamespacedName
	}{
		{&meshv1alpha1.MeshService{}, byCallee, func(o client.Object) []types.NamespacedName { return calleesOf(o.(*meshv1alpha1.MeshService)) }},
		{&meshv1alpha1.MeshService{}, byGateway, func(o client.Object) []types.NamespacedName { return gatewaysOf(o.(*meshv1alpha1.MeshService)) }},
		{&meshv1alpha1.MeshService{}, byIdentity, identity},
		{&meshv1alpha1.MeshGateway{}, byIdentity, identity},
		{&meshv1alpha1.MeshService{}, byConfigMap, configMapsOf},
		{&meshv1alpha1.MeshGateway{}, byConfigMap, configMapsOf},
	} {
		if err := indexer.IndexField(ctx, index.object, index.field, func(o client.Object) []string {
			var values []string
			for _, key := range index.keys(o) {
				values = append(values, key.String())
			}
			return values
		}); err != nil {
			return fmt.Errorf("index %T by %s: %w", index.object, index.field, err)
		}
	}
	return nil
}

// World reads the neighbourhood of a MeshService or a MeshGateway. It is used by every replica and writes nothing.
type World struct {
	// Client reads the cache, and Live past it: the cache has of ConfigMaps the metadata only.
	Client, Live client.Reader
	Cluster      mesh.ClusterID

	// descriptors remembers, from one Build to the next, what the descriptor sets in ConfigMaps say.
	descriptors descriptor.Cache

	mu    sync.Mutex
	files map[types.NamespacedName]*file
	// swept is how many files were left when it was last looked which of them anybody refers to.
	swept int
}

// file is a ConfigMap as it was last read.
type file struct {
	reading sync.Mutex // one reader at a time; it is not held up by those of other files
	object  *corev1.ConfigMap
}

const (
	// readFileTimeout is for one ConfigMap, of at most 1 MiB.
	readFileTimeout = 10 * time.Second
	// sweepAfter is how many more files than last time are kept before it is looked again which of them anybody refers to.
	sweepAfter = 64
)

// Of reads what the Mesh of one key is built from. What does not exist is left out, and the model says so; what cannot be
// read is an error.
func (w *World) Of(ctx context.Context, key mesh.ProxyKey) (mesh.Objects, error) {
	n := neighbourhood{world: w, objects: mesh.Objects{Cluster: w.Cluster, Asked: key, Descriptors: &w.descriptors}, services: sets.New[types.NamespacedName](), gateways: sets.New[types.NamespacedName]()}
	var err error
	if key.Kind == mesh.KindMeshGateway {
		err = n.gateway(ctx, key.NamespacedName)
	} else {
		err = n.service(ctx, key.NamespacedName)
	}
	if err == nil {
		err = n.details(ctx)
	}
	return n.objects, err
}

type neighbourhood struct {
	world              *World
	objects            mesh.Objects
	services, gateways sets.Set[types.NamespacedName] // those that have been looked for
}

// service adds a MeshService, those that it depends on, those that depend on it, and its rivals at its gateways.
func (n *neighbourhood) service(ctx context.Context, key types.NamespacedName) error {
	object, err := n.addService(ctx, key)
	if err != nil || object == nil {
		return err
	}
	for _, callee := range calleesOf(object) {
		if _, err := n.addService(ctx, callee); err != nil {
			return err
		}
	}
	if err := n.addServices(ctx, byCallee, key); err != nil {
		return err
	}
	for _, gateway := range gatewaysOf(object) {
		if err := n.gateway(ctx, gateway); err != nil {
			return err
		}
	}
	return nil
}

// gateway adds a MeshGateway and the MeshServices that are exposed at it.
func (n *neighbourhood) gateway(ctx context.Context, key types.NamespacedName) error {
	object := &meshv1alpha1.MeshGateway{}
	if n.gateways.Has(key) {
		return nil
	}
	n.gateways.Insert(key)
	if found, err := n.world.get(ctx, key, object); err != nil {
		return err
	} else if found {
		n.objects.Gateways = append(n.objects.Gateways, *object)
	}
	return n.addServices(ctx, byGateway, key)
}

func (n *neighbourhood) addService(ctx context.Context, key types.NamespacedName) (*meshv1alpha1.MeshService, error) {
	object := &meshv1alpha1.MeshService{}
	if n.services.Has(key) {
		return nil, nil //nolint:nilnil // there is nothing to add, and nothing went wrong
	}
	n.services.Insert(key)
	found, err := n.world.get(ctx, key, object)
	if err != nil || !found {
		return nil, err
	}
	n.objects.Services = append(n.objects.Services, *object)
	return object, nil
}

func (n *neighbourhood) addServices(ctx context.Context, index string, key types.NamespacedName) error {
	list := &meshv1alpha1.MeshServiceList{}
	if err := n.world.Client.List(ctx, list, client.MatchingFields{index: key.String()}); err != nil {
		return fmt.Errorf("list the MeshServices by %s %s: %w", index, key, err)
	}
	for i := range list.Items {
		if key := client.ObjectKeyFromObject(&list.Items[i]); !n.services.Has(key) {
			n.services.Insert(key)
			n.objects.Services = append(n.objects.Services, list.Items[i])
		}
	}
	return nil
}

// details adds the identities and the ConfigMaps of what has been found.
func (n *neighbourhood) details(ctx context.Context) error {
	identities, files := sets.New[types.NamespacedName](), sets.New[types.NamespacedName]()
	for i := range n.objects.Services {
		identities.Insert(identityOf(&n.objects.Services[i]))
		files.Insert(configMapsOf(&n.objects.Services[i])...)
	}
	for i := range n.objects.Gateways {
		identities.Insert(identityOf(&n.objects.Gateways[i]))
		files.Insert(configMapsOf(&n.objects.Gateways[i])...)
	}
	for key := range identities {
		object := &meshv1alpha1.ServiceIdentity{}
		if found, err := n.world.get(ctx, key, object); err != nil {
			return err
		} else if found {
			n.objects.Identities = append(n.objects.Identities, *object)
		}
	}
	for key := range files {
		object, err := n.world.configMap(ctx, key)
		if err != nil {
			return err
		}
		if object != nil {
			n.objects.ConfigMaps = append(n.objects.ConfigMaps, *object)
		}
	}
	return nil
}

func (w *World) get(ctx context.Context, key types.NamespacedName, object client.Object) (found bool, err error) {
	if err := w.Client.Get(ctx, key, object); apierrors.IsNotFound(err) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("read %T %s: %w", object, key, err)
	}
	return true, nil
}

// configMap reads a ConfigMap once for each of its versions: the cache knows which that is.
func (w *World) configMap(ctx context.Context, key types.NamespacedName) (*corev1.ConfigMap, error) {
	metadata := metadataOf("ConfigMap")
	found, err := w.get(ctx, key, metadata)
	if err != nil {
		return nil, err
	}
	if !found {
		w.forget(key)
		return nil, nil //nolint:nilnil // it does not exist, which the model reports
	}
	f := w.file(ctx, key)
	f.reading.Lock()
	defer f.reading.Unlock()
	if f.object != nil && f.object.ResourceVersion == metadata.ResourceVersion {
		return f.object, nil
	}
	limited, cancel := context.WithTimeout(ctx, readFileTimeout)
	defer cancel()
	object := &corev1.ConfigMap{}
	if err := w.Live.Get(limited, key, object); apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // it is gone since, and its watch will say so
	} else if err != nil {
		return nil, fmt.Errorf("read ConfigMap %s: %w", key, err)
	}
	object.ManagedFields, object.Annotations = nil, nil
	f.object = object
	return object, nil
}

func (w *World) file(ctx context.Context, key types.NamespacedName) *file {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.files == nil {
		w.files = map[types.NamespacedName]*file{}
	}
	if w.files[key] == nil {
		if len(w.files) >= w.swept+sweepAfter {
			w.sweep(ctx)
		}
		w.files[key] = &file{}
	}
	return w.files[key]
}

func (w *World) forget(key types.NamespacedName) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.files, key)
}

// sweep forgets the files that nobody refers to any more. The lock is held: the cache answers from memory.
func (w *World) sweep(ctx context.Context) {
	for key := range w.files {
		referrers := 0
		for _, list := range []client.ObjectList{&meshv1alpha1.MeshServiceList{}, &meshv1alpha1.MeshGatewayList{}} {
			if err := w.Client.List(ctx, list, client.MatchingFields{byConfigMap: key.String()}); err != nil {
				return // whoever lists next says so
			}
			referrers += meta.LenList(list)
		}
		if referrers == 0 {
			delete(w.files, key)
		}
	}
	w.swept = len(w.files)
}

// What an object refers to, as the model says. These are also the values of the indexes, so that the way back is found.

func calleesOf(object *meshv1alpha1.MeshService) []types.NamespacedName {
	return mesh.CalleesOf(object)
}

func gatewaysOf(object *meshv1alpha1.MeshService) []types.NamespacedName {
	return mesh.GatewaysOf(object)
}

func identityOf(object client.Object) types.NamespacedName { return mesh.IdentityOf(object) }

func configMapsOf(object client.Object) []types.NamespacedName { return mesh.ConfigMapsOf(object) }
