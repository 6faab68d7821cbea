package main

import (
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/jia-app/paymesh/hack/cluster/internal/node"
)

func TestProgramsComeFromTheEnvironmentFirst(t *testing.T) {
	tools, assets := t.TempDir(), t.TempDir()
	program := func(dir, name string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	want := map[string]string{}
	for _, name := range node.Programs {
		want[name] = program(tools, name)
	}
	want["kube-apiserver"] = program(assets, "kube-apiserver")
	want["etcd"] = program(t.TempDir(), "my-etcd")
	want["kubectl"] = program(assets, "kubectl")
	env := map[string]string{"KUBEBUILDER_ASSETS": assets, "ETCD_BIN": want["etcd"]}
	got, err := findPrograms(tools, func(key string) string { return env[key] })
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestMissingProgramsAreNamedWithTheCommandThatBuildsThem(t *testing.T) {
	_, err := findPrograms(t.TempDir(), func(string) string { return "" })
	if err == nil || !strings.Contains(err.Error(), "hack/tools/tools.sh etcd kube-apiserver") {
		t.Errorf("got %v", err)
	}
}

func TestAForwardIsFoundByItsTarget(t *testing.T) {
	all := []node.Forward{{Port: 1, Target: "a:1"}, {Port: 2, Target: "b:1"}}
	for _, c := range []struct {
		wanted node.Forward
		port   int
	}{
		{node.Forward{Target: "b:1"}, 2},
		{node.Forward{Port: 2, Target: "b:1"}, 2},
		{node.Forward{Port: 3, Target: "b:1"}, 0},
		{node.Forward{Target: "c:1"}, 0},
	} {
		got := find(all, c.wanted)
		if c.port == 0 && got != nil || c.port != 0 && (got == nil || got.Port != c.port) {
			t.Errorf("%s: got %v", c.wanted, got)
		}
	}
}

func TestAnUnknownCommandShowsTheUsage(t *testing.T) {
	if err := run(t.Context(), []string{"explode"}, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("got %v", err)
	}
}

func TestThePortsOfTheLoopbackAreFreeOnes(t *testing.T) {
	a, err := listen(0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	b, err := listen(0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	if a.Addr().String() == b.Addr().String() {
		t.Error("both got the same port")
	}
}
