// Package backoff keeps writes that SPIRE refused from being sent again with every event: a plan goes in, and what of it may be
// sent now comes out.
package backoff

import (
	"sync"
	"time"

	"k8s.io/utils/clock"

	"github.com/jia-app/paymesh/internal/spire"
)

// firstPause is how long a write waits that SPIRE refused for the first time.
const firstPause = time.Second

// Refusals remember the writes that SPIRE refused, each with when it may be tried again: after a second, and then after twice
// as long each time. What happens to the object meanwhile sends its other entries only. An entry that changed is another
// write, which nobody has refused.
type Refusals struct {
	// Most is the longest pause.
	Most  time.Duration
	Clock clock.PassiveClock

	mu sync.Mutex
	of map[spire.Owner]map[string]refused
}

type refused struct {
	entry  spire.Entry
	result spire.Result
	pause  time.Duration
	next   time.Time
}

// Hold takes the writes out of a plan whose time has not come, and returns what SPIRE said of them. What is not in the plan
// is forgotten: it is there, or nobody wants it.
func (r *Refusals) Hold(owner spire.Owner, plan *spire.Plan) []spire.Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	before, after, now := r.of[owner], map[string]refused{}, r.Clock.Now()
	var results []spire.Result
	ready := func(entries []spire.Entry) (list []spire.Entry) {
		for _, entry := range entries {
			was, known := before[entry.ID]
			known = known && was.entry.Equal(entry)
			if known {
				after[entry.ID] = was
			}
			if known && now.Before(was.next) {
				results = append(results, was.result)
			} else {
				list = append(list, entry)
			}
		}
		return list
	}
	plan.Create, plan.Update = ready(plan.Create), ready(plan.Update)
	r.keep(owner, after)
	return results
}

// Note takes over what SPIRE said of a plan. It returns how long it is until the first of the owner's writes may be tried
// again; zero where none was refused.
func (r *Refusals) Note(owner spire.Owner, plan spire.Plan, results []spire.Result) (wait time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, list := r.Clock.Now(), r.of[owner]
	if list == nil {
		list = map[string]refused{}
	}
	said := map[string]spire.Result{}
	for _, result := range results {
		said[result.ID] = result
	}
	for _, entries := range [][]spire.Entry{plan.Create, plan.Update} {
		for _, entry := range entries {
			result, answered := said[entry.ID]
			switch {
			case answered && result.OK():
				delete(list, entry.ID)
			case answered:
				pause := min(max(2*list[entry.ID].pause, firstPause), r.Most)
				list[entry.ID] = refused{entry, result, pause, now.Add(pause)}
			}
		}
	}
	r.keep(owner, list)
	for _, one := range list {
		// One whose time has come got no answer: the least that is not zero has it tried at once.
		if left := max(one.next.Sub(now), 1); wait == 0 || left < wait {
			wait = left
		}
	}
	return wait
}

func (r *Refusals) keep(owner spire.Owner, list map[string]refused) {
	if r.of == nil {
		r.of = map[spire.Owner]map[string]refused{}
	}
	if r.of[owner] = list; len(list) == 0 {
		delete(r.of, owner)
	}
}

// Forget drops what is remembered of an owner that is gone.
func (r *Refusals) Forget(owner spire.Owner) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.of, owner)
}
