// Command manager runs the paymesh operator: flags go in, a wired manager runs until it is told to stop.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // a kubeconfig may name any of client-go's ways to authenticate
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/controllers"
	"github.com/jia-app/paymesh/internal/mesh"
	spireclient "github.com/jia-app/paymesh/internal/spire/client"
	"github.com/jia-app/paymesh/internal/spire/registry"
	"github.com/jia-app/paymesh/internal/spire/retention"
	"github.com/jia-app/paymesh/internal/svid"
	"github.com/jia-app/paymesh/internal/workload"
	"github.com/jia-app/paymesh/internal/xds"
	"github.com/jia-app/paymesh/internal/xds/server"
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
	clusterDomain                       string
	spireAddress, spireSocket, workload string
	auditInterval, entryGrace           time.Duration
	defaultTTL, caTTL, agentTTL         time.Duration
	brakeCount                          int
	brakeShare                          float64
	dryRun                              bool
	metricsAddress, probeAddress        string
	leaderElect                         bool
	leaderElectNamespace                string
	xdsBind, xdsAddress                 string
	proxyImage                          string
	workloadHostPath, workloadCSIDriver string
	workloadSocket                      string
	log                                 zap.Options
}

func parseFlags(args []string) (flags, error) {
	var f flags
	set := flag.NewFlagSet("manager", flag.ContinueOnError)
	set.SetOutput(io.Discard) // main prints the error, once
	set.StringVar(&f.trustDomain, "trust-domain", "", "The trust domain of the SPIRE server, for example jia.app. Required.")
	set.StringVar(&f.clusterName, "cluster-name", "", "The name that SPIRE's k8s_psat node attestor has for this cluster: letters, digits, hyphens, underscores. Required; unique among the clusters of the SPIRE server, since it marks which entries are this manager's.")
	set.StringVar(&f.clusterDomain, "cluster-domain", "cluster.local", "What the DNS names of the cluster's Services end in, for identities with serviceDNSNames.")
	set.StringVar(&f.spireAddress, "spire-server-address", "", "Host and port of the SPIRE server's API, dialled with mTLS by this manager's own SVID. Either this or --spire-server-socket.")
	set.StringVar(&f.spireSocket, "spire-server-socket", "", "Path of the SPIRE server's admin socket, where the manager runs beside it.")
	set.StringVar(&f.workload, "workload-api", "unix:///run/spire/agent-sockets/spire-agent.sock", "Address of the SPIFFE Workload API that gives the manager its own SVID.")
	set.DurationVar(&f.auditInterval, "audit-interval", registry.DefaultAuditInterval, "How long it may take until an entry that somebody deleted or changed in SPIRE is put right. It is also the longest pause after which a write is tried again that SPIRE, or the API server, refused.")
	set.DurationVar(&f.entryGrace, "entry-grace", 5*time.Minute, "How long an entry stays after the last pod of its identity left the node, so that a pod that comes back finds it.")
	set.IntVar(&f.brakeCount, "deletion-brake-count", retention.DefaultBrakeCount, "How many entries that nobody needs any more may go within a minute; more than that stay until an administrator lets them go. At least 10. Those of ServiceIdentities that somebody deletes do not count.")
	set.Float64Var(&f.brakeShare, "deletion-brake-share", retention.DefaultBrakeShare, "The same as a share of all entries of the cluster, above 0 and up to 1; the lower of the two limits holds, and 10 may go in any case.")
	set.DurationVar(&f.defaultTTL, "spire-default-x509-svid-ttl", time.Hour, "The default_x509_svid_ttl of the SPIRE server: only for what status.outageBudget says of identities without x509SVIDTTL.")
	set.DurationVar(&f.caTTL, "spire-ca-ttl", 24*time.Hour, "The ca_ttl of the SPIRE server, which no SVID outlives: only for what status.outageBudget says.")
	set.DurationVar(&f.agentTTL, "spire-agent-ttl", time.Hour, "The agent_ttl of the SPIRE server. For that long after a Node was registered, the entries of an earlier Node of its name stay, by which its agent is known until it attests again.")
	set.BoolVar(&f.dryRun, "dry-run", false, "Write nothing to the SPIRE server: what would be written is logged, and shown in the condition Registered of each ServiceIdentity. Kubernetes objects are written all the same.")
	set.StringVar(&f.metricsAddress, "metrics-bind-address", ":8443", "Where /metrics is served, over HTTPS and to those only whom the API server lets read it; 0 turns it off.")
	set.StringVar(&f.probeAddress, "health-probe-bind-address", ":8081", "Where /healthz and /readyz are served.")
	set.BoolVar(&f.leaderElect, "leader-elect", false, "Elect a leader among several managers: only the leader writes.")
	set.StringVar(&f.leaderElectNamespace, "leader-elect-namespace", "", "The namespace of the leader's Lease; by default the one that the manager runs in.")
	set.StringVar(&f.xdsBind, "xds-bind-address", fmt.Sprintf(":%d", mesh.XDSPort), "Where xDS is served to the proxies, over mTLS.")
	set.StringVar(&f.xdsAddress, "xds-address", "", "Where proxies find the managers: name.namespace.svc:port of a headless Service, which every replica that is ready is behind. Required.")
	set.StringVar(&f.proxyImage, "proxy-image", "", "The image of Envoy that runs beside services and as gateways. Required.")
	set.StringVar(&f.workloadHostPath, "workload-api-host-path", "", "The folder on every node that holds the socket of its SPIRE agent, to be mounted into the pods of services and gateways. Either this or --workload-api-csi-driver.")
	set.StringVar(&f.workloadCSIDriver, "workload-api-csi-driver", "", "The name of the SPIFFE CSI driver, as in csi.spiffe.io, where Pod Security refuses hostPath.")
	set.StringVar(&f.workloadSocket, "workload-api-socket", "spire-agent.sock", "The name of the agent's socket in the folder that is mounted.")
	f.log.BindFlags(set)
	if err := set.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			set.SetOutput(os.Stdout)
			set.Usage()
		}
		return f, err
	}
	if set.NArg() > 0 { // parsing stops there: the flags behind it would be lost without a word
		return f, fmt.Errorf("%q is not a flag: all settings are flags, --help lists them", set.Arg(0))
	}
	return f, errors.Join(f.checkSPIRE(), f.checkProxies())
}

