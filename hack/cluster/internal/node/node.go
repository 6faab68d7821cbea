package node

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/jia-app/paymesh/hack/cluster/internal/image"
	"github.com/jia-app/paymesh/hack/cluster/internal/state"
)

const (
	// stopGrace is for components to finish what they write; nothing that they hold is kept.
	stopGrace = time.Second
)

// node is the running node.
type node struct {
	spec     Spec
	folder   state.Folder
	sup      *supervisor
	api      *apiClient
	forwards *forwarder
	born     time.Time

	mu     sync.Mutex
	phase  string
	err    error
	stages []Step
}

// Run is the node: pid 1 of its namespaces. It returns when it was asked to end (SIGTERM), and all processes of the
// node end with it. A node that could not start stays, so that it can be looked at.
func Run(name, dir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	f := state.Folder{Name: name, Dir: dir}
	spec, err := loadSpec(f)
	if err != nil {
		return err
	}
	n := &node{spec: spec, folder: f, born: time.Now(), phase: PhaseStarting, forwards: &forwarder{dialer: &net.Dialer{Resolver: clusterResolver()}}}
	n.sup = newSupervisor(f, environment(f))
	if err := enterRoot(spec); err != nil {
		return err
	}
	if err := os.Setenv("TMPDIR", "/tmp"); err != nil { // the machine's may be read-only here
		return err
	}
	if err := n.setUpNetwork(ctx); err != nil {
		return err
	}
	if n.api, err = newAPIClient(f); err != nil {
		return err
	}
	if err := n.serveControl(ctx); err != nil {
		return err
	}
	n.step("namespaces, mounts and network")

	var reaper sync.WaitGroup
	reaping, stopReaping := context.WithCancel(context.Background())
	reaper.Go(func() { n.sup.reap(reaping) })
	defer reaper.Wait()
	defer stopReaping()
	defer n.sup.stop(stopGrace)

	n.finish(n.bringUp(ctx))
	<-ctx.Done()
	return nil
}

func (n *node) step(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stages = append(n.stages, Step{Name: name, At: time.Since(n.born)})
}

func (n *node) finish(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.phase, n.err = PhaseUp, err
	if err != nil {
		n.phase = PhaseFailed
		fmt.Fprintln(os.Stderr, err)
	}
}

// bringUp starts the components, each as soon as what it needs is there.
func (n *node) bringUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, n.spec.StartTimeout)
	defer cancel()
	tasks := newTasks(ctx)
	tasks.add("containerd", n.startContainerd)
	tasks.add("image pause", func(ctx context.Context) error { return n.loadImage(ctx, pauseImage, self, PauseCommand) }, "containerd")
	tasks.add("image coredns", func(ctx context.Context) error { return n.loadImage(ctx, corednsImage, "coredns") }, "image pause")
	tasks.add("etcd", n.startEtcd)
	tasks.add("kube-apiserver", n.startAPIServer, "etcd")
	tasks.add("kubelet", n.startKubelet, "kube-apiserver", "containerd")
	tasks.add("kube-controller-manager", n.startSimply(n.controllerManager()), "kube-apiserver")
	tasks.add("kube-scheduler", n.startSimply(n.scheduler()), "kube-apiserver")
	tasks.add("kube-proxy", n.startSimply(n.proxy()), "kube-apiserver")
	tasks.add("kube-router (NetworkPolicy)", n.startNetworkPolicy, "kubelet")
	tasks.add("node Ready", func(ctx context.Context) error {
		return n.sup.await(ctx, nil, "node Ready", func(ctx context.Context) error { return n.api.nodeReady(ctx, n.spec.hostname()) })
	}, "kubelet")
	tasks.add("volumes", n.createVolumes, "kube-apiserver")
	// A pod whose image is not there yet is tried again only seconds later.
	tasks.add("CoreDNS answers", n.startCoreDNS, "kube-apiserver", "image coredns")
	return tasks.run(n.step)
}

func (n *node) startSimply(c component) func(context.Context) error {
	return func(context.Context) error {
		_, err := n.sup.start(c)
		return err
	}
}

func (n *node) startContainerd(ctx context.Context) error {
	p, err := n.sup.start(n.containerd())
	if err != nil {
		return err
	}
	return n.sup.await(ctx, p, p.name, func(ctx context.Context) error { return reachable(ctx, "unix", containerdSocket) })
}

