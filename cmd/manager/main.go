// Command manager runs the paymesh operator: flags go in, a wired manager runs until it is told to stop.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // a kubeconfig may name any of client-go's ways to authenticate
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/controllers"
	"github.com/jia-app/paymesh/internal/mesh"
	spireclient "github.com/jia-app/paymesh/internal/spire/client"
	"github.com/jia-app/paymesh/internal/spire/registry"
)

// Leader election: 10 to 12 s pass from the death of a leader to the next one's first write. The defaults of client-go
// (15 s, 10 s, 2 s) take 15 to 17.
const (
	leaseDuration = 10 * time.Second
	renewDeadline = 6 * time.Second
	retryPeriod   = 2 * time.Second
	// gracefulStop bounds how long a stopping manager waits for writes under way.
	gracefulStop = 10 * time.Second
)

type flags struct {
	trustDomain, clusterName            string
	spireAddress, spireSocket, workload string
	auditInterval, entryGrace           time.Duration
	metricsAddress, probeAddress        string
	leaderElect                         bool
	leaderElectNamespace                string
	log                                 zap.Options
}

func parseFlags(args []string) (flags, error) {
	var f flags
	set := flag.NewFlagSet("manager", flag.ContinueOnError)
	set.SetOutput(io.Discard) // main prints the error, once
	set.StringVar(&f.trustDomain, "trust-domain", "", "The trust domain of the SPIRE server, for example jia.app. Required.")
	set.StringVar(&f.clusterName, "cluster-name", "", "The name that SPIRE's k8s_psat node attestor has for this cluster: letters, digits, hyphens, underscores. Required; unique among the clusters of the SPIRE server, since it marks which entries are this manager's.")
	set.StringVar(&f.spireAddress, "spire-server-address", "", "Host and port of the SPIRE server's API, dialled with mTLS by this manager's own SVID. Either this or --spire-server-socket.")
	set.StringVar(&f.spireSocket, "spire-server-socket", "", "Path of the SPIRE server's admin socket, where the manager runs beside it.")
	set.StringVar(&f.workload, "workload-api", "unix:///run/spire/agent-sockets/spire-agent.sock", "Address of the SPIFFE Workload API that gives the manager its own SVID.")
	set.DurationVar(&f.auditInterval, "audit-interval", registry.DefaultAuditInterval, "How long it may take until an entry that somebody deleted or changed in SPIRE is put right.")
	set.DurationVar(&f.entryGrace, "entry-grace", 5*time.Minute, "How long an entry stays after the last pod of its identity left the node, so that a pod that comes back finds it.")
	set.StringVar(&f.metricsAddress, "metrics-bind-address", ":8443", "Where /metrics is served, over HTTPS and to those only whom the API server lets read it; 0 turns it off.")
	set.StringVar(&f.probeAddress, "health-probe-bind-address", ":8081", "Where /healthz and /readyz are served.")
	set.BoolVar(&f.leaderElect, "leader-elect", false, "Elect a leader among several managers: only the leader writes.")
	set.StringVar(&f.leaderElectNamespace, "leader-elect-namespace", "", "The namespace of the leader's Lease; by default the one that the manager runs in.")
	f.log.BindFlags(set)
	if err := set.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			set.SetOutput(os.Stdout)
			set.Usage()
		}
		return f, err
	}
	switch {
	case set.NArg() > 0: // parsing stops there: the flags behind it would be lost without a word
		return f, fmt.Errorf("%q is not a flag: all settings are flags, --help lists them", set.Arg(0))
	case f.trustDomain == "":
		return f, errors.New("--trust-domain is required: the trust domain of the SPIRE server, for example jia.app")
	case f.clusterName == "":
		return f, errors.New("--cluster-name is required: the name that SPIRE's k8s_psat node attestor has for this cluster")
	case (f.spireAddress == "") == (f.spireSocket == ""):
		return f, errors.New("one of --spire-server-address (host:port, mTLS) and --spire-server-socket (admin socket) is required, and not both")
	case f.auditInterval < time.Second:
		return f, fmt.Errorf("--audit-interval is %s: want 1s or more", f.auditInterval)
	case f.entryGrace < 0:
		return f, fmt.Errorf("--entry-grace is %s: want 0s or more", f.entryGrace)
	}
	return f, nil
}

func main() {
	f, err := parseFlags(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "manager:", err)
		os.Exit(2)
	}
	ctrl.SetLogger(zap.New(zap.UseFlagOptions(&f.log)))
	if err := run(ctrl.SetupSignalHandler(), f); err != nil {
		ctrl.Log.Error(err, "the manager ends")
		os.Exit(1)
	}
}

