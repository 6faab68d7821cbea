package registry_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/apimachinery/pkg/types"

	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/spire"
	"github.com/jia-app/paymesh/internal/spire/registry"
)

const interval = registry.DefaultAuditInterval

// entry is an entry of cluster main for identity ns/<name> on node <node>.
func entry(name, node string) spire.Entry {
	return spire.Entry{
		ID: "pm1.main.ns." + name + "." + node, SPIFFEID: "spiffe://jia.app/" + name, ParentID: "spiffe://jia.app/paymesh/main/node/" + node,
		Selectors: []string{"k8s:ns:ns", "k8s:sa:" + name},
	}
}

func ownerOf(name string) spire.Owner {
	return spire.Owner{Kind: spire.OwnerIdentity, Identity: types.NamespacedName{Namespace: "ns", Name: name}}
}

func foreign(id string) spire.Entry {
	e := entry("a", "1")
	e.ID = id
	return e
}

func with(e spire.Entry, hint string) spire.Entry {
	e.Hint = hint
	return e
}

// told is what a registry told its listener.
type told struct {
	mu      sync.Mutex
	drifted []spire.Owner
	all     int
}

func (l *told) owners() []spire.Owner {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.drifted)
}

func (l *told) everyone() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all
}

// start runs a registry until the test ends, in a bubble of its own time, and waits until it has nothing to do now.
func start(t *testing.T, f *fake, options registry.Options) (*registry.Registry, *told) {
	t.Helper()
	cluster, err := mesh.NewClusterID("jia.app", "main")
	if err != nil {
		t.Fatal(err)
	}
	r, listener := registry.New(f, cluster, options), &told{}
	r.Notify(func(owner spire.Owner) {
		listener.mu.Lock()
		defer listener.mu.Unlock()
		listener.drifted = append(listener.drifted, owner)
	}, func() {
		listener.mu.Lock()
		defer listener.mu.Unlock()
		listener.all++
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := r.Start(ctx); err != nil {
			t.Errorf("Start ended with %v", err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	synctest.Wait()
	return r, listener
}

// pass lets time pass.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestItReadsEverythingAndRemembersWhatIsOfThisCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(entry("a", "1"), foreign("pm1.main-2.ns.a.1"), foreign("c44be32e-ec91-4d2d-8077-c2942f7f1f67"), entry("a", "2"), entry("b", "1"))
		f.pageSize = 2
		r, listener := start(t, f, registry.Options{})
		if s := r.State(); !s.Synced || s.Err != nil || listener.everyone() != 1 {
			t.Fatalf("state %+v, everyone called %d times", s, listener.everyone())
		}
		if got := ids(r.Of(ownerOf("a"))); !slices.Equal(got, []string{"pm1.main.ns.a.1", "pm1.main.ns.a.2"}) {
			t.Errorf("of a: %v", got)
		}
		if got := r.Owners(spire.OwnerIdentity); len(got) != 2 || !slices.Contains(got, ownerOf("a")) || !slices.Contains(got, ownerOf("b")) {
			t.Errorf("owners: %v", got)
		}
		if got := r.Owners(spire.OwnerNode); len(got) != 0 {
			t.Errorf("owners that are nodes: %v", got)
		}
	})
}

func TestItTellsWhichBundlesHaveComeAndGoneWithinTheAuditInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.bundles = []string{"a.example", "b.example"}
		r, _ := start(t, f, registry.Options{})
		if got := r.Bundles(); !slices.Equal(got, []string{"a.example", "b.example"}) {
			t.Fatalf("bundles %v", got)
		}
		var told [][]string
		r.NotifyBundles(func(turned []string) { told = append(told, turned) })
		pass(registry.DefaultAuditInterval)
		f.by(func() { f.bundles = []string{"b.example", "c.example"} })
		pass(registry.DefaultAuditInterval)
		if want := [][]string{{"c.example", "a.example"}}; !cmp.Equal(want, told) {
			t.Errorf("told %v, want %v", told, want)
		}
		if got := r.Bundles(); !slices.Equal(got, []string{"b.example", "c.example"}) {
			t.Errorf("bundles %v", got)
		}
	})
}

