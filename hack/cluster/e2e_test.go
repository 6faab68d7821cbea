//go:build e2e

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jia-app/paymesh/hack/cluster/internal/machine"
	"github.com/jia-app/paymesh/hack/cluster/internal/node"
	"github.com/jia-app/paymesh/hack/cluster/internal/state"
)

// lab is a cluster of this test's own, in a state folder of its own.
type lab struct {
	binary string
	home   string // XDG_STATE_HOME
	name   string
}

func (l lab) folder(t *testing.T) state.Folder {
	t.Helper()
	t.Setenv("XDG_STATE_HOME", l.home)
	f, err := state.Open(l.name, "")
	fatal(t, err)
	return f
}

func (l lab) command(args ...string) *exec.Cmd {
	cmd := exec.Command(l.binary, append([]string{"--name", l.name}, args...)...)
	cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+l.home)
	return cmd
}

func (l lab) try(args ...string) (string, error) {
	out, err := l.command(args...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("cluster %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

func (l lab) run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := l.try(args...)
	fatal(t, err)
	return out
}

// kubectl runs on the machine, whose files the node need not see: it has a /tmp and a /var of its own.
func (l lab) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command(filepath.Join(os.Getenv("PAYMESH_BIN_DIR"), "kubectl"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+strings.TrimSpace(l.run(t, "kubeconfig")))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// namespace is the pid namespace of the node.
func (l lab) namespace(t *testing.T) string {
	t.Helper()
	r, err := l.folder(t).Read()
	fatal(t, err)
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", r.Node.PID))
	fatal(t, err)
	return link
}

// get asks the server from a pod.
func (l lab) get(from string) (string, error) {
	return l.try("exec", "--", "kubectl", "exec", from, "--", "/netprobe", "get", "http://server")
}

func newLab(t *testing.T) lab {
	t.Helper()
	if os.Geteuid() != 0 || os.Getenv("PAYMESH_BIN_DIR") == "" {
		t.Fatal("this test needs root, and PAYMESH_BIN_DIR=$(hack/tools/tools.sh --dir) with the tools built")
	}
	// A short name: what lies in the folder has socket paths.
	home, err := os.MkdirTemp("", "e2e")
	fatal(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	l := lab{binary: filepath.Join(home, "cluster"), home: filepath.Join(home, "state"), name: "e2e-a"}
	build(t, l.binary, ".")
	build(t, filepath.Join(home, "netprobe"), "./testdata/netprobe")
	return l
}

func build(t *testing.T, output, pkg string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-o", output, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("build %s: %v: %s", pkg, err, out)
	}
}

// TestCluster is one story, since every step needs what the steps before it made.
func TestCluster(t *testing.T) {
	a := newLab(t)
	b := a
	b.name = "e2e-b"
	before := takeSnapshot(t)
	t.Cleanup(func() {
		for _, l := range []lab{a, b} {
			_, _ = l.try("down") // only finds something where a step has failed
		}
	})
	steps := []struct {
		name string
		do   func(*testing.T)
	}{
		{"up ends with a node that works", func(t *testing.T) { upWorks(t, a) }},
		{"up again changes nothing and says so", func(t *testing.T) { upAgain(t, a) }},
		{"exec passes the exit code on, and what runs cannot write outside", func(t *testing.T) { execWorks(t, a) }},
		{"a loaded image runs, by DNS and Service, and the log is where logs says", func(t *testing.T) { imageRuns(t, a) }},
		{"a forward leads from the loopback to a Service", func(t *testing.T) { forwardWorks(t, a) }},
		{"NetworkPolicy refuses and allows", func(t *testing.T) { policyWorks(t, a) }},
		{"a second cluster runs beside it, and its end does not touch the first", func(t *testing.T) { sideBySide(t, a, b) }},
		{"up finishes what a killed up has begun", func(t *testing.T) { upKilled(t, b) }},
		{"a component that ends is reported with its log", func(t *testing.T) { componentEnds(t, a) }},
		{"SIGKILL to the node ends all of it, and up works afterwards", func(t *testing.T) { killed(t, a) }},
		{"an interrupted up leaves nothing running", func(t *testing.T) { interrupted(t, b) }},
		{"down leaves the machine as it was", func(t *testing.T) { downLeavesNothing(t, before, a, b) }},
	}
	for _, step := range steps {
		if !t.Run(step.name, step.do) {
			t.Fatal("the steps after this one need it")
		}
	}
}

func upWorks(t *testing.T, l lab) {
	began := time.Now()
	out := l.run(t, "up")
	t.Logf("up took %s:\n%s", time.Since(began), out)
	kubeconfig := strings.TrimSpace(l.run(t, "kubeconfig"))
	if !strings.Contains(out, "export KUBECONFIG="+kubeconfig) || !strings.Contains(out, l.folder(t).Logs()) {
		t.Errorf("up does not say where the kubeconfig and the logs are:\n%s", out)
	}
	cmd := exec.Command(filepath.Join(os.Getenv("PAYMESH_BIN_DIR"), "kubectl"), "--kubeconfig", kubeconfig, "get", "nodes", "-o", "name")
	nodes, err := cmd.CombinedOutput()
	if err != nil || string(nodes) != "node/e2e-a\n" {
		t.Errorf("kubectl from the machine: %v: %s", err, nodes)
	}
	if out := l.run(t, "status"); !strings.Contains(out, "is up") || strings.Contains(out, "ENDED") {
		t.Errorf("status:\n%s", out)
	}
}

func upAgain(t *testing.T, l lab) {
	namespace := l.namespace(t)
	if out := l.run(t, "up"); !strings.Contains(out, "is up already") {
		t.Errorf("got:\n%s", out)
	}
	if l.namespace(t) != namespace {
		t.Error("it made a new node")
	}
}

func execWorks(t *testing.T, l lab) {
	var exit *exec.ExitError
	if _, err := l.try("exec", "--", "sh", "-c", "exit 7"); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("got %v, want exit code 7", err)
	}
	for _, path := range []string{"/etc/x", "/usr/x", "/x"} {
		if _, err := l.try("exec", "--", "touch", path); err == nil {
			t.Errorf("%s can be written", path)
		}
	}
	if out := l.run(t, "exec", "--", "hostname"); out != "e2e-a\n" {
		t.Errorf("the host name is %q", out)
	}
}

func imageRuns(t *testing.T, l lab) {
	t.Log(l.run(t, "load", "--tag", "test/netprobe:1", filepath.Join(filepath.Dir(l.binary), "netprobe")))
	pods, err := filepath.Abs("testdata/pods.yaml")
	fatal(t, err)
	l.kubectl(t, "apply", "-f", pods)
	l.kubectl(t, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=30s")
	eventually(t, 10*time.Second, func() error {
		out, err := l.get("stranger")
		if err == nil && !strings.Contains(out, "hello") {
			err = fmt.Errorf("got %q", out)
		}
		return err
	})
	for _, log := range strings.Fields(l.run(t, "logs")) {
		if _, err := os.Stat(log); err != nil {
			t.Errorf("logs names %s: %v", log, err)
		}
	}
	if out := l.run(t, "logs", "kubelet"); !strings.Contains(out, "default/server") {
		t.Error("the kubelet's log does not name the pod")
	}
}

func forwardWorks(t *testing.T, l lab) {
	const target = "server.default.svc.cluster.local:80"
	out := l.run(t, "forward", "0:"+target)
	port := regexp.MustCompile(`127\.0\.0\.1:(\d+) -> ` + target).FindStringSubmatch(out)
	if port == nil {
		t.Fatalf("got %q", out)
	}
	r, err := (&http.Client{Timeout: 5 * time.Second}).Get("http://127.0.0.1:" + port[1])
	fatal(t, err)
	body, err := io.ReadAll(r.Body)
	fatal(t, errors.Join(err, r.Body.Close()))
	if string(body) != "hello" {
		t.Errorf("got %q", body)
	}
	if out := l.run(t, "forward", "0:"+target); !strings.Contains(out, "127.0.0.1:"+port[1]) || !strings.Contains(out, "already") {
		t.Errorf("the second time: %q", out)
	}
}

func policyWorks(t *testing.T, l lab) {
	policy, err := filepath.Abs("testdata/policy.yaml")
	fatal(t, err)
	l.kubectl(t, "apply", "-f", policy)
	eventually(t, 10*time.Second, func() error {
		if out, err := l.get("stranger"); err == nil {
			return fmt.Errorf("the stranger still gets %q", out)
		}
		return nil
	})
	out, err := l.get("friend")
	fatal(t, err)
	if !strings.Contains(out, "hello") {
		t.Errorf("the friend gets %q", out)
	}
	if out, err := l.get("stranger"); err == nil || !strings.Contains(out, "http://server") {
		t.Errorf("the stranger gets %q, %v", out, err)
	}
	l.kubectl(t, "delete", "-f", policy)
	eventually(t, 10*time.Second, func() error { _, err := l.get("stranger"); return err })
}

func sideBySide(t *testing.T, a, b lab) {
	b.run(t, "up")
	namespace := b.namespace(t)
	for _, l := range []lab{a, b} {
		l.run(t, "status")
	}
	if out := b.kubectl(t, "get", "pods", "-n", "default", "-o", "name"); strings.Contains(out, "server") {
		t.Errorf("the second has the pods of the first: %s", out)
	}
	b.run(t, "down")
	assertGone(t, namespace, b.folder(t).Dir)
	if _, err := os.Stat(b.folder(t).Dir); !os.IsNotExist(err) {
		t.Errorf("its folder is left: %v", err)
	}
	a.run(t, "status")
	if _, err := a.get("friend"); err != nil {
		t.Error(err)
	}
}

func upKilled(t *testing.T, l lab) {
	cmd := l.command("up")
	fatal(t, cmd.Start())
	eventually(t, 10*time.Second, func() error {
		_, err := node.Ask(t.Context(), l.folder(t), false)
		return err
	})
	fatal(t, cmd.Process.Kill())
	_ = cmd.Wait()
	if out := l.run(t, "up"); !strings.Contains(out, "is up already") {
		t.Errorf("got:\n%s", out)
	}
	if out := l.run(t, "status"); !strings.Contains(out, "-> "+node.APIAddress) {
		t.Errorf("the API server is not forwarded:\n%s", out)
	}
	l.run(t, "down")
}

func componentEnds(t *testing.T, l lab) {
	s, err := node.Ask(t.Context(), l.folder(t), false)
	fatal(t, err)
	for _, c := range s.Components {
		if c.Name == "kube-proxy" {
			l.run(t, "exec", "--", "sh", "-c", fmt.Sprintf("kill -9 %d", c.PID))
		}
	}
	eventually(t, 5*time.Second, func() error {
		out, err := l.try("status")
		if err == nil || !strings.Contains(out, "kube-proxy has ended (killed by SIGKILL); its log is "+l.folder(t).Log("kube-proxy")) {
			return fmt.Errorf("status says: %s", out)
		}
		return nil
	})
	if out, err := l.try("up"); err == nil || !strings.Contains(out, "`down`, then `up`") {
		t.Errorf("up says: %s", out)
	}
}

func killed(t *testing.T, l lab) {
	namespace, dir := l.namespace(t), l.folder(t).Dir
	r, err := l.folder(t).Read()
	fatal(t, err)
	fatal(t, syscall.Kill(r.Node.PID, syscall.SIGKILL))
	assertGone(t, namespace, dir)
	if out, err := l.try("status"); err == nil || !strings.Contains(out, "does not run") {
		t.Errorf("status says: %s", out)
	}
	l.run(t, "up")
	if out := l.kubectl(t, "get", "pods", "-n", "default", "-o", "name"); out != "" {
		t.Errorf("the new cluster has old pods: %s", out)
	}
}

func interrupted(t *testing.T, l lab) {
	cmd := l.command("up")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	fatal(t, cmd.Start())
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var namespace string
	eventually(t, 10*time.Second, func() error {
		r, err := l.folder(t).Read()
		if err != nil || r == nil || !r.Node.Alive() {
			return fmt.Errorf("no node yet: %w", err)
		}
		namespace = l.namespace(t)
		s, err := node.Ask(ctx, l.folder(t), false)
		if err == nil && len(s.Components) == 0 {
			err = errors.New("no component yet")
		}
		return err
	})
	fatal(t, cmd.Process.Signal(os.Interrupt))
	if err := cmd.Wait(); err == nil || !strings.Contains(out.String(), "interrupted") {
		t.Errorf("up ended with %v: %s", err, &out)
	}
	assertGone(t, namespace, l.folder(t).Dir)
	if _, err := os.Stat(l.folder(t).Logs()); err != nil {
		t.Errorf("the logs are not where up says: %v", err)
	}
}

func downLeavesNothing(t *testing.T, before snapshot, all ...lab) {
	namespace := all[0].namespace(t)
	for _, l := range all {
		l.run(t, "down")
		l.run(t, "down") // there is nothing to do, which is success
	}
	assertGone(t, namespace, all[0].home)
	assertSame(t, before)
	if record, err := os.ReadFile(filepath.Join(machine.DefaultDir, "record.json")); err == nil && strings.Contains(string(record), all[0].home) {
		t.Errorf("the machine's record still has these clusters: %s", record)
	}
	if entries, err := os.ReadDir(all[0].home); err != nil || len(entries) > 0 {
		t.Errorf("files are left: %v, %v", entries, err)
	}
}
