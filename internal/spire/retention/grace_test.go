package retention

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clocktesting "k8s.io/utils/clock/testing"
)

func TestWhatLingersDoesSoForTheGraceTimeAndThenIsDue(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Unix(0, 0))
	grace := &Grace{Time: time.Minute, Clock: clock}
	owner := ownerNamed("b")
	look := func(wantDue []string, wantLingers time.Duration, ids ...string) {
		t.Helper()
		due, lingers := grace.Due(owner, ids)
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
	look(nil, 0) // both do not any more
	clock.Step(time.Hour)
	look(nil, time.Minute, "y") // and y counts from zero when it does another time
	grace.Forget(owner)
	clock.Step(time.Hour)
	look(nil, time.Minute, "y")
	if other, _ := grace.Due(ownerNamed("other"), []string{"y"}); other != nil {
		t.Errorf("what is another owner's is due at once: %v", other)
	}
}

func TestWithoutGraceEverythingIsDueAtOnce(t *testing.T) {
	grace := &Grace{Clock: clocktesting.NewFakeClock(time.Unix(0, 0))}
	due, lingers := grace.Due(ownerNamed(""), []string{"x"})
	if len(due) != 1 || lingers != 0 {
		t.Errorf("due %v, the next in %s", due, lingers)
	}
}