func TestAnEntryIsSeenOnceItWasReadAsItWasWrittenAndNotByTheAnswerToTheWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(entry("read", "1"))
		r, _ := start(t, f, registry.Options{})
		one := []spire.Entry{entry("a", "1")}
		seen := func(when string, want bool) {
			t.Helper()
			if got := r.Seen(one); got != want {
				t.Errorf("%s: seen is %v", when, got)
			}
		}
		if !r.Seen([]spire.Entry{entry("read", "1")}) || !r.Seen(nil) {
			t.Error("what was there in the beginning is not seen")
		}
		seen("before it is there", false)
		if _, err := r.Apply(t.Context(), spire.Plan{Create: one}); err != nil {
			t.Fatal(err)
		}
		seen("just written", false)
		pass(registry.DefaultAuditInterval)
		seen("after an audit", true)
		changed := one[0]
		changed.Hint = "new"
		if _, err := r.Apply(t.Context(), spire.Plan{Update: []spire.Entry{changed}}); err != nil {
			t.Fatal(err)
		}
		seen("another was written", false)
		one = []spire.Entry{changed}
		seen("just changed", false)
		pass(registry.DefaultAuditInterval)
		seen("after another audit", true)
		f.by(func() { f.delete(changed.ID) })
		pass(registry.DefaultAuditInterval)
		seen("deleted by somebody", false)
	})
}

func TestADeletedChangedOrUnexpectedEntryIsToldWithinTheAuditIntervalAndNothingElseIs(t *testing.T) {
	for name, test := range map[string]struct {
		by   func(f *fake)
		want []spire.Owner
		held int
	}{
		"nothing happened":     {func(*fake) {}, nil, 2},
		"deleted":              {func(f *fake) { f.delete("pm1.main.ns.a.1") }, []spire.Owner{ownerOf("a")}, 1},
		"changed":              {func(f *fake) { f.edit("pm1.main.ns.a.1", func(h *spire.Held) { h.Admin = true }) }, []spire.Owner{ownerOf("a")}, 2},
		"made":                 {func(f *fake) { f.create(entry("c", "1")) }, []spire.Owner{ownerOf("c")}, 2},
		"touched, not changed": {func(f *fake) { f.edit("pm1.main.ns.a.1", func(*spire.Held) {}) }, nil, 2},
		"deleted and made again as it was": {func(f *fake) {
			f.delete("pm1.main.ns.a.1")
			f.create(entry("a", "1"))
		}, nil, 2},
		"deleted and made again otherwise, at the same revision": {func(f *fake) {
			f.delete("pm1.main.ns.a.1")
			f.create(with(entry("a", "1"), "x"))
		}, []spire.Owner{ownerOf("a")}, 2},
		"a foreign entry": {func(f *fake) { f.create(foreign("pm1.main-2.ns.a.1")) }, nil, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(entry("a", "1"), entry("a", "2"))
				r, listener := start(t, f, registry.Options{})
				pass(interval / 3) // the worst moment is just after the page was read
				f.by(func() { test.by(f) })
				pass(interval)
				if diff := cmp.Diff(test.want, listener.owners()); diff != "" {
					t.Errorf("told (-want +got):\n%s", diff)
				}
				if got := r.Of(ownerOf("a")); len(got) != test.held {
					t.Errorf("of a it remembers %v", ids(got))
				}
				told := len(listener.owners())
				pass(3 * interval)
				if len(listener.owners()) != told {
					t.Errorf("told again: %v", listener.owners())
				}
				if f.count("Apply") != 0 {
					t.Error("it wrote by itself")
				}
			})
		})
	}
}

func TestTheAuditAsksForLessThanAPageASecond(t *testing.T) {
	for name, test := range map[string]struct{ entries, least, most int }{
		"a small server":  {5, 24, 28},   // two pages (the last one empty) and the bundles, twice in an interval, and a probe before each
		"a server of 100": {100, 54, 56}, // 51 pages of two, and the bundles
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				f.pageSize = 2
				if test.entries == 5 {
					f.pageSize = 5
				}
				for i := range test.entries {
					f.create(foreign(fmt.Sprint(i)))
				}
				start(t, f, registry.Options{})
				reads := func() int { return f.count("List") + f.count("Bundles") }
				before := reads()
				pass(2 * interval)
				calls := reads() - before
				if calls < test.least || calls > test.most {
					t.Errorf("%d calls in %s, want %d to %d", calls, 2*interval, test.least, test.most)
				}
				if f.count("Get") != 0 {
					t.Errorf("%d single entries were read, and none differs", f.count("Get"))
				}
			})
		})
	}
}