func (n *node) startEtcd(ctx context.Context) error {
	p, err := n.sup.start(etcd())
	if err != nil {
		return err
	}
	return n.sup.await(ctx, p, p.name, func(ctx context.Context) error { return reachable(ctx, "tcp", "127.0.0.1:2379") })
}

func (n *node) startAPIServer(ctx context.Context) error {
	p, err := n.sup.start(n.apiServer())
	if err != nil {
		return err
	}
	return n.sup.await(ctx, p, p.name, n.api.ready)
}

func (n *node) startKubelet(ctx context.Context) error {
	p, err := n.sup.start(n.kubelet())
	if err != nil {
		return err
	}
	return n.sup.await(ctx, p, p.name, func(ctx context.Context) error { return n.api.nodeExists(ctx, n.spec.hostname()) })
}

// startNetworkPolicy comes after the node is registered: kube-router ends where it finds no Node of its name.
func (n *node) startNetworkPolicy(ctx context.Context) error {
	if err := n.create(ctx, "kube-router.yaml"); err != nil {
		return err
	}
	p, err := n.sup.start(n.networkPolicy())
	if err != nil {
		return err
	}
	return n.sup.await(ctx, p, p.name, healthy("http://127.0.0.1:20244/healthz"))
}

func healthy(url string) func(context.Context) error {
	return func(ctx context.Context) error {
		q, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		r, err := http.DefaultClient.Do(q)
		if err != nil {
			return err
		}
		defer func() { _ = r.Body.Close() }()
		if r.StatusCode != http.StatusOK {
			text, err := io.ReadAll(io.LimitReader(r.Body, 300))
			return fmt.Errorf("%s answers %s: %s (%w)", url, r.Status, text, err)
		}
		return nil
	}
}

func (n *node) startCoreDNS(ctx context.Context) error {
	if err := n.create(ctx, "coredns.yaml"); err != nil {
		return err
	}
	return n.sup.await(ctx, nil, "CoreDNS answers", dnsAnswers)
}

// createVolumes makes the folders as well, which a local volume must find.
func (n *node) createVolumes(ctx context.Context) error {
	for _, name := range volumes() {
		if err := os.MkdirAll(volumesDir+"/"+name, 0o755); err != nil {
			return fmt.Errorf("volume %s: %w", name, err)
		}
	}
	return n.create(ctx, "volumes.yaml")
}

// create creates the objects of one of the node's own manifests, which need no validation.
func (n *node) create(ctx context.Context, manifest string) error {
	return n.sup.run(ctx, nil, "kubectl", "create", "--validate=false", "-f", n.folder.Etc(manifest))
}

// loadImage makes an image of one of the node's own programs.
func (n *node) loadImage(ctx context.Context, tag, program string, args ...string) error {
	archive, err := os.CreateTemp("", program+".*.tar")
	if err != nil {
		return fmt.Errorf("image %s: %w", tag, err)
	}
	defer func() { _ = archive.Close(); _ = os.Remove(archive.Name()) }()
	if err := image.Write(archive, image.Spec{
		Tag:        tag,
		Entrypoint: append([]string{"/" + program}, args...),
		User:       image.DefaultUser,
		Files:      []image.File{{Source: n.sup.program(program), Target: "/" + program}},
	}); err != nil {
		return err
	}
	return n.sup.run(ctx, nil, "ctr", "images", "import", "--local", archive.Name())
}

// status tells the node's state; with health it also asks the API server and CoreDNS.
func (n *node) status(ctx context.Context, health bool) *Status {
	n.mu.Lock()
	s := &Status{Phase: n.phase, Steps: append([]Step(nil), n.stages...)}
	if n.err != nil {
		s.Error = n.err.Error()
	}
	n.mu.Unlock()
	s.Components, s.Forwards = n.sup.components(), n.forwards.list()
	if !health {
		return s
	}
	for _, c := range s.Components {
		if c.Ended != "" {
			s.Problems = append(s.Problems, fmt.Sprintf("%s has ended (%s); its log is %s", c.Name, c.Ended, c.Log))
		}
	}
	for _, probe := range []func(context.Context) error{
		n.api.ready,
		func(ctx context.Context) error { return n.api.nodeReady(ctx, n.spec.hostname()) },
		dnsAnswers,
	} {
		attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
		if err := probe(attempt); err != nil {
			s.Problems = append(s.Problems, err.Error())
		}
		cancel()
	}
	return s
}
