package spire_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/spire"
	"github.com/jia-app/paymesh/internal/spire/registry"
	"github.com/jia-app/paymesh/test/lab"
)

// listener notes what a registry tells.
type listener struct {
	mu      sync.Mutex
	drifted []spire.Owner
	all     int
}

func (l *listener) drift(owner spire.Owner) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drifted = append(l.drifted, owner)
}

func (l *listener) everyone() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all++
}

func (l *listener) told() ([]spire.Owner, int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.drifted), l.all
}

// running is a registry on a server's admin socket that has read everything.
func running(t *testing.T, s *lab.SPIREServer, clusterName string, interval time.Duration) (*registry.Registry, *listener) {
	t.Helper()
	r := registry.New(admin(t, s), clusterID(t, clusterName), registry.Options{AuditInterval: interval, Logger: logr.Discard()})
	l := &listener{}
	r.Notify(l.drift, l.everyone)
	ctx, cancel := context.WithCancel(t.Context())
	var started sync.WaitGroup
	started.Go(func() {
		if err := r.Start(ctx); err != nil {
			t.Errorf("Start ended with %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		started.Wait()
	})
	lab.Eventually(t, patience, func() error {
		if state := r.State(); !state.Synced || state.Err != nil {
			return fmt.Errorf("state %+v", state)
		}
		return nil
	})
	return r, l
}

// others are all entries but those of a cluster, as SPIRE shows them.
func others(t *testing.T, s *lab.SPIREServer, clusterName string) []*types.Entry {
	t.Helper()
	return slices.DeleteFunc(all(t, s), func(e *types.Entry) bool {
		_, ours := spire.ParseEntryID(clusterName, e.Id)
		return ours
	})
}

func TestForeignEntriesAreNeitherKnownNorTouched(t *testing.T) {
	mine, alike := entry(t, "foreign", "a"), entry(t, "foreign-2", "a")
	apply(t, admin(t, server), spire.Plan{Create: []spire.Entry{alike}})
	mustCreate(t, server, manual("foreign-manual", "/foreign/manual"))
	mustCreate(t, server, manual("", "/foreign/random-id"))
	before := others(t, server, "foreign")

	r, l := running(t, server, "foreign", 100*time.Millisecond)
	apply(t, r, spire.Plan{Create: []spire.Entry{mine}})
	mine.Hint = "changed"
	apply(t, r, spire.Diff([]spire.Entry{mine}, r.Of(owner("a"))))
	if owners := r.Owners(spire.OwnerIdentity); !slices.Equal(owners, []spire.Owner{owner("a")}) {
		t.Errorf("it knows entries of %v", owners)
	}
	remove(t, server, mine.ID) // and by the time this is told, whole passes have been made
	lab.Eventually(t, patience, func() error {
		if drifted, _ := l.told(); !slices.Equal(drifted, []spire.Owner{owner("a")}) {
			return fmt.Errorf("told %v", drifted)
		}
		return nil
	})
	apply(t, r, spire.Diff([]spire.Entry{mine}, r.Of(owner("a"))))
	apply(t, r, spire.Diff(nil, r.Of(owner("a"))))
	if diff := cmp.Diff(before, others(t, server, "foreign"), protocmp.Transform()); diff != "" {
		t.Errorf("foreign entries changed:\n%s", diff)
	}
}

func TestWhatSomebodyDoesByHandIsNoticedWithinTheAuditIntervalAndPutRight(t *testing.T) {
	const interval = time.Second
	want := entry(t, "by-hand", "a")
	for name, act := range map[string]func(){
		"deleted": func() { remove(t, server, want.ID) },
		"made an administrator": func() {
			update(t, server, &types.Entry{Id: want.ID, Admin: true}, &types.EntryMask{Admin: true})
		},
		"DNS names turned round": func() {
			names := slices.Clone(want.DNSNames)
			slices.Reverse(names)
			update(t, server, &types.Entry{Id: want.ID, DnsNames: names}, &types.EntryMask{DnsNames: true})
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, l := running(t, server, "by-hand", interval)
			apply(t, r, spire.Diff([]spire.Entry{want}, r.Of(owner("a"))))
			act()
			begin := time.Now()
			lab.Eventually(t, patience, func() error {
				if drifted, _ := l.told(); !slices.Equal(drifted, []spire.Owner{owner("a")}) {
					return fmt.Errorf("told %v", drifted)
				}
				return nil
			})
			took := time.Since(begin)
			t.Logf("noticed after %s of %s", took.Round(time.Millisecond), interval)
			if took > 2*interval { // twice, for a machine that is busy
				t.Errorf("noticed after %s", took)
			}
			plan := spire.Diff([]spire.Entry{want}, r.Of(owner("a")))
			if plan.Empty() {
				t.Fatal("it was told, and there is nothing to do")
			}
			apply(t, r, plan)
			if held, _, err := admin(t, server).Get(t.Context(), want.ID); err != nil || !held.Equal(want) {
				t.Errorf("the server holds %+v (%v)", held, err)
			}
		})
	}
}

func TestAServerThatStopsAndComesBackLosesNothingAndIsNoticedSoon(t *testing.T) {
	own := lab.StartSPIREServer(t, lab.SPIREOptions{})
	r, l := running(t, own, "outage", time.Second)
	one, two := entry(t, "outage", "one"), entry(t, "outage", "two")
	apply(t, r, spire.Plan{Create: []spire.Entry{one}})

	own.Stop()
	if _, err := r.Apply(t.Context(), spire.Plan{Create: []spire.Entry{two}}); err == nil {
		t.Fatal("a write to a server that is stopped succeeded")
	}
	if state := r.State(); !state.Synced || state.Err == nil {
		t.Errorf("state %+v", state)
	}
	if _, all := l.told(); all != 2 {
		t.Errorf("everyone was called %d times, want once when read and once when away", all)
	}
	if held := r.Of(owner("one")); len(held) != 1 {
		t.Errorf("what was known is forgotten: %v", held)
	}

	own.Start(t)
	begin := time.Now()
	lab.Eventually(t, patience, func() error {
		if _, all := l.told(); all != 3 || r.State().Err != nil {
			return fmt.Errorf("state %+v, everyone called %d times", r.State(), all)
		}
		return nil
	})
	took := time.Since(begin)
	t.Logf("noticed %s after it was back", took.Round(time.Millisecond))
	if took > 4*time.Second {
		t.Errorf("noticed %s after it was back", took)
	}
	apply(t, r, spire.Diff([]spire.Entry{two}, r.Of(owner("two"))))
	for _, e := range []spire.Entry{one, two} {
		if held, found, err := admin(t, own).Get(t.Context(), e.ID); err != nil || !found || !held.Equal(e) || held.Revision != 0 {
			t.Errorf("the server holds %+v (%v, %v)", held, found, err)
		}
	}
}

func TestAServerThatStopsBetweenWritesIsNoticedByTheAudit(t *testing.T) {
	own := lab.StartSPIREServer(t, lab.SPIREOptions{})
	r, _ := running(t, own, "outage", 200*time.Millisecond)
	own.Stop()
	lab.Eventually(t, patience, func() error {
		if r.State().Err == nil {
			return errors.New("not noticed")
		}
		return nil
	})
}

func TestANewManagerFindsItsEntriesAndWritesNothing(t *testing.T) {
	id := clusterID(t, "restart")
	m := mesh.Mesh{Cluster: id, Nodes: []mesh.Node{nodeOf(t, id, "n1", "1"), nodeOf(t, id, "n2", "2")}}
	m.Identities = []mesh.Identity{identity(id, "a", m.Nodes...), identity(id, "b", m.Nodes[0])}
	want := spire.Entries(m)
	heldBy := func(r *registry.Registry) []spire.Held {
		held := slices.Concat(r.Of(owner("a")), r.Of(owner("b")))
		for _, node := range m.Nodes {
			held = append(held, r.Of(spire.Owner{Kind: spire.OwnerNode, NodeUID: node.UID})...)
		}
		return held
	}
	first, _ := running(t, server, "restart", time.Minute)
	apply(t, first, spire.Diff(want, heldBy(first)))

	second, l := running(t, server, "restart", 100*time.Millisecond)
	if plan := spire.Diff(want, heldBy(second)); !plan.Empty() {
		t.Errorf("it would write %+v", plan)
	}
	if diff := cmp.Diff(heldBy(first), heldBy(second)); diff != "" {
		t.Errorf("what the answers to the writes said and what was read differ:\n%s", diff)
	}
	if drifted, _ := l.told(); len(drifted) != 0 {
		t.Errorf("told %v", drifted)
	}
}

func TestOfAPlanThatIsRefusedInPartTheRestIsWrittenAndRemembered(t *testing.T) {
	r, _ := running(t, server, "partial", time.Minute)
	foreign := mustCreate(t, server, manual("partial-foreign", "/partial/taken"))
	good, refused, clash := entry(t, "partial", "good"), entry(t, "partial", "refused"), entry(t, "partial", "clash")
	refused.FederatesWith = []string{"nobody.org"}
	clash.SPIFFEID, clash.ParentID, clash.Selectors = "spiffe://jia.app/partial/taken", "spiffe://jia.app/spire/server", []string{"k8s:ns:manual"}
	codesOf := map[string]spire.Code{}
	for _, result := range apply(t, r, spire.Plan{Create: []spire.Entry{refused, good, clash}}) {
		codesOf[result.ID] = result.Code
		if result.ID == clash.ID && (result.Conflict == nil || result.Conflict.ID != foreign.Id) {
			t.Errorf("the conflict names %v", result.Conflict)
		}
	}
	if diff := cmp.Diff(map[string]spire.Code{good.ID: "", refused.ID: "Internal", clash.ID: spire.CodeAlreadyExists}, codesOf); diff != "" {
		t.Error(diff)
	}
	if len(r.Of(owner("good"))) != 1 || len(r.Of(owner("refused"))) != 0 || len(r.Of(owner("clash"))) != 0 {
		t.Error("it remembers otherwise than the server answered")
	}
}

func TestAServerWithMoreThanAPageOfEntriesIsReadToTheEnd(t *testing.T) {
	own := lab.StartSPIREServer(t, lab.SPIREOptions{})
	const many, batch = 1100, 100
	for from := 0; from < many; from += batch {
		request := &entryv1.BatchCreateEntryRequest{}
		for i := from; i < from+batch; i++ {
			request.Entries = append(request.Entries, manual("", fmt.Sprintf("/many/%d", i)))
		}
		if _, err := own.Entries.BatchCreateEntry(t.Context(), request); err != nil {
			t.Fatal(err)
		}
	}
	last := entry(t, "pages", "last")
	apply(t, admin(t, own), spire.Plan{Create: []spire.Entry{last}})
	r, l := running(t, own, "pages", 200*time.Millisecond)
	if held := r.Of(owner("last")); len(held) != 1 {
		t.Fatalf("it knows %v", held)
	}
	remove(t, own, last.ID)
	lab.Eventually(t, patience, func() error {
		if drifted, _ := l.told(); len(drifted) != 1 || len(r.Of(owner("last"))) != 0 {
			return fmt.Errorf("told %v", drifted)
		}
		return nil
	})
}