func TestAServerThatIsAwayIsAskedAgainAndEveryoneIsToldOnEachTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(entry("a", "1"))
		r, listener := start(t, f, registry.Options{})
		f.by(func() { f.away = true })
		if _, err := r.Apply(t.Context(), spire.Plan{Create: []spire.Entry{entry("b", "1")}}); err == nil {
			t.Fatal("a write to a server that is away succeeded")
		}
		synctest.Wait()
		if s := r.State(); !s.Synced || s.Err == nil || listener.everyone() != 2 {
			t.Fatalf("state %+v, everyone called %d times, want 2", s, listener.everyone())
		}
		if got := r.Of(ownerOf("a")); len(got) != 1 {
			t.Errorf("what was known is forgotten: %v", got)
		}
		pass(time.Minute)
		f.by(func() { f.away = false })
		pass(2 * time.Second)
		if s := r.State(); s.Err != nil || listener.everyone() != 3 {
			t.Errorf("2 s after it came back: state %+v, everyone called %d times, want 3", s, listener.everyone())
		}
	})
}

func TestAServerThatGoesAwayIsNoticedWithinFourSecondsThoughNothingIsWritten(t *testing.T) {
	for at := range 15 {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(entry("a", "1"))
			r, listener := start(t, f, registry.Options{})
			pass(time.Duration(at)*time.Second + time.Millisecond)
			f.by(func() { f.away = true })
			pass(4 * time.Second)
			if r.State().Err == nil || listener.everyone() != 2 {
				t.Errorf("gone after %d s: state %+v, everyone called %d times, want 2", at, r.State(), listener.everyone())
			}
		})
	}
}

func TestAServerThatIsAwayFromTheBeginningIsReadWhenItComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(entry("a", "1"))
		f.away = true
		r, _ := start(t, f, registry.Options{})
		pass(time.Hour)
		if s := r.State(); s.Synced || s.Err == nil {
			t.Errorf("state %+v", s)
		}
		if _, err := r.Apply(t.Context(), spire.Plan{Delete: []string{"pm1.main.ns.a.1"}}); err == nil {
			t.Error("something was written before everything was read")
		}
		f.by(func() { f.away = false })
		pass(time.Second)
		if s := r.State(); !s.Synced || s.Err != nil || len(r.Of(ownerOf("a"))) != 1 {
			t.Errorf("state %+v, of a %v", s, r.Of(ownerOf("a")))
		}
	})
}

func TestAnAnswerThatWasLostIsFoundOutBeforeAnybodyWritesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(entry("a", "1"), entry("b", "1"))
		r, listener := start(t, f, registry.Options{})
		r.Notify(func(spire.Owner) {}, func() {
			if r.State().Err == nil && len(r.Of(ownerOf("c"))) == 0 {
				t.Error("everyone is told that the server is back, and does not find what it holds")
			}
		})
		f.by(func() { f.lost = true })
		plan := spire.Plan{Create: []spire.Entry{entry("c", "1")}, Update: []spire.Entry{with(entry("a", "1"), "x")}, Delete: []string{"pm1.main.ns.b.1"}}
		if _, err := r.Apply(t.Context(), plan); err == nil {
			t.Fatal("the answer was not lost")
		}
		f.by(func() { f.lost = false })
		pass(2 * time.Second)
		if s := r.State(); s.Err != nil {
			t.Fatalf("state %+v", s)
		}
		for owner, want := range map[string][]spire.Entry{"a": {with(entry("a", "1"), "x")}, "b": nil, "c": {entry("c", "1")}} {
			if left := spire.Diff(want, r.Of(ownerOf(owner))); !left.Empty() {
				t.Errorf("%s would be written again: %+v", owner, left)
			}
		}
		if listener.everyone() != 3 {
			t.Errorf("everyone called %d times, want 3", listener.everyone())
		}
	})
}

func TestAnEntryWhoseFateIsUnknownIsWrittenThoughItIsRememberedSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(entry("a", "1"))
		r, _ := start(t, f, registry.Options{})
		f.by(func() { f.lost = true })
		_, _ = r.Apply(t.Context(), spire.Plan{Update: []spire.Entry{with(entry("a", "1"), "x")}})
		f.by(func() { f.lost = false })
		if _, err := r.Apply(t.Context(), spire.Plan{Update: []spire.Entry{entry("a", "1")}}); err != nil {
			t.Fatal(err)
		}
		if held := f.find("pm1.main.ns.a.1"); !held.Equal(entry("a", "1")) {
			t.Errorf("the server holds %+v", held)
		}
	})
}

