// Package retention keeps entries that nobody needs any more from being deleted too soon, too many at a time, or by a manager
// that never saw whose they are: what an owner has in surplus goes in, and what of it may be deleted now comes out.
package retention

import (
	"maps"
	"slices"
	"time"

	"k8s.io/utils/clock"

	"github.com/jia-app/paymesh/internal/spire"
)

// Surplus keeps the entries that nobody needs any more for a grace time, so that a pod which comes back to its node finds
// its entry as it was: no write, and no wait for the agent's next sync. The names of its Grace are entry IDs.
type Surplus struct{ Grace }

// NewSurplus makes a Surplus that knows of no entry.
func NewSurplus(grace time.Duration, clock clock.PassiveClock) *Surplus {
	return &Surplus{Grace{Time: grace, Clock: clock}}
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
			if s.Time-now.Sub(first) <= d {
				list[owner] = append(list[owner], id)
			}
		}
	}
	return list
}

// all are the entries in surplus.
func (s *Surplus) all() map[spire.Owner][]string { return s.within(s.Time) }

// Len is how many entries are in surplus.
func (s *Surplus) Len() (sum int) {
	for _, ids := range s.all() {
		sum += len(ids)
	}
	return sum
}