func (f flags) checkSPIRE() error {
	switch {
	case f.trustDomain == "":
		return errors.New("--trust-domain is required: the trust domain of the SPIRE server, for example jia.app")
	case f.clusterName == "":
		return errors.New("--cluster-name is required: the name that SPIRE's k8s_psat node attestor has for this cluster")
	case len(validation.IsDNS1123Subdomain(f.clusterDomain)) > 0:
		return fmt.Errorf("--cluster-domain is %q: want the domain of the cluster's Services, in lower case and without a dot around it, for example cluster.local", f.clusterDomain)
	case (f.spireAddress == "") == (f.spireSocket == ""):
		return errors.New("one of --spire-server-address (host:port, mTLS) and --spire-server-socket (admin socket) is required, and not both")
	case f.auditInterval < time.Second:
		return fmt.Errorf("--audit-interval is %s: want 1s or more", f.auditInterval)
	case f.entryGrace < 0:
		return fmt.Errorf("--entry-grace is %s: want 0s or more", f.entryGrace)
	case f.defaultTTL <= 0:
		return fmt.Errorf("--spire-default-x509-svid-ttl is %s: want more than 0s", f.defaultTTL)
	case f.agentTTL <= 0:
		return fmt.Errorf("--spire-agent-ttl is %s: want more than 0s", f.agentTTL)
	case f.caTTL <= 0:
		return fmt.Errorf("--spire-ca-ttl is %s: want more than 0s", f.caTTL)
	case f.brakeCount < retention.LeastBrakeCount:
		return fmt.Errorf("--deletion-brake-count is %d: want %d or more", f.brakeCount, retention.LeastBrakeCount)
	case !(f.brakeShare > 0 && f.brakeShare <= 1):
		return fmt.Errorf("--deletion-brake-share is %g: want more than 0, and 1 at most", f.brakeShare)
	}
	return nil
}

func (f flags) checkProxies() error {
	switch {
	case f.managerNamespace() == "":
		return fmt.Errorf("--xds-address is %q: want the name of the Service that the managers are behind, with its namespace and port, for example paymesh-xds.paymesh-system.svc:%d", f.xdsAddress, mesh.XDSPort)
	case f.proxyImage == "":
		return errors.New("--proxy-image is required: an image of Envoy, whose entry point takes Envoy's own flags")
	case (f.workloadHostPath == "") == (f.workloadCSIDriver == ""):
		return errors.New("one of --workload-api-host-path (a folder on every node) and --workload-api-csi-driver (for example csi.spiffe.io) is required, and not both")
	case f.workloadHostPath != "" && !filepath.IsAbs(f.workloadHostPath):
		return fmt.Errorf("--workload-api-host-path is %q: want an absolute path on the nodes", f.workloadHostPath)
	case f.workloadSocket == "" || strings.Contains(f.workloadSocket, "/"):
		return fmt.Errorf("--workload-api-socket is %q: want a file's name, without a folder", f.workloadSocket)
	}
	return nil
}