func TestACallerThatGoesAwaySaysNothingAboutTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		r, listener := start(t, f, registry.Options{})
		f.lag = time.Second
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := r.Apply(ctx, spire.Plan{Create: []spire.Entry{entry("a", "1")}}); err == nil {
			t.Error("a write that was given up succeeded")
		}
		if s := r.State(); s.Err != nil || listener.everyone() != 1 {
			t.Errorf("state %+v, everyone called %d times", s, listener.everyone())
		}
	})
}

func TestAServerThatReadsAndRefusesToWriteIsNotAskedInATightLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.lost = true
		r, listener := start(t, f, registry.Options{})
		r.Notify(func(spire.Owner) {}, func() {
			if r.State().Err == nil {
				go func() {
					_, _ = r.Apply(t.Context(), spire.Plan{Create: []spire.Entry{with(entry("a", "1"), fmt.Sprint(rand.Int()))}})
				}()
			}
		})
		_, _ = r.Apply(t.Context(), spire.Plan{Create: []spire.Entry{entry("a", "1")}})
		pass(10 * time.Minute)
		if n := f.count("Apply"); n < 15 || n > 40 {
			t.Errorf("%d writes in ten minutes, everyone called %d times", n, listener.everyone())
		}
	})
}

func TestApplyWritesOnlyWhatIsOfThisCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(foreign("somebody-elses"))
		r, _ := start(t, f, registry.Options{})
		for _, plan := range []spire.Plan{
			{Delete: []string{"somebody-elses"}},
			{Update: []spire.Entry{foreign("pm1.main-2.ns.a.1")}},
			{Create: []spire.Entry{entry("a", "1"), foreign("x")}},
		} {
			if _, err := r.Apply(t.Context(), plan); err == nil || f.count("Apply") != 0 {
				t.Errorf("%+v was written: %v", plan, err)
			}
		}
		if results, err := r.Apply(t.Context(), spire.Plan{}); results != nil || err != nil || f.count("Apply") != 0 {
			t.Errorf("an empty plan asked something of the server: %v, %v", results, err)
		}
	})
}

func TestTwoThatWantTheSameEntryAtOnceWriteItOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		r, listener := start(t, f, registry.Options{})
		f.lag = time.Second
		var both sync.WaitGroup
		for range 2 {
			both.Go(func() {
				results, err := r.Apply(t.Context(), spire.Plan{Create: []spire.Entry{entry("a", "1")}})
				if err != nil || len(results) != 1 || results[0].Entry == nil {
					t.Errorf("got %v, %v", results, err)
				}
			})
		}
		both.Wait()
		if n := f.count("Apply"); n != 1 {
			t.Errorf("%d writes, want one", n)
		}
		if len(listener.owners()) != 0 {
			t.Errorf("told %v", listener.owners())
		}
	})
}

func TestAnEntryToUpdateThatIsGoneIsToldAndForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(entry("a", "1"))
		r, listener := start(t, f, registry.Options{})
		f.by(func() { f.delete("pm1.main.ns.a.1") })
		if _, err := r.Apply(t.Context(), spire.Plan{Update: []spire.Entry{with(entry("a", "1"), "x")}}); err != nil {
			t.Fatal(err)
		}
		if len(r.Of(ownerOf("a"))) != 0 || !slices.Equal(listener.owners(), []spire.Owner{ownerOf("a")}) {
			t.Errorf("remembers %v, told %v", r.Of(ownerOf("a")), listener.owners())
		}
	})
}

// The audit and our own writes interleave in every way that random lags make: nothing but what somebody else did may
// count as drift, and in the end the memory is what the server holds.
func TestOurOwnWritesAreNeverTakenForDrift(t *testing.T) {
	for seed := range uint64(10) {
		synctest.Test(t, func(t *testing.T) {
			f := newFake()
			f.pageSize = 3
			r, listener := start(t, f, registry.Options{AuditInterval: time.Second})
			f.lag = 200 * time.Millisecond
			var writers sync.WaitGroup
			for w := range 4 {
				random := rand.New(rand.NewPCG(seed, uint64(w)))
				writers.Go(func() {
					for range 40 {
						name := fmt.Sprint("x", w) // of one owner, one reconcile writes at a time
						var want []spire.Entry
						for node := range 3 {
							if random.IntN(3) > 0 {
								want = append(want, with(entry(name, fmt.Sprint(node)), fmt.Sprint(random.IntN(2))))
							}
						}
						if _, err := r.Apply(t.Context(), spire.Diff(want, r.Of(ownerOf(name)))); err != nil {
							t.Errorf("write: %v", err)
						}
						pass(time.Duration(random.IntN(300)) * time.Millisecond)
					}
				})
			}
			writers.Wait()
			if owners := listener.owners(); len(owners) != 0 {
				t.Errorf("seed %d: taken for drift: %v", seed, owners)
			}
			var held, known []spire.Held
			f.by(func() {
				for _, row := range f.rows {
					held = append(held, row.entry)
				}
			})
			for i := range 4 {
				known = append(known, r.Of(ownerOf(fmt.Sprint("x", i)))...)
			}
			slices.SortFunc(held, func(x, y spire.Held) int { return strings.Compare(x.ID, y.ID) })
			if diff := cmp.Diff(held, known); diff != "" {
				t.Errorf("seed %d (-server +memory):\n%s", seed, diff)
			}
		})
	}
}

