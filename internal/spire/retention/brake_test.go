package retention

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/jia-app/paymesh/internal/spire"
)

// braking is a brake with its clock, and what it told.
type braking struct {
	*Brake
	clock   *clocktesting.FakeClock
	surplus *Surplus
	told    [][]spire.Owner
}

func newBraking(total int, grace time.Duration) *braking {
	b := &braking{clock: clocktesting.NewFakeClock(time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC))}
	b.surplus = NewSurplus(grace, b.clock)
	b.Brake = NewBrake(BrakeOptions{
		Count: 50, Share: 0.5, Total: func() int { return total }, Namespace: "paymesh-system", Surplus: b.surplus, Clock: b.clock,
	})
	b.Notify(func(owners []spire.Owner) { b.told = append(b.told, owners) })
	return b
}

// look is what a reconciler does with what an owner has in surplus: it returns what is deleted and what is held back.
func (b *braking) look(owner spire.Owner, surplus ...string) (pass, held []string) {
	due, _ := b.surplus.Due(owner, surplus)
	pass, held = b.Pass(owner, surplus, due)
	b.surplus.Deleted(owner, pass)
	return pass, held
}

func ownerNamed(name string) spire.Owner {
	return spire.Owner{Kind: spire.OwnerIdentity, Identity: types.NamespacedName{Namespace: "ns", Name: name}}
}

func some(prefix string, count int) []string {
	ids := make([]string, count)
	for i := range ids {
		ids[i] = fmt.Sprintf("%s-%d", prefix, i)
	}
	return ids
}

func TestTheBrakeTripsAboveTheLowerOfCountAndShareButNeverBelowTen(t *testing.T) {
	for name, test := range map[string]struct{ total, passes int }{
		"nothing else there":        {0, 10},
		"half of few":               {18, 10},
		"half of some":              {40, 20},
		"the count where it is low": {1000, 50},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBraking(test.total, 0)
			if pass, held := b.look(ownerNamed("a"), some("a", test.passes)...); len(pass) != test.passes || held != nil {
				t.Fatalf("%d of %d pass, %v are held", len(pass), test.passes, held)
			}
			if pass, held := b.look(ownerNamed("b"), "one-more"); pass != nil || len(held) != 1 {
				t.Errorf("one more: %v pass, %v are held", pass, held)
			}
			if b.Tripped() != "2026-01-02T03:04:05Z" || b.Held() != 1 || len(b.told) != 1 {
				t.Errorf("tripped %q, %d held, told %v", b.Tripped(), b.Held(), b.told)
			}
		})
	}
}

func TestDeletionsCountForAMinute(t *testing.T) {
	b := newBraking(0, 0)
	for i := range 60 {
		if pass, _ := b.look(ownerNamed("a"), some(fmt.Sprint("round-", i), 10)...); len(pass) != 10 {
			t.Fatalf("in minute %d, %d pass", i, len(pass))
		}
		b.clock.Step(time.Minute)
	}
	b.look(ownerNamed("a"), some("x", 6)...)
	b.clock.Step(59 * time.Second)
	if pass, held := b.look(ownerNamed("a"), some("y", 6)...); pass != nil || len(held) != 6 {
		t.Errorf("twelve within a minute: %v pass", pass)
	}
}

func TestAMassIsSeenBeforeTheFirstOfItGoes(t *testing.T) {
	b := newBraking(0, 5*time.Minute)
	for i := range 11 {
		b.look(ownerNamed(fmt.Sprint(i)), fmt.Sprint("entry-", i))
		b.clock.Step(time.Second)
	}
	b.clock.Step(5 * time.Minute)
	for i := range 11 {
		if pass, _ := b.look(ownerNamed(fmt.Sprint(i)), fmt.Sprint("entry-", i)); pass != nil {
			t.Errorf("%v is deleted", pass)
		}
	}
	if b.Held() != 11 {
		t.Errorf("%d held", b.Held())
	}
}

