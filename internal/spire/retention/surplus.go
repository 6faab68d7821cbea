// Package retention keeps entries that nobody needs any more from being deleted too soon, too many at a time, or by a manager
// that never saw whose they are: what an owner has in surplus goes in, and what of it may be deleted now comes out.
package retention

import (
	"maps"
	"slices"
	"sync"
	"time"

	"k8s.io/utils/clock"

	"github.com/jia-app/paymesh/internal/spire"
)

// Surplus keeps the entries that nobody needs any more for a grace time, so that a pod which comes back to its node finds
// its entry as it was: no write, and no wait for the agent's next sync. What it remembers is when it first saw that an
// entry was surplus; a manager that starts anew counts again from zero, which only ever keeps an entry longer.
type Surplus struct {
	Grace time.Duration
	Clock clock.PassiveClock

	mu    sync.Mutex
	since map[spire.Owner]map[string]time.Time
}

// Due splits an owner's surplus entries into those whose grace is over and the time until the next one's is; zero where
// none lingers. An entry that is not in surplus any more is forgotten, and starts from zero another time.
func (s *Surplus) Due(owner spire.Owner, surplus []string) (due []string, lingers time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, before, after := s.Clock.Now(), s.since[owner], map[string]time.Time{}
	for _, id := range surplus {
		first, known := before[id]
		if !known {
			first = now
		}
		after[id] = first
		left := s.Grace - now.Sub(first)
		if left <= 0 {
			due = append(due, id)
		} else if lingers == 0 || left < lingers {
			lingers = left
		}
	}
	if s.since == nil {
		s.since = map[spire.Owner]map[string]time.Time{}
	}
	if s.since[owner] = after; len(after) == 0 {
		delete(s.since, owner)
	}
	return due, lingers
}

// Retain forgets what of an owner's surplus entries is in surplus no more, and begins to count for none.
func (s *Surplus) Retain(owner spire.Owner, surplus []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.since[owner], func(id string, _ time.Time) bool { return !slices.Contains(surplus, id) })
	if len(s.since[owner]) == 0 {
		delete(s.since, owner)
	}
}

// Deleted drops entries of an owner that are gone now, and so are in surplus no more.
func (s *Surplus) Deleted(owner spire.Owner, ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		delete(s.since[owner], id)
	}
	if len(s.since[owner]) == 0 {
		delete(s.since, owner)
	}
}

// within are the entries in surplus whose grace is over by then.
func (s *Surplus) within(d time.Duration) map[spire.Owner][]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, list := s.Clock.Now(), map[spire.Owner][]string{}
	for owner, since := range s.since {
		for id, first := range since {
			if s.Grace-now.Sub(first) <= d {
				list[owner] = append(list[owner], id)
			}
		}
	}
	return list
}

// all are the entries in surplus.
func (s *Surplus) all() map[spire.Owner][]string { return s.within(s.Grace) }

// Len is how many entries are in surplus.
func (s *Surplus) Len() (sum int) {
	for _, ids := range s.all() {
		sum += len(ids)
	}
	return sum
}

// Forget drops what is remembered of an owner that is gone.
func (s *Surplus) Forget(owner spire.Owner) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.since, owner)
}