// run wires the operator and runs it until ctx ends.
func run(ctx context.Context, f flags) error {
	cluster, err := mesh.NewClusterID(f.trustDomain, f.clusterName)
	if err != nil {
		return err
	}
	mgr, err := newManager(f)
	if err != nil {
		return err
	}
	entries, err := connect(mgr, cluster, f)
	if err != nil {
		return err
	}
	if err := controllers.IndexFields(ctx, mgr.GetFieldIndexer()); err != nil {
		return err
	}
	surplus, witness := &controllers.Surplus{Grace: f.entryGrace, Clock: clock.RealClock{}}, controllers.NewWitness(metrics.Registry)
	if err := (&controllers.ServiceIdentityReconciler{
		Client: mgr.GetClient(), Cluster: cluster, SPIRE: entries, Surplus: surplus, Witness: witness,
		Events: mgr.GetEventRecorder("paymesh"), RetryInterval: f.auditInterval,
	}).SetupWithManager(mgr); err != nil {
		return fmt.Errorf("set up the ServiceIdentity controller: %w", err)
	}
	if err := (&controllers.NodeReconciler{Client: mgr.GetClient(), Cluster: cluster, SPIRE: entries, Surplus: surplus, Witness: witness}).SetupWithManager(mgr); err != nil {
		return fmt.Errorf("set up the node controller: %w", err)
	}
	if err := addProbes(mgr); err != nil {
		return err
	}
	return mgr.Start(ctx)
}

func newManager(f flags) (ctrl.Manager, error) {
	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(meshv1alpha1.AddToScheme(scheme))
	config, err := ctrl.GetConfig()
	if err != nil {
		return nil, fmt.Errorf("find out how to reach the API server: %w", err)
	}
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme: scheme,
		Cache:  controllers.CacheOptions(),
		Metrics: metricsserver.Options{
			BindAddress: f.metricsAddress, SecureServing: true, FilterProvider: filters.WithAuthenticationAndAuthorization,
			TLSOpts: []func(*tls.Config){func(c *tls.Config) { c.MinVersion = tls.VersionTLS13 }},
		},
		HealthProbeBindAddress:        f.probeAddress,
		LeaderElection:                f.leaderElect,
		LeaderElectionID:              "paymesh.mesh.jia.app",
		LeaderElectionNamespace:       f.leaderElectNamespace,
		LeaderElectionReleaseOnCancel: true, // run returns, and the process ends, as soon as the manager has stopped
		LeaseDuration:                 ptr.To(leaseDuration),
		RenewDeadline:                 ptr.To(renewDeadline),
		RetryPeriod:                   ptr.To(retryPeriod),
		GracefulShutdownTimeout:       ptr.To(gracefulStop),
	})
	if err != nil {
		return nil, fmt.Errorf("make the manager: %w", err)
	}
	return mgr, nil
}

// connect adds the connection to the SPIRE server to the manager, and the registry of what it holds. Neither keeps the
// manager from starting: without SPIRE each object says so in its conditions.
func connect(mgr ctrl.Manager, cluster mesh.ClusterID, f flags) (*registry.Registry, error) {
	var api *spireclient.Client
	var err error
	if f.spireSocket != "" {
		api, err = spireclient.NewUnix(f.spireSocket, metrics.Registry)
	} else {
		api, err = spireclient.NewTCP(spireclient.TCPOptions{
			Address: f.spireAddress, ID: cluster.OperatorID(), WorkloadAPI: f.workload, Registerer: metrics.Registry,
		})
	}
	if err != nil {
		return nil, err
	}
	entries := registry.New(api, cluster, registry.Options{
		AuditInterval: f.auditInterval, Clock: clock.RealClock{}, Logger: mgr.GetLogger().WithName("spire"), Registerer: metrics.Registry,
	})
	return entries, errors.Join(mgr.Add(api), mgr.Add(entries))
}

// leaderless runs on every replica.
type leaderless struct{ manager.Runnable }

func (leaderless) NeedLeaderElection() bool { return false }

// addProbes makes a replica alive as long as it answers, and ready when its caches are full.
func addProbes(mgr ctrl.Manager) error {
	var synced atomic.Bool
	if err := mgr.Add(leaderless{manager.RunnableFunc(func(ctx context.Context) error {
		synced.Store(mgr.GetCache().WaitForCacheSync(ctx))
		return nil
	})}); err != nil {
		return err
	}
	return errors.Join(mgr.AddHealthzCheck("ping", healthz.Ping), mgr.AddReadyzCheck("caches", func(*http.Request) error {
		if !synced.Load() {
			return errors.New("the caches are not filled yet: the API server is slow, away, or does not let the manager list something (see the log)")
		}
		return nil
	}))
}
