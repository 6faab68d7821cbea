package controllers_test

import (
	"context"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	ctrlconfig "sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/jia-app/paymesh/controllers"
	"github.com/jia-app/paymesh/internal/spire"
	spireclient "github.com/jia-app/paymesh/internal/spire/client"
	"github.com/jia-app/paymesh/internal/spire/registry"
	"github.com/jia-app/paymesh/internal/spire/retention"
	"github.com/jia-app/paymesh/test/lab"
)

// shortGrace is the grace time of managers that run by themselves.
const shortGrace = 2 * time.Second

// faulty is a client of a SPIRE server, and what comes between at its writes.
type faulty struct {
	*spireclient.Client
	apply func(ctx context.Context, plan spire.Plan) ([]spire.Result, error)
	list  func(ctx context.Context, q spireclient.Query) (spireclient.Page, error)
}

func (f *faulty) List(ctx context.Context, q spireclient.Query) (spireclient.Page, error) {
	if f.list == nil {
		return f.Client.List(ctx, q)
	}
	return f.list(ctx, q)
}

func (f *faulty) Apply(ctx context.Context, plan spire.Plan) ([]spire.Result, error) {
	if f.apply == nil {
		return f.Client.Apply(ctx, plan)
	}
	return f.apply(ctx, plan)
}

// manager is one that runs by itself, with everything about identities in it.
type manager struct {
	entries  *registry.Registry
	brake    *retention.Brake
	operator *corev1.Namespace
	// stop ends it and returns what Start returned.
	stop func() error
}

// startManager starts a manager, as cmd/manager does, which ends with the spec.
func startManager(config *rest.Config, server *lab.SPIREServer, faults ...func(*faulty)) *manager {
	GinkgoHelper()
	m := tryManager(config, server, faults...)
	DeferCleanup(func() { Expect(m.stop()).To(Succeed()) })
	return m
}

// tryManager starts one that may end by itself.
func tryManager(config *rest.Config, server *lab.SPIREServer, faults ...func(*faulty)) *manager {
	GinkgoHelper()
	ctx, cancel := context.WithCancel(context.Background())
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme: scheme, Cache: controllers.CacheOptions(), Logger: GinkgoLogr,
		Metrics:    metricsserver.Options{BindAddress: "0"},
		Controller: ctrlconfig.Controller{SkipNameValidation: ptr.To(true)},
	})
	Expect(err).NotTo(HaveOccurred())
	api, err := spireclient.NewUnix(server.Socket, nil)
	Expect(err).NotTo(HaveOccurred())
	between := &faulty{Client: api}
	for _, fault := range faults {
		fault(between)
	}
	m := &manager{operator: namespace(""), entries: registry.New(between, clusterID, registry.Options{AuditInterval: audit, Logger: GinkgoLogr})}
	Expect(mgr.Add(api)).To(Succeed())
	Expect(mgr.Add(m.entries)).To(Succeed())
	added, err := controllers.AddIdentities(ctx, mgr, controllers.IdentityOptions{
		Cluster: clusterID, SPIRE: m.entries, Namespace: m.operator.Name, Grace: shortGrace,
		BrakeCount: retention.LeastBrakeCount, BrakeShare: retention.DefaultBrakeShare,
		DefaultTTL: time.Hour, CATTL: 24 * time.Hour, AgentTTL: time.Hour, RetryInterval: audit, Clock: clock.RealClock{},
	})
	Expect(err).NotTo(HaveOccurred())
	m.brake = added.Brake.Brake
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	m.stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	DeferCleanup(func() { _ = m.stop() })
	return m
}
