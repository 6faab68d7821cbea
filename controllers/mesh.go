package controllers

import (
	"context"
	"fmt"
	"time"

	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/owned"
	"github.com/jia-app/paymesh/internal/workload"
	"github.com/jia-app/paymesh/internal/xds"
	"github.com/jia-app/paymesh/internal/xds/server"
)

// MeshOptions are what the controllers of the mesh work with and by, beside the API server.
type MeshOptions struct {
	Cluster mesh.ClusterID
	// Server is told what the proxies get, and Serve runs it until ctx ends, once it has been told all.
	Server *server.Server
	Serve  func(ctx context.Context) error
	// Proxies know what the proxies hold that are connected to any replica.
	Proxies *server.Peers
	// Render is Render where it is nil. Tests put in others, for what proxies reject.
	Render Renderer
	// Workload and Bootstrap are the cluster's part of what is rendered; Bootstrap without its Cluster.
	Workload  workload.Options
	Bootstrap xds.BootstrapOptions
	// RetryInterval is how long to wait before an object is tried again that the API server refused, or that somebody else has.
	RetryInterval time.Duration
}

// MeshControllers run MeshServices and MeshGateways, at the leader, and give their proxies what they need, at every replica.
type MeshControllers struct {
	Services  *MeshServiceReconciler
	Gateways  *MeshGatewayReconciler
	Proxies   *ProxyReconciler
	Endpoints *EndpointReconciler
	Serving   *Serving
}

// NewMesh makes the controllers, with what they share. The client reads a cache with the indexes of IndexMesh, and live past
// it.
func NewMesh(c client.Client, live client.Reader, recorder events.EventRecorder, o MeshOptions) MeshControllers {
	o.Bootstrap.Cluster = o.Cluster
	if o.Render == nil {
		o.Render = Render
	}
	world := &World{Client: c, Live: live, Cluster: o.Cluster}
	deployer := &Deployer{
		Client: c, World: world, Objects: &owned.Objects{Client: c, Live: live}, Proxies: o.Proxies, Events: recorder,
		Workload: o.Workload, Bootstrap: o.Bootstrap, Render: o.Render, RetryInterval: o.RetryInterval,
	}
	proxies := &ProxyReconciler{Client: c, World: world, Server: o.Server, Render: o.Render}
	endpoints := &EndpointReconciler{Client: c, Cluster: o.Cluster, Server: o.Server}
	return MeshControllers{
		Services: &MeshServiceReconciler{Deployer: deployer}, Gateways: &MeshGatewayReconciler{Deployer: deployer},
		Proxies: proxies, Endpoints: endpoints,
		Serving: &Serving{Client: c, Proxies: proxies, Endpoints: endpoints, Serve: o.Serve},
	}
}

// AddMesh adds the controllers, their indexes and the xDS server to a manager. It is called once, before the manager is started.
func AddMesh(ctx context.Context, mgr ctrl.Manager, o MeshOptions) error {
	all := NewMesh(mgr.GetClient(), mgr.GetAPIReader(), mgr.GetEventRecorder(eventSource), o)
	if err := IndexMesh(ctx, mgr.GetFieldIndexer()); err != nil {
		return err
	}
	for _, add := range []struct {
		name       string
		controller interface{ SetupWithManager(ctrl.Manager) error }
	}{
		{"proxy", all.Proxies}, {"endpoint", all.Endpoints}, {"MeshService", all.Services}, {"MeshGateway", all.Gateways},
	} {
		if err := add.controller.SetupWithManager(mgr); err != nil {
			return fmt.Errorf("set up the %s controller: %w", add.name, err)
		}
	}
	return mgr.Add(all.Serving)
}
