package controllers

import (
	"context"
	"fmt"
	"sync"

	"sigs.k8s.io/controller-runtime/pkg/client"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
)

// Serving starts the xDS server of a replica once it has something to say: when the config of every key that there was, and
// its addresses, have been set. A proxy that comes from another replica would be told of an empty world before. It is a
// controller-runtime Runnable.
type Serving struct {
	Client    client.Reader // of the cache
	Proxies   *ProxyReconciler
	Endpoints *EndpointReconciler
	// Serve runs the server until ctx ends.
	Serve func(ctx context.Context) error
}

// NeedLeaderElection is false: every replica serves.
func (s *Serving) NeedLeaderElection() bool { return false }

// Start waits, and then serves until ctx ends.
func (s *Serving) Start(ctx context.Context) error {
	services, gateways := &meshv1alpha1.MeshServiceList{}, &meshv1alpha1.MeshGatewayList{}
	for _, list := range []client.ObjectList{services, gateways} { // the cache answers once it is filled
		err := s.Client.List(ctx, list)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it was told to end before it began
		}
		if err != nil {
			return fmt.Errorf("list what proxies are to be served: %w", err)
		}
	}
	var all, called []mesh.ProxyKey
	for i := range services.Items {
		called = append(called, proxyKey(mesh.KindMeshService, client.ObjectKeyFromObject(&services.Items[i])))
	}
	all = append(all, called...)
	for i := range gateways.Items {
		all = append(all, proxyKey(mesh.KindMeshGateway, client.ObjectKeyFromObject(&gateways.Items[i])))
	}
	for _, done := range []<-chan struct{}{s.Proxies.first.over(all), s.Endpoints.first.over(called)} {
		select {
		case <-done:
		case <-ctx.Done():
			return nil
		}
	}
	return s.Serve(ctx)
}

// firstPass knows when each of some keys has been dealt with once.
type firstPass[K comparable] struct {
	mu   sync.Mutex
	seen map[K]struct{} // until it is known which keys matter
	left map[K]struct{}
	done chan struct{}
}

// saw notes that a key has been dealt with.
func (f *firstPass[K]) saw(key K) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.done == nil {
		if f.seen == nil {
			f.seen = map[K]struct{}{}
		}
		f.seen[key] = struct{}{}
		return
	}
	if _, waited := f.left[key]; waited {
		if delete(f.left, key); len(f.left) == 0 {
			close(f.done)
		}
	}
}

// over says which keys matter. What it returns is closed when each of them has been dealt with. It is called once.
func (f *firstPass[K]) over(keys []K) <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done, f.left = make(chan struct{}), map[K]struct{}{}
	for _, key := range keys {
		if _, already := f.seen[key]; !already {
			f.left[key] = struct{}{}
		}
	}
	f.seen = nil
	if len(f.left) == 0 {
		close(f.done)
	}
	return f.done
}
