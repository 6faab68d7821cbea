package backoff

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/jia-app/paymesh/internal/spire"
)

func TestARefusedWriteWaitsTwiceAsLongEachTimeAndTheOthersDoNotWait(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Unix(0, 0))
	refusals := &Refusals{Most: 5 * time.Second, Clock: clock}
	owner := spire.Owner{Kind: spire.OwnerNode, NodeUID: "1"}
	bad, good := spire.Entry{ID: "bad"}, spire.Entry{ID: "good"}
	refused := spire.Result{ID: bad.ID, Op: spire.OpCreate, Code: "InvalidArgument", Message: "no"}
	send := func(entries ...spire.Entry) (sent []spire.Entry, held []spire.Result) {
		plan := spire.Plan{Create: entries}
		held = refusals.Hold(owner, &plan)
		return plan.Create, held
	}
	for _, pause := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 5 * time.Second, 5 * time.Second} {
		sent, held := send(bad, good)
		if diff := cmp.Diff([]spire.Entry{bad, good}, sent); diff != "" || held != nil {
			t.Fatalf("when its time has come: %v is held, %s", held, diff)
		}
		wait := refusals.Note(owner, spire.Plan{Create: sent}, []spire.Result{refused, {ID: good.ID, Op: spire.OpCreate}})
		if wait != pause {
			t.Fatalf("it waits for %s, want %s", wait, pause)
		}
		clock.Step(wait - 1)
		sent, held = send(bad, good)
		if diff := cmp.Diff([]spire.Entry{good}, sent) + cmp.Diff([]spire.Result{refused}, held); diff != "" {
			t.Fatalf("before its time: %s", diff)
		}
		clock.Step(1)
	}
	refusals.Note(owner, spire.Plan{Create: []spire.Entry{bad}}, []spire.Result{refused})
	if sent, _ := send(spire.Entry{ID: "bad", Hint: "changed"}); len(sent) != 1 {
		t.Error("what has changed is another write, which nobody has refused")
	}
	refusals.Note(owner, spire.Plan{Create: []spire.Entry{bad}}, []spire.Result{refused})
	clock.Step(time.Minute)
	if wait := refusals.Note(owner, spire.Plan{Create: []spire.Entry{bad}}, nil); wait <= 0 {
		t.Errorf("one whose time has come, and that got no answer, waits for %s: nobody would wake it", wait)
	}
	if refusals.Forget(owner); len(refusals.of) != 0 {
		t.Error("an owner that is gone is remembered")
	}
}