func TestMetricsCountEntriesAndDrift(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		metrics := prometheus.NewPedanticRegistry()
		f := newFake(entry("a", "1"), entry("a", "2"), foreign("x"))
		r, _ := start(t, f, registry.Options{Registerer: metrics})
		f.by(func() { f.delete("pm1.main.ns.a.1") })
		pass(interval)
		want := `
# HELP paymesh_spire_drift_repaired_total Entries that were found missing, changed or unexpected, and have been put right.
# TYPE paymesh_spire_drift_repaired_total counter
paymesh_spire_drift_repaired_total 0
# HELP paymesh_spire_drift_total Entries of this cluster in the SPIRE server that were found missing, changed or unexpected.
# TYPE paymesh_spire_drift_total counter
paymesh_spire_drift_total{kind="changed"} 0
paymesh_spire_drift_total{kind="missing"} 1
paymesh_spire_drift_total{kind="unexpected"} 0
# HELP paymesh_spire_entries Entries of this cluster that the SPIRE server was last seen to hold.
# TYPE paymesh_spire_entries gauge
paymesh_spire_entries 1
# HELP paymesh_spire_up 1 where the SPIRE server answers and all of its entries have been read, else 0.
# TYPE paymesh_spire_up gauge
paymesh_spire_up 1
`
		if err := testutil.GatherAndCompare(metrics, strings.NewReader(want), "paymesh_spire_drift_repaired_total", "paymesh_spire_drift_total", "paymesh_spire_entries", "paymesh_spire_up"); err != nil {
			t.Error(err)
		}
		for range 2 { // the second time it is no repair any more
			_, _ = r.Apply(t.Context(), spire.Plan{Create: []spire.Entry{entry("a", "1")}})
			_, _ = r.Apply(t.Context(), spire.Plan{Update: []spire.Entry{with(entry("a", "1"), "x")}})
		}
		want, _, _ = strings.Cut(want, "# HELP paymesh_spire_drift_total")
		want = strings.Replace(want, "repaired_total 0", "repaired_total 1", 1)
		if err := testutil.GatherAndCompare(metrics, strings.NewReader(want), "paymesh_spire_drift_repaired_total"); err != nil {
			t.Error(err)
		}
	})
}

func ids(held []spire.Held) []string {
	var list []string
	for _, entry := range held {
		list = append(list, entry.ID)
	}
	return list
}

func TestEntriesOfSomebodyElsesAreReadBySPIFFEIDAndOurOwnAreNeverAmongThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(entry("a", "1"), foreign("one"), foreign("pm1.main-2.ns.a.1"), foreign("two"))
		other := foreign("other")
		other.SPIFFEID = "spiffe://jia.app/other"
		f.create(other)
		f.pageSize = 1
		r, listener := start(t, f, registry.Options{})
		theirs, err := r.Foreign(t.Context(), "spiffe://jia.app/a")
		if err != nil || !slices.Equal(ids(theirs), []string{"one", "two"}) {
			t.Fatalf("%v, %v", ids(theirs), err)
		}
		if err := r.DeleteForeign(t.Context(), []string{"one", "pm1.main-2.ns.a.1"}); err == nil || f.find("one") == nil {
			t.Errorf("an entry of another cluster's would go: %v", err)
		}
		dry, _ := start(t, f, registry.Options{DryRun: true})
		if err := dry.DeleteForeign(t.Context(), []string{"one"}); err != nil || f.find("one") == nil {
			t.Errorf("a dry run only tells: %v", err)
		}
		if err := r.DeleteForeign(t.Context(), []string{"one"}); err != nil || f.find("one") != nil || f.find("two") == nil {
			t.Error(err)
		}
		pass(2 * interval)
		if len(listener.owners()) != 0 || len(r.Of(ownerOf("a"))) != 1 {
			t.Errorf("told %v", listener.owners())
		}
	})
}
