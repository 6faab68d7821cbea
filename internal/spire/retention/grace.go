package retention

import (
	"sync"
	"time"

	"k8s.io/utils/clock"

	"github.com/jia-app/paymesh/internal/spire"
)

// Grace puts off what is to happen to things of an owner, each known by a name, until they have been so for a time: what is
// different again by then costs no write. What it remembers is since when; a manager that starts anew counts again from zero,
// which only ever puts off for longer.
type Grace struct {
	Time  time.Duration
	Clock clock.PassiveClock

	mu    sync.Mutex
	since map[spire.Owner]map[string]time.Time
}

// Due splits what is so of an owner's things into those whose grace is over and the time until the next one's is; zero where
// none lingers. What is not named any more is forgotten, and starts from zero another time.
func (g *Grace) Due(owner spire.Owner, names []string) (due []string, lingers time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now, before, after := g.Clock.Now(), g.since[owner], map[string]time.Time{}
	for _, name := range names {
		first, known := before[name]
		if !known {
			first = now
		}
		after[name] = first
		left := g.Time - now.Sub(first)
		if left <= 0 {
			due = append(due, name)
		} else if lingers == 0 || left < lingers {
			lingers = left
		}
	}
	if g.since == nil {
		g.since = map[spire.Owner]map[string]time.Time{}
	}
	if g.since[owner] = after; len(after) == 0 {
		delete(g.since, owner)
	}
	return due, lingers
}

// Forget drops what is remembered of an owner.
func (g *Grace) Forget(owner spire.Owner) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.since, owner)
}
