package retention

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/utils/clock"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/spire"
)

const (
	// LeastBrakeCount is how many deletions the brake always lets through: a small cluster has no use for shares.
	LeastBrakeCount = 10
	// DefaultBrakeCount is more than the pods that a node usually has (110), so that a node that goes trips nothing.
	DefaultBrakeCount = 250
	// DefaultBrakeShare is more than the third that one of three nodes holds.
	DefaultBrakeShare = 0.4
	// brakeWindow is what counts together: the deletions of that long ago, and those that fall due within that long.
	brakeWindow = time.Minute
)

// BrakeOptions say when the brake trips.
type BrakeOptions struct {
	// Count and Share are the most entries that may go within a minute: Count of them, or Share of all that there are
	// (0.4), whichever is less; LeastBrakeCount in any case.
	Count int
	Share float64
	// Total is how many entries there are.
	Total func() int
	// Namespace is the one whose annotation releases the brake: the manager's own.
	Namespace string
	// Surplus knows which deletions are to come.
	Surplus *Surplus
	Clock   clock.PassiveClock
	// Registerer takes the metrics; nil for none.
	Registerer prometheus.Registerer
}

// Brake stops deletions when there are too many of them at a time: when an informer, a backup or a person shows much less
// than there is, the entries outlive it. What somebody asked for by deleting an object is not its business, and is not
// shown to it. Once tripped it holds back everything, until somebody says by the time of the trip that this is meant, or
// until nothing is held back any more.
type Brake struct {
	options BrakeOptions
	trips   prometheus.Counter

	mu sync.Mutex
	// gone are the entries that were let go within the last minute, and when, the last time: one that SPIRE has not deleted
	// yet, or did not, is in surplus still and comes here again.
	gone map[string]time.Time
	// tripped is when it did, to the second; zero where it has not.
	tripped time.Time
	// held are entries whose deletion is held back, and released those that somebody has let go since.
	held, released map[spire.Owner][]string
	listeners      []func(owners []spire.Owner)
}

// NewBrake makes a brake that has not tripped.
func NewBrake(o BrakeOptions) *Brake {
	b := &Brake{
		options: o, gone: map[string]time.Time{}, held: map[spire.Owner][]string{}, released: map[spire.Owner][]string{},
		trips: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "paymesh_spire_deletion_brake_trips_total",
			Help: "How often the deletion brake has tripped.",
		}),
	}
	if o.Registerer != nil {
		o.Registerer.MustRegister(b.trips, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "paymesh_spire_deletions_held",
			Help: "Entries of this cluster that nobody needs and whose deletion the brake holds back.",
		}, func() float64 { return float64(b.Held()) }))
	}
	return b
}

// Pass takes what an owner has in surplus, and what of it is due: empty where nothing is. It returns what of that may be
// deleted now, and what is held back.
func (b *Brake) Pass(owner spire.Owner, surplus, due []string) (pass, held []string) {
	b.mu.Lock()
	before := b.tripped
	pass, held = b.decide(owner, surplus, due)
	turned := before != b.tripped
	b.mu.Unlock()
	if turned {
		b.tell(nil)
	}
	return pass, held
}

func (b *Brake) decide(owner spire.Owner, surplus, due []string) (pass, held []string) {
	b.keep(b.released, owner, slices.DeleteFunc(slices.Clone(b.released[owner]), func(id string) bool { return !slices.Contains(surplus, id) }))
	for _, id := range due {
		if slices.Contains(b.released[owner], id) {
			pass = append(pass, id)
		} else {
			held = append(held, id)
		}
	}
	now := b.options.Clock.Now()
	if b.tripped.IsZero() && len(held) > 0 {
		if b.count(held, now) <= b.limit() {
			for _, id := range held {
				b.gone[id] = now
			}
			return due, nil
		}
		b.tripped = now.Truncate(time.Second)
		b.trips.Inc()
	}
	b.keep(b.held, owner, held)
	if len(b.held) == 0 {
		b.tripped = time.Time{}
	}
	return pass, held
}

// count is how many entries go together with these: those of the last minute, and whatever else falls due within the next
// one, so that a mass of them is seen before the first one goes. Each counts once.
func (b *Brake) count(due []string, now time.Time) int {
	maps.DeleteFunc(b.gone, func(_ string, at time.Time) bool { return now.Sub(at) >= brakeWindow })
	together := sets.KeySet(b.gone).Insert(due...)
	for owner, ids := range b.options.Surplus.within(brakeWindow) {
		for _, id := range ids {
			if !slices.Contains(b.released[owner], id) {
				together.Insert(id)
			}
		}
	}
	return together.Len()
}

func (b *Brake) limit() int {
	return max(LeastBrakeCount, min(b.options.Count, int(b.options.Share*float64(b.options.Total()))))
}

func (b *Brake) keep(list map[spire.Owner][]string, owner spire.Owner, ids []string) {
	if list[owner] = ids; len(ids) == 0 {
		delete(list, owner)
	}
}

// Forget drops what is remembered of an owner that is gone, or whose deletions are nobody's business any more.
func (b *Brake) Forget(owner spire.Owner) { b.Pass(owner, nil, nil) }

// Namespace is the one whose annotation releases the brake.
func (b *Brake) Namespace() string { return b.options.Namespace }

// Tripped is since when the brake holds deletions back, as Release takes it; empty where it does not.
func (b *Brake) Tripped() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.trip()
}

func (b *Brake) trip() string {
	if b.tripped.IsZero() {
		return ""
	}
	return b.tripped.UTC().Format(time.RFC3339)
}

// Command is what an administrator types to release a trip.
func (b *Brake) Command() string {
	return "kubectl annotate --overwrite namespace " + b.options.Namespace + " " + meshv1alpha1.AnnotationReleaseDeletions + "=" + b.Tripped()
}

// Held is how many entries are held back.
func (b *Brake) Held() (sum int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, ids := range b.held {
		sum += len(ids)
	}
	return sum
}

// Release lets everything go that is in surplus by now, where trip is what Tripped returns; it reports whether it was. What
// comes to be in surplus later counts anew.
func (b *Brake) Release(trip string) bool {
	b.mu.Lock()
	if trip == "" || trip != b.trip() {
		b.mu.Unlock()
		return false
	}
	owners := make([]spire.Owner, 0, len(b.held))
	for owner, ids := range b.held {
		owners = append(owners, owner)
		b.released[owner] = append(b.released[owner], ids...)
	}
	for owner, ids := range b.options.Surplus.all() {
		b.released[owner] = append(b.released[owner], ids...)
	}
	b.tripped = time.Time{}
	clear(b.held)
	b.mu.Unlock()
	b.tell(owners)
	return true
}

// Notify adds a listener, which is called when the brake has tripped or was released: with the owners that have to look
// again, none of them when it tripped. It may not block.
func (b *Brake) Notify(turned func(owners []spire.Owner)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.listeners = append(b.listeners, turned)
}

func (b *Brake) tell(owners []spire.Owner) {
	b.mu.Lock()
	listeners := slices.Clone(b.listeners)
	b.mu.Unlock()
	for _, turned := range listeners {
		turned(owners)
	}
}
