package controllers

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/spire/backoff"
	"github.com/jia-app/paymesh/internal/spire/registry"
	"github.com/jia-app/paymesh/internal/spire/retention"
)

// eventSource is who the operator's events are from.
const eventSource = "paymesh"

// IdentityOptions are what the controllers of the identities work with and by, beside the API server.
type IdentityOptions struct {
	Cluster mesh.ClusterID
	// ClusterDomain is what the DNS names of Services end in: cluster.local.
	ClusterDomain string
	SPIRE         *registry.Registry
	// Namespace is the manager's own: its annotation releases the deletion brake.
	Namespace string
	// Grace is how long what nobody needs any more stays all the same: entries, names of Services, entries to adopt.
	Grace time.Duration
	// BrakeCount and BrakeShare say when the deletion brake trips: Count and Share of retention.BrakeOptions.
	BrakeCount int
	BrakeShare float64
	// DefaultTTL and CATTL are default_x509_svid_ttl and ca_ttl of the SPIRE server.
	DefaultTTL, CATTL time.Duration
	// AgentTTL is agent_ttl of the SPIRE server: by then an agent has attested again.
	AgentTTL time.Duration
	// RetryInterval is the longest pause before a call is tried again that failed by itself, or that SPIRE refused.
	RetryInterval time.Duration
	Clock         clock.PassiveClock
	// Registerer takes the metrics; nil for none.
	Registerer prometheus.Registerer
}

// IdentityControllers make SPIRE hold the entries of the ServiceIdentities and of the nodes that these are on.
type IdentityControllers struct {
	Identities *ServiceIdentityReconciler
	Nodes      *NodeReconciler
	Brake      *BrakeReconciler
}

// NewIdentities makes the controllers, with the memory that they share. The client reads a cache with the indexes of
// IndexIdentities.
func NewIdentities(c client.Client, recorder events.EventRecorder, o IdentityOptions) IdentityControllers {
	surplus, witness := retention.NewSurplus(o.Grace, o.Clock), retention.NewWitness(o.Registerer)
	brake := retention.NewBrake(retention.BrakeOptions{
		Count: o.BrakeCount, Share: o.BrakeShare, Total: o.SPIRE.Count, Namespace: o.Namespace,
		Surplus: surplus, Clock: o.Clock, Registerer: o.Registerer,
	})
	return IdentityControllers{
		Identities: &ServiceIdentityReconciler{
			Client: c, Cluster: o.Cluster, ClusterDomain: o.ClusterDomain, SPIRE: o.SPIRE, Surplus: surplus, Brake: brake, Witness: witness,
			Names:      &retention.Grace{Time: o.Grace, Clock: o.Clock},
			Adopting:   &retention.Grace{Time: o.Grace, Clock: o.Clock},
			Refusals:   &backoff.Refusals{Most: o.RetryInterval, Clock: o.Clock},
			Census:     NewCensus(o.Registerer, surplus),
			Events:     recorder,
			DefaultTTL: o.DefaultTTL, CATTL: o.CATTL, AgentTTL: o.AgentTTL, Clock: o.Clock, RetryInterval: o.RetryInterval,
		},
		Nodes: &NodeReconciler{Client: c, Cluster: o.Cluster, SPIRE: o.SPIRE, Surplus: surplus, Witness: witness, AgentTTL: o.AgentTTL},
		Brake: &BrakeReconciler{Client: c, Brake: brake, Events: recorder},
	}
}

// AddIdentities adds the controllers and their indexes to a manager. It is called once, before the manager is started.
func AddIdentities(ctx context.Context, mgr ctrl.Manager, o IdentityOptions) (IdentityControllers, error) {
	all := NewIdentities(mgr.GetClient(), mgr.GetEventRecorder(eventSource), o)
	if err := IndexIdentities(ctx, mgr.GetFieldIndexer(), o.Cluster); err != nil {
		return all, err
	}
	if err := all.Brake.SetupWithManager(mgr); err != nil {
		return all, fmt.Errorf("set up the controller of the deletion brake: %w", err)
	}
	if err := all.Identities.SetupWithManager(mgr); err != nil {
		return all, fmt.Errorf("set up the ServiceIdentity controller: %w", err)
	}
	if err := all.Nodes.SetupWithManager(mgr); err != nil {
		return all, fmt.Errorf("set up the node controller: %w", err)
	}
	return all, nil
}
