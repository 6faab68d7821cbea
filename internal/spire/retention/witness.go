package retention

import (
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/jia-app/paymesh/internal/spire"
)

// mostGone is how many owners are remembered that have gone.
const mostGone = 10_000

// Witness remembers which owners this process has seen in the API server. Entries whose owner is not there are removed
// only where it was seen before: a manager that was started with another cluster's name finds nothing but entries without
// owners, and must leave them alone. Those it only counts, in the metric paymesh_spire_orphaned_entries.
type Witness struct {
	mu sync.Mutex
	// seen has the owners that are there, with true, and those that have gone, with false.
	seen map[spire.Owner]bool
	// went are the owners that have gone, in their order.
	went    []spire.Owner
	orphans map[spire.Owner]int
}

// NewWitness makes a Witness that has seen nobody; registerer takes its metric, nil for none.
func NewWitness(registerer prometheus.Registerer) *Witness {
	w := &Witness{seen: map[spire.Owner]bool{}, orphans: map[spire.Owner]int{}}
	if registerer != nil {
		registerer.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "paymesh_spire_orphaned_entries",
			Help: "Entries of this cluster whose object does not exist and was never seen by this manager: left alone.",
		}, w.count))
	}
	return w
}

// Saw notes that the owner is there.
func (w *Witness) Saw(owner spire.Owner) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen[owner] = true
	delete(w.orphans, owner)
}

// Knows reports whether the owner was ever there.
func (w *Witness) Knows(owner spire.Owner) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, known := w.seen[owner]
	return known
}

// Left notes that an owner is gone with all of its entries. It is known for a long time yet: a SPIRE server that is restored
// from a backup has them again.
func (w *Witness) Left(owner spire.Owner) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.orphans, owner)
	if there, known := w.seen[owner]; known && !there {
		return
	}
	w.seen[owner] = false
	w.went = slices.DeleteFunc(w.went, func(o spire.Owner) bool { return o == owner }) // it was back meanwhile
	w.went = append(w.went, owner)
	if len(w.went) > mostGone {
		if there := w.seen[w.went[0]]; !there {
			delete(w.seen, w.went[0])
		}
		w.went = w.went[1:]
	}
}

// Orphaned notes that entries lack their owner, and reports whether that is news.
func (w *Witness) Orphaned(owner spire.Owner, entries int) (news bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	news = entries > 0 && w.orphans[owner] == 0
	if w.orphans[owner] = entries; entries == 0 {
		delete(w.orphans, owner)
	}
	return news
}

func (w *Witness) count() (sum float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, entries := range w.orphans {
		sum += float64(entries)
	}
	return sum
}
