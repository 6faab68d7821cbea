package node

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/jia-app/paymesh/hack/cluster/internal/state"
)

func TestParseForward(t *testing.T) {
	for arg, want := range map[string]Forward{
		"8443:10.96.0.20:443":                  {8443, "10.96.0.20:443"},
		"0:gateway.edge.svc.cluster.local:443": {0, "gateway.edge.svc.cluster.local:443"},
		"80:[::1]:443":                         {80, "[::1]:443"},
		"":                                     {}, "80": {}, "80:host": {}, "x:host:80": {}, "-1:host:80": {}, "65536:host:80": {}, "80::80": {}, "80:host:0": {}, "80:host:x": {},
	} {
		got, err := ParseForward(arg)
		if diff := cmp.Diff(want, got); diff != "" || (err == nil) == (want == Forward{}) {
			t.Errorf("%q: %v %s", arg, err, diff)
		}
	}
}

func TestForwarderRelaysBothWaysAndEndsInOrder(t *testing.T) {
	server, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	go func() {
		conn, err := server.Accept()
		if err != nil {
			return
		}
		question, _ := io.ReadAll(conn) // ends only if the client's end is passed on
		_, _ = conn.Write(append([]byte("echo "), question...))
		_ = conn.Close()
	}()
	if got := ask(t, forwardTo(t, server.Addr().String()), "hello"); got != "echo hello" {
		t.Errorf("got %q", got)
	}
}

func TestForwarderResetsTheClientWhereNothingListens(t *testing.T) {
	closed, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp4", forwardTo(t, closed.Addr().String()))
	if err == nil {
		defer func() { _ = conn.Close() }()
		_, err = conn.Read(make([]byte, 1))
	} // else the reset was there before the dial had returned
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
}

func forwardTo(t *testing.T, target string) string {
	t.Helper()
	listener, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	socket, err := listener.File()
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	f := &forwarder{dialer: &net.Dialer{}}
	if err := f.add(Forward{Target: target}, socket); err != nil {
		t.Fatal(err)
	}
	return address
}

func ask(t *testing.T, address, question string) string {
	t.Helper()
	conn, err := net.Dial("tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write([]byte(question)); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

func TestTasksRunInOrderAndTheFirstFailureStopsTheRest(t *testing.T) {
	broken := errors.New("broken")
	var mu sync.Mutex
	var done []string
	report := func(name string) { mu.Lock(); done = append(done, name); mu.Unlock() }
	ok := func(context.Context) error { return nil }
	graph := newTasks(t.Context())
	graph.add("a", ok)
	graph.add("b", ok, "a")
	graph.add("c", func(context.Context) error { return broken }, "b")
	graph.add("d", ok, "c")
	graph.add("waits", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	if err := graph.run(report); !errors.Is(err, broken) || !strings.HasPrefix(err.Error(), "c: ") {
		t.Errorf("got %v", err)
	}
	if diff := cmp.Diff([]string{"a", "b"}, done); diff != "" {
		t.Error(diff)
	}
}

func TestTasksSayWhatTheyWaitedForWhenTheTimeIsOver(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	graph := newTasks(ctx)
	for _, name := range []string{"a", "b"} {
		graph.add(name, func(ctx context.Context) error { <-ctx.Done(); return errors.New("waits for " + name) })
	}
	err := graph.run(func(string) {})
	if err == nil || !strings.Contains(err.Error(), "a: waits for a") || !strings.Contains(err.Error(), "b: waits for b") {
		t.Errorf("got %v", err)
	}
}

func TestJudgeNodeSaysWhyANodeIsNotReady(t *testing.T) {
	for raw, want := range map[string]string{
		`{"status":{"conditions":[{"type":"DiskPressure","status":"False"},{"type":"Ready","status":"True"}]}}`: "",
		`{"status":{"conditions":[{"type":"Ready","status":"False","message":"no network"}]}}`:                  "no network",
		`{"status":{}}`: "no Ready condition",
		`nonsense`:      "invalid character",
	} {
		err := judgeNode("x", []byte(raw))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", raw, err, want)
		}
	}
}

func TestPrepareRendersEveryFileForThisCluster(t *testing.T) {
	f, err := state.Open("x", filepath.Join(t.TempDir(), "x"))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Create(); err != nil {
		t.Fatal(err)
	}
	s := Spec{Name: "x", Dir: f.Dir, Programs: map[string]string{"runc": "/opt/runc"}}
	if err := Prepare(s, 7, time.Now()); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string][]string{
		f.Etc("containerd.toml"):      {`sandbox = "docker.io/paymesh/pause:1"`, `bin_dirs = ["` + f.Bin() + `"]`, `BinaryName = "` + f.Bin() + `/runc"`},
		f.Etc("kubelet.yaml"):         {"address: 10.250.0.2", "clusterDNS: [10.96.0.10]", f.Etc("pki") + "/ca.crt"},
		f.Etc("kube-proxy.yaml"):      {"hostnameOverride: x\n", "mode: nftables"},
		f.Etc("coredns.yaml"):         {"clusterIP: 10.96.0.10", "image: paymesh/coredns:1"},
		f.Etc("volumes.yaml"):         {"local: {path: /var/lib/volumes/local-19}", "values: [x]"},
		f.Kubeconfig():                {"server: https://127.0.0.1:7\n"},
		f.InnerKubeconfig():           {"server: https://127.0.0.1:6443\n"},
		f.Etc("kubelet.kubeconfig"):   {"server: https://127.0.0.1:6443\n"},
		f.Etc("pki", "sa.key"):        {"PRIVATE KEY"},
		f.Etc("pki", "apiserver.crt"): {"CERTIFICATE"},
	} {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
		}
		for _, text := range want {
			if !strings.Contains(string(raw), text) {
				t.Errorf("%s lacks %q", path, text)
			}
		}
	}
	raw, err := os.ReadFile(f.Etc("cni", "10-paymesh.conflist"))
	if err != nil || !json.Valid(raw) {
		t.Errorf("the CNI configuration is no JSON: %v\n%s", err, raw)
	}
	if info, err := os.Stat(f.Kubeconfig()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("others can read the kubeconfig: %v, %v", info.Mode(), err)
	}
}

func TestEnvironmentLeavesTheMachinesSettingsOut(t *testing.T) {
	t.Setenv("https_proxy", "http://proxy")
	t.Setenv("KUBECONFIG", "/the/users")
	env := environment(state.Folder{Name: "x", Dir: "/s"})
	for _, kv := range env {
		if strings.HasPrefix(kv, "https_proxy=") || kv == "KUBECONFIG=/the/users" {
			t.Errorf("%s is passed on", kv)
		}
	}
	if !slices.Contains(env, "KUBECONFIG=/s/etc/admin.kubeconfig") {
		t.Errorf("no kubeconfig in %v", env)
	}
}
