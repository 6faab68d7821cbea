// Package lab is for tests: it starts the real parts that paymesh meets (etcd and kube-apiserver, SPIRE servers and
// agents) on one machine, without root, a container or a kubelet. What it is asked for comes out running, and ends with
// the test.
package lab

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// startTimeout is for a part to come up: seconds on an idle machine, longer where several tests share two cores.
const startTimeout = time.Minute

// pollInterval is how often something is looked at that nothing tells about.
const pollInterval = 20 * time.Millisecond

// T is what the lab needs of a test: a *testing.T, a testing.TB of Ginkgo's, or what Main gives to its setup.
type T interface {
	Helper()
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
	Cleanup(f func())
	Failed() bool
}

// Main runs setup before the tests of a package and what it had cleaned up after them; call it from TestMain. It is for
// parts that all tests of the package share.
func Main(m *testing.M, setup func(t T)) {
	os.Exit(run(m, setup))
}

func run(m *testing.M, setup func(t T)) (code int) {
	t := &mainT{code: 1}
	defer t.cleanUp()
	setup(t)
	t.code = m.Run()
	return t.code
}

type mainT struct {
	code     int
	mu       sync.Mutex
	cleanups []func()
}

func (*mainT) Helper() {}

func (*mainT) Logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func (*mainT) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func (t *mainT) Failed() bool { return t.code != 0 }

func (t *mainT) Cleanup(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cleanups = append(t.cleanups, f)
}

func (t *mainT) cleanUp() {
	for _, f := range slices.Backward(t.cleanups) {
		f()
	}
}

// Binary finds a pinned binary: <NAME>_BIN (SPIRE_SERVER_BIN), KUBEBUILDER_ASSETS for the API server's parts,
// PAYMESH_BIN_DIR, or where hack/tools/tools.sh puts it.
func Binary(t T, name string) string {
	t.Helper()
	if path := os.Getenv(strings.ToUpper(strings.ReplaceAll(name, "-", "_")) + "_BIN"); path != "" {
		return path
	}
	dir := os.Getenv("PAYMESH_BIN_DIR")
	if assets := os.Getenv("KUBEBUILDER_ASSETS"); assets != "" && (name == "etcd" || name == "kube-apiserver") {
		dir = assets
	}
	if dir == "" {
		out, err := exec.Command(filepath.Join(repository(), "hack", "tools", "tools.sh"), "--dir").Output() //nolint:noctx // it only prints
		if err != nil {
			t.Fatalf("ask hack/tools/tools.sh where %s is: %v", name, err)
		}
		dir = strings.TrimSpace(string(out))
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("no %s: hack/tools/tools.sh %s builds it (%v)", name, name, err)
	}
	return path
}

func repository() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// dir makes a folder with a short name, since a Unix socket's path has at most 108 bytes. It is kept where the test
// failed, and named.
func dir(t T, of string) string {
	t.Helper()
	path, err := os.MkdirTemp("", "pm-")
	if err != nil {
		t.Fatalf("make a folder for %s: %v", of, err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the files and logs of %s are in %s", of, path)
			return
		}
		_ = os.RemoveAll(path)
	})
	return path
}

// FreePort finds a TCP port on loopback that nothing listens on.
func FreePort(t T) int {
	t.Helper()
	return int(netip.MustParseAddrPort(FreeAddress(t)).Port())
}

// FreeAddress is host:port of such a port.
func FreeAddress(t T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it returns at once
	if err != nil {
		t.Fatalf("find a free port: %v", err)
	}
	defer listener.Close() //nolint:errcheck // nothing was sent
	return listener.Addr().String()
}

// Eventually polls until check returns nil, and fails the test with its last error when that takes longer than within.
func Eventually(t T, within time.Duration, check func() error) {
	t.Helper()
	if err := poll(within, check); err != nil {
		t.Fatalf("not within %s: %v", within, err)
	}
}

func poll(within time.Duration, check func() error) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	late := time.After(within)
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-late:
			return err
		case <-tick.C:
		}
	}
}