// managerNamespace is the one that the managers run in, from where proxies find them: that of the Service. It is empty
// where the address is not that of a Service.
func (f flags) managerNamespace() string {
	host, port, err := net.SplitHostPort(f.xdsAddress)
	if parts := strings.Split(host, "."); err == nil && port != "" && len(parts) >= 3 && parts[2] == "svc" {
		return parts[1]
	}
	return ""
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
	own := svid.New(cluster.OperatorID(), f.workload)
	if err := mgr.Add(own); err != nil {
		return err
	}
	if err := addIdentities(ctx, mgr, cluster, own, f); err != nil {
		return err
	}
	ready, err := addMesh(ctx, mgr, cluster, own, f)
	if err != nil {
		return err
	}
	if err := errors.Join(mgr.AddHealthzCheck("ping", healthz.Ping), mgr.AddReadyzCheck("xds", ready)); err != nil {
		return err
	}
	return mgr.Start(ctx)
}

// addIdentities adds what keeps SPIRE's entries.
func addIdentities(ctx context.Context, mgr ctrl.Manager, cluster mesh.ClusterID, own *svid.Source, f flags) error {
	entries, err := connect(mgr, cluster, own, f)
	if err != nil {
		return err
	}
	_, err = controllers.AddIdentities(ctx, mgr, controllers.IdentityOptions{
		Cluster: cluster, ClusterDomain: f.clusterDomain, SPIRE: entries, Namespace: f.managerNamespace(),
		Grace: f.entryGrace, BrakeCount: f.brakeCount, BrakeShare: f.brakeShare, DefaultTTL: f.defaultTTL, CATTL: f.caTTL, AgentTTL: f.agentTTL,
		RetryInterval: f.auditInterval, Clock: clock.RealClock{}, Registerer: metrics.Registry,
	})
	return err
}

// addMesh adds what runs services and gateways and serves their proxies. What it returns says whether this replica serves.
func addMesh(ctx context.Context, mgr ctrl.Manager, cluster mesh.ClusterID, own *svid.Source, f flags) (healthz.Checker, error) {
	xdsServer := server.New(server.Options{
		Address: f.xdsBind, Source: own, Cluster: cluster, Log: mgr.GetLogger().WithName("xds"), Registerer: metrics.Registry,
	})
	peers := server.NewPeers(xdsServer, server.PeersOptions{
		Resolve: otherReplicas(f.xdsAddress, os.Getenv("POD_IP")), Source: own, Cluster: cluster, Log: mgr.GetLogger().WithName("peers"),
	})
	options := workload.Options{
		ProxyImage: f.proxyImage, ManagerNamespace: f.managerNamespace(), ManagerLabels: managerLabels,
		WorkloadAPIHostPath: f.workloadHostPath, WorkloadAPICSIDriver: f.workloadCSIDriver, WorkloadAPISocket: f.workloadSocket,
	}
	err := controllers.AddMesh(ctx, mgr, controllers.MeshOptions{
		Cluster: cluster, Server: xdsServer, Serve: xdsServer.Start, Proxies: peers, Workload: options,
		Bootstrap:     xds.BootstrapOptions{XDSAddress: f.xdsAddress, WorkloadAPI: options.SocketPath()},
		RetryInterval: f.auditInterval,
	})
	return xdsServer.Ready, errors.Join(err, mgr.Add(peers))
}

// managerLabels select the pods of config/manager.
var managerLabels = map[string]string{"app.kubernetes.io/name": "paymesh", "app.kubernetes.io/component": "manager"}

// otherReplicas finds the managers behind a headless Service, without the one at an address.
func otherReplicas(service, own string) func(context.Context) ([]string, error) {
	host, port, _ := net.SplitHostPort(service)
	return func(ctx context.Context) ([]string, error) {
		addresses, err := net.DefaultResolver.LookupHost(ctx, host)
		var unknown *net.DNSError
		if errors.As(err, &unknown) && unknown.IsNotFound {
			return nil, nil // none of them is ready, this one included
		} else if err != nil {
			return nil, err
		}
		var others []string
		for _, address := range addresses {
			if address != own {
				others = append(others, net.JoinHostPort(address, port))
			}
		}
		return others, nil
	}
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
func connect(mgr ctrl.Manager, cluster mesh.ClusterID, own *svid.Source, f flags) (*registry.Registry, error) {
	var api *spireclient.Client
	var err error
	if f.spireSocket != "" {
		api, err = spireclient.NewUnix(f.spireSocket, metrics.Registry)
	} else {
		api, err = spireclient.NewTCP(spireclient.TCPOptions{
			Address: f.spireAddress, SVID: own, Registerer: metrics.Registry,
		})
	}
	if err != nil {
		return nil, err
	}
	entries := registry.New(spireclient.NewBatcher(api), cluster, registry.Options{
		AuditInterval: f.auditInterval, Clock: clock.RealClock{}, Logger: mgr.GetLogger().WithName("spire"), DryRun: f.dryRun, Registerer: metrics.Registry,
	})
	return entries, errors.Join(mgr.Add(api), mgr.Add(entries))
}
