package retention

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clocktesting "k8s.io/utils/clock/testing"
)

func TestSurplusEntriesLingerForTheGraceTimeAndThenAreDue(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Unix(0, 0))
	surplus := &Surplus{Grace: time.Minute, Clock: clock}
	owner := ownerNamed("b")
	look := func(wantDue []string, wantLingers time.Duration, ids ...string) {
		t.Helper()
		due, lingers := surplus.Due(owner, ids)
		if diff := cmp.Diff(wantDue, due); diff != "" || lingers != wantLingers {
			t.Errorf("at %s: due %v, the next in %s, want %v, %s", clock.Now().UTC().Format(time.TimeOnly), due, lingers, wantDue, wantLingers)
		}
	}
	look(nil, time.Minute, "x")
	clock.Step(20 * time.Second)
	look(nil, 40*time.Second, "x", "y")
	clock.Step(40 * time.Second)
	look([]string{"x"}, 20*time.Second, "x", "y")
	clock.Step(10 * time.Second)
	look(nil, 0) // both are needed again
	clock.Step(time.Hour)
	look(nil, time.Minute, "y") // and y counts from zero when it is in surplus another time
	surplus.Forget(owner)
	clock.Step(time.Hour)
	look(nil, time.Minute, "y")
	if other, _ := surplus.Due(ownerNamed("other"), []string{"y"}); other != nil {
		t.Errorf("another owner's entry is due at once: %v", other)
	}
}

func TestWithoutGraceSurplusEntriesAreDueAtOnce(t *testing.T) {
	surplus := &Surplus{Clock: clocktesting.NewFakeClock(time.Unix(0, 0))}
	due, lingers := surplus.Due(ownerNamed(""), []string{"x"})
	if len(due) != 1 || lingers != 0 {
		t.Errorf("due %v, the next in %s", due, lingers)
	}
}
