// Package payment_test holds the payment service as its own mTLS endpoint (dataPlane: Library) on a real SPIRE: the binary,
// with the configuration that the operator renders, and no Kubernetes.
package payment_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"

	"github.com/jia-app/paymesh/payment/config"
	"github.com/jia-app/paymesh/payment/mtls"
	"github.com/jia-app/paymesh/test/lab"
)

// patience is how long a test waits for what should take milliseconds.
const patience = 20 * time.Second

// The parts that all tests share. Each test has identities of its own.
var (
	spire  *lab.SPIREServer
	agent  *lab.Agent
	binary string
)

func TestMain(m *testing.M) {
	lab.Main(m, func(t lab.T) {
		dir, err := os.MkdirTemp("", "pm-")
		if err != nil {
			t.Fatalf("make a folder for the binary: %v", err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		binary = filepath.Join(dir, "payment")
		if out, err := exec.Command("go", "build", "-o", binary, "github.com/jia-app/paymesh/cmd/payment").CombinedOutput(); err != nil {
			t.Fatalf("build cmd/payment: %v\n%s", err, out)
		}
		api := lab.StartAPIServer(t)
		spire = lab.StartSPIREServer(t, lab.SPIREOptions{APIServer: api})
		agent = spire.StartAgent(t, api.CreateNode(t, "node-1"))
	})
}

// name makes an ID of a test's own, with no entry yet. The agent gives all IDs of all tests to every process of this user, as
// it does to a workload with several identities.
func name(t *testing.T, role string) spiffeid.ID {
	t.Helper()
	id, err := spiffeid.FromPathf(spiffeid.RequireTrustDomainFromString(lab.TrustDomain), "/%s/%d", role, time.Now().UnixNano())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// enter makes an entry of an ID.
func enter(t *testing.T, id spiffeid.ID) spiffeid.ID {
	t.Helper()
	spire.AddUnixEntry(t, agent, id.Path())
	return id
}

// rotate has SPIRE issue a new certificate for an ID: its entry changes.
func rotate(t *testing.T, id spiffeid.ID, dnsName string) {
	t.Helper()
	path := &types.SPIFFEID{TrustDomain: lab.TrustDomain, Path: id.Path()}
	found, err := spire.Entries.ListEntries(t.Context(), &entryv1.ListEntriesRequest{Filter: &entryv1.ListEntriesRequest_Filter{BySpiffeId: path}})
	if err != nil || len(found.GetEntries()) != 1 {
		t.Fatalf("find the entry of %s: %v, %v", id, found, err)
	}
	entry := found.GetEntries()[0]
	entry.DnsNames = []string{dnsName}
	answer, err := spire.Entries.BatchUpdateEntry(t.Context(), &entryv1.BatchUpdateEntryRequest{Entries: []*types.Entry{entry}})
	if err != nil || codes.Code(answer.GetResults()[0].GetStatus().GetCode()) != codes.OK {
		t.Fatalf("update the entry of %s: %v, %v", id, answer, err)
	}
}

// identity is what a client or server in this process has of an ID.
func identity(t *testing.T, id spiffeid.ID) mtls.Identity {
	t.Helper()
	identity, err := mtls.Open(config.MTLS{WorkloadAPI: agent.WorkloadAPI}, id, logger(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = identity.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := identity.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	return identity
}

// volume is a ConfigMap as the kubelet mounts it: files are links to ..data/<name>, and ..data is one to a folder.
type volume struct {
	dir     string
	swapped int
}

// swap replaces the files as the kubelet does: a new folder, and a link that is renamed.
func (v *volume) swap(t *testing.T, files map[string]string) {
	t.Helper()
	v.swapped++
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	folder := filepath.Join(v.dir, fmt.Sprintf("..%d", v.swapped))
	check(os.Mkdir(folder, 0o700))
	for name, text := range files {
		check(os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600))
		_ = os.Symlink(filepath.Join("..data", name), filepath.Join(v.dir, name))
	}
	link := filepath.Join(v.dir, "..data_tmp")
	check(os.Symlink(filepath.Base(folder), link))
	check(os.Rename(link, filepath.Join(v.dir, "..data")))
	check(os.RemoveAll(filepath.Join(v.dir, fmt.Sprintf("..%d", v.swapped-1))))
}

// contains says whether a line of a log has all of these.
func contains(log fmt.Stringer, all ...string) bool {
	for line := range strings.Lines(log.String()) {
		if !slices.ContainsFunc(all, func(want string) bool { return !strings.Contains(line, want) }) {
			return true
		}
	}
	return false
}

// awaitLine waits for such a line: what a process writes comes a moment after what it answers.
func awaitLine(t *testing.T, log fmt.Stringer, all ...string) {
	t.Helper()
	lab.Eventually(t, patience, func() error {
		if !contains(log, all...) {
			return fmt.Errorf("the log has no line with %q:\n%s", all, log)
		}
		return nil
	})
}
