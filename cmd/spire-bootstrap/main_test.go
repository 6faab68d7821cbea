package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/spire"
	"github.com/jia-app/paymesh/internal/spire/client"
	"github.com/jia-app/paymesh/test/lab"
)

const patience = 20 * time.Second

// log collects what is logged.
type log struct {
	mu    sync.Mutex
	lines []string
}

func (l *log) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}

var logged log

func TestMain(m *testing.M) {
	ctrl.SetLogger(funcr.New(func(_, args string) {
		logged.mu.Lock()
		defer logged.mu.Unlock()
		logged.lines = append(logged.lines, args)
	}, funcr.Options{}))
	m.Run()
}

// bootstrap runs the command beside a server until the test ends, or until the function it returns is called.
func bootstrap(t *testing.T, server *lab.SPIREServer) (want []spire.Entry, stop func()) {
	t.Helper()
	f, err := parseFlags([]string{"--trust-domain", lab.TrustDomain, "--cluster-name", lab.ClusterName, "--server-socket", server.Socket, "--interval", "1s"})
	if err != nil {
		t.Fatal(err)
	}
	cluster, err := mesh.NewClusterID(f.trustDomain, f.clusterName)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := run(ctx, f); err != nil {
			t.Errorf("it ended with %v", err)
		}
	})
	stop = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(stop)
	return spire.Bootstrap(cluster, f.operator), stop
}

// holds waits until the server holds the entries, and returns the sum of their revisions.
func holds(t *testing.T, server *lab.SPIREServer, want []spire.Entry) (revisions int64) {
	t.Helper()
	c, err := client.NewUnix(server.Socket, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // nothing to tell
	lab.Eventually(t, patience, func() error {
		revisions = 0
		for _, entry := range want {
			held, found, err := c.Get(t.Context(), entry.ID)
			if err != nil {
				return err
			}
			if !found || !held.Equal(entry) {
				return fmt.Errorf("of %s it holds %+v (found: %v)", entry.ID, held, found)
			}
			revisions += held.Revision
		}
		return nil
	})
	return revisions
}

func TestTheManagersEntriesAreMadeAndPutRightAndLeftAloneOtherwise(t *testing.T) {
	server := lab.StartSPIREServer(t, lab.SPIREOptions{})
	want, stop := bootstrap(t, server)
	if revisions := holds(t, server, want); revisions != 0 {
		t.Errorf("made, they have been updated %d times", revisions)
	}
	if _, err := server.Entries.BatchDeleteEntry(t.Context(), &entryv1.BatchDeleteEntryRequest{Ids: []string{want[0].ID}}); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Entries.BatchUpdateEntry(t.Context(), &entryv1.BatchUpdateEntryRequest{
		Entries: []*types.Entry{{Id: want[1].ID, Downstream: true}}, InputMask: &types.EntryMask{Downstream: true},
	}); err != nil {
		t.Fatal(err)
	}
	if revisions := holds(t, server, want); revisions != 2 {
		t.Errorf("the one that was changed by hand has the revision %d, want 2: that change and ours", revisions)
	}

	stop() // and the next one finds all as it should be
	before := len(logged.text())
	bootstrap(t, server)
	lab.Eventually(t, patience, func() error {
		if said := logged.text()[before:]; !strings.Contains(said, "holds the manager's entries") {
			return fmt.Errorf("it said %q", said)
		}
		return nil
	})
	if revisions := holds(t, server, want); revisions != 2 {
		t.Errorf("a start wrote what was right already: revision %d", revisions)
	}
}

func TestAServerThatIsAwayIsWaitedFor(t *testing.T) {
	server := lab.StartSPIREServer(t, lab.SPIREOptions{})
	server.Stop()
	before := len(logged.text())
	want, _ := bootstrap(t, server)
	lab.Eventually(t, patience, func() error {
		if said := logged.text()[before:]; !strings.Contains(said, "does not answer") || !strings.Contains(said, filepath.Base(server.Socket)) {
			return fmt.Errorf("it said %q", said)
		}
		return nil
	})
	server.Start(t)
	holds(t, server, want)
}

func TestAnEntryOfSomebodyElsesInTheWayIsNamed(t *testing.T) {
	server := lab.StartSPIREServer(t, lab.SPIREOptions{})
	answer, err := server.Entries.BatchCreateEntry(t.Context(), &entryv1.BatchCreateEntryRequest{Entries: []*types.Entry{{
		Id:        "in-the-way",
		SpiffeId:  &types.SPIFFEID{TrustDomain: lab.TrustDomain, Path: "/paymesh/" + lab.ClusterName + "/nodes"},
		ParentId:  &types.SPIFFEID{TrustDomain: lab.TrustDomain, Path: "/spire/server"},
		Selectors: []*types.Selector{{Type: "k8s_psat", Value: "cluster:" + lab.ClusterName}},
	}}})
	if err != nil || codes.Code(answer.Results[0].Status.Code) != codes.OK {
		t.Fatal(answer, err)
	}
	want, _ := bootstrap(t, server)
	lab.Eventually(t, patience, func() error {
		if said := logged.text(); !strings.Contains(said, "entry in-the-way of somebody else's") {
			return fmt.Errorf("it said %q", said)
		}
		return nil
	})
	if _, err := server.Entries.BatchDeleteEntry(t.Context(), &entryv1.BatchDeleteEntryRequest{Ids: []string{"in-the-way"}}); err != nil {
		t.Fatal(err)
	}
	holds(t, server, want)
}

func TestFlagsThatCannotWorkAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"no trust domain":    {[]string{"--cluster-name", "main"}, "--trust-domain"},
		"no cluster":         {[]string{"--trust-domain", "jia.app"}, "--cluster-name"},
		"no interval":        {[]string{"--trust-domain", "jia.app", "--cluster-name", "main", "--interval", "0s"}, "--interval"},
		"an unknown flag":    {[]string{"--trust-domain", "jia.app", "--cluster-name", "main", "--colour", "red"}, "-colour"},
		"an argument":        {[]string{"--trust-domain", "jia.app", "--cluster-name", "main", "run"}, `"run" is not a flag`},
		"a value on its own": {[]string{"--zap-devel", "false", "--trust-domain", "jia.app", "--cluster-name", "main"}, `"false" is not a flag`},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := parseFlags(c.args); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want an error with %s", err, c.says)
			}
		})
	}
}