func TestAReleaseLetsGoWhatIsInSurplusByThenAndNothingElse(t *testing.T) {
	b := newBraking(0, time.Minute)
	b.look(ownerNamed("a"), some("a", 12)...)
	b.look(ownerNamed("again"), some("needed-again", 12)...)
	b.clock.Step(time.Minute)
	if pass, held := b.look(ownerNamed("a"), some("a", 12)...); pass != nil || len(held) != 12 {
		t.Fatalf("%v pass, %v are held", pass, held)
	}
	if !strings.HasSuffix(b.Command(), "namespace paymesh-system mesh.jia.app/release-deletions=2026-01-02T03:05:05Z") {
		t.Error(b.Command())
	}
	if b.Release("") || b.Release("2026-01-02T03:04:05Z") {
		t.Error("released by another trip's time")
	}
	if trip := b.Tripped(); !b.Release(trip) || b.Tripped() != "" || b.Held() != 0 || b.Release(trip) {
		t.Errorf("tripped %q, %d held", b.Tripped(), b.Held())
	}
	if diff := cmp.Diff([]spire.Owner{ownerNamed("a")}, b.told[len(b.told)-1]); diff != "" {
		t.Error(diff)
	}
	b.look(ownerNamed("again")) // its pods are back
	if pass, held := b.look(ownerNamed("a"), some("a", 12)...); len(pass) != 12 || held != nil {
		t.Errorf("%d pass, %v are held", len(pass), held)
	}
	b.look(ownerNamed("again"), some("needed-again", 12)...)
	b.clock.Step(time.Minute)
	if pass, _ := b.look(ownerNamed("again"), some("needed-again", 12)...); pass != nil {
		t.Errorf("what was needed in between goes by the old word: %v", pass)
	}
}

func TestTheBrakeLetsGoByItselfWhenEverythingIsNeededAgain(t *testing.T) {
	b := newBraking(0, 0)
	b.look(ownerNamed("a"), some("a", 12)...)
	if _, held := b.look(ownerNamed("b"), "b"); len(held) != 1 {
		t.Error("once tripped, it does not hold back all")
	}
	b.look(ownerNamed("a"))
	if b.Tripped() == "" {
		t.Error("it let go while something was held back")
	}
	b.Forget(ownerNamed("b"))
	if b.Tripped() != "" || b.Held() != 0 || len(b.told) != 2 {
		t.Errorf("tripped %q, %d held, told %v", b.Tripped(), b.Held(), b.told)
	}
	if pass, _ := b.look(ownerNamed("b"), "b"); !slices.Equal(pass, []string{"b"}) {
		t.Errorf("%v pass", pass)
	}
}

func TestADeletionUnderWayCountsOnce(t *testing.T) {
	b := newBraking(0, time.Minute)
	for _, name := range []string{"a", "b"} {
		b.surplus.Due(ownerNamed(name), some(name, 5))
	}
	b.clock.Step(time.Minute)
	for _, name := range []string{"a", "b"} { // SPIRE has not answered about a yet, so that it is in surplus still
		due, _ := b.surplus.Due(ownerNamed(name), some(name, 5))
		if pass, held := b.Pass(ownerNamed(name), some(name, 5), due); len(pass) != 5 || held != nil {
			t.Errorf("of %s, %d pass, %v are held: ten may go", name, len(pass), held)
		}
	}
}

func TestADeletionThatSPIREDoesNotTakeCountsOnceHoweverOftenItIsTried(t *testing.T) {
	b := newBraking(0, 0)
	for range 5 {
		if pass, held := b.Pass(ownerNamed("a"), some("a", 6), some("a", 6)); len(pass) != 6 || held != nil {
			t.Fatalf("%d pass, %v are held", len(pass), held)
		}
		b.clock.Step(30 * time.Second)
	}
	if pass, _ := b.Pass(ownerNamed("b"), some("b", 5), some("b", 5)); pass != nil {
		t.Errorf("%v of eleven within a minute pass", pass)
	}
}

func TestTheBrakesMetrics(t *testing.T) {
	metrics := prometheus.NewPedanticRegistry()
	b := NewBrake(BrakeOptions{Total: func() int { return 0 }, Surplus: NewSurplus(0, clocktesting.NewFakeClock(time.Now())), Clock: clocktesting.NewFakeClock(time.Now()), Registerer: metrics})
	b.Pass(ownerNamed("a"), some("a", 11), some("a", 11))
	want := `
# HELP paymesh_spire_deletion_brake_trips_total How often the deletion brake has tripped.
# TYPE paymesh_spire_deletion_brake_trips_total counter
paymesh_spire_deletion_brake_trips_total 1
# HELP paymesh_spire_deletions_held Entries of this cluster that nobody needs and whose deletion the brake holds back.
# TYPE paymesh_spire_deletions_held gauge
paymesh_spire_deletions_held 11
`
	if err := testutil.GatherAndCompare(metrics, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}
