//go:build e2e

package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/jia-app/paymesh/hack/cluster/internal/machine"
)

// snapshot is what a cluster could leave behind on the machine.
type snapshot struct {
	Mounts     []string
	Interfaces []string
	Cgroups    []string // of this test's clusters; others may come and go meanwhile
	NFTables   string
	Sysctls    map[string]string
}

func takeSnapshot(t *testing.T) snapshot {
	t.Helper()
	var s snapshot
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	fatal(t, err)
	s.Mounts = strings.Split(string(mounts), "\n")
	slices.Sort(s.Mounts)
	interfaces, err := net.Interfaces()
	fatal(t, err)
	for _, i := range interfaces {
		s.Interfaces = append(s.Interfaces, i.Name)
	}
	for _, pattern := range []string{"/sys/fs/cgroup/paymesh-e2e-[ab]-*", "/sys/fs/cgroup/*/paymesh-e2e-[ab]-*"} {
		found, err := filepath.Glob(pattern)
		fatal(t, err)
		s.Cgroups = append(s.Cgroups, found...)
	}
	tables, err := exec.Command("nft", "list", "tables").CombinedOutput()
	fatal(t, err)
	s.NFTables = string(tables)
	s.Sysctls = map[string]string{}
	for _, key := range machine.Sysctls {
		value, err := os.ReadFile("/proc/sys/" + key)
		fatal(t, err)
		s.Sysctls[key] = strings.TrimSpace(string(value))
	}
	return s
}

// inNamespace lists the processes of a pid namespace, with what they run, and those anywhere that name dir.
func inNamespace(t *testing.T, namespace, dir string) []string {
	t.Helper()
	entries, err := filepath.Glob("/proc/[0-9]*")
	fatal(t, err)
	var found []string
	for _, process := range entries {
		// Processes end while they are looked at.
		link, err := os.Readlink(process + "/ns/pid")
		command, cmdErr := os.ReadFile(process + "/cmdline")
		if err != nil || cmdErr != nil {
			continue
		}
		words := strings.ReplaceAll(string(command), "\x00", " ")
		if link == namespace || strings.Contains(words, dir) {
			found = append(found, fmt.Sprintf("%s: %s", filepath.Base(process), words))
		}
	}
	return found
}

// assertGone fails if anything is left of a cluster that ran in this pid namespace and folder.
func assertGone(t *testing.T, namespace, dir string) {
	t.Helper()
	eventually(t, 10*time.Second, func() error {
		if left := inNamespace(t, namespace, dir); len(left) > 0 {
			return fmt.Errorf("processes are left: %s", strings.Join(left, "\n"))
		}
		return nil
	})
}

func assertSame(t *testing.T, before snapshot) {
	t.Helper()
	if diff := cmp.Diff(before, takeSnapshot(t)); diff != "" {
		t.Errorf("the machine is not as it was: %s", diff)
	}
}

func fatal(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, within time.Duration, check func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %v", within, err)
		}
		<-tick.C
	}
}
