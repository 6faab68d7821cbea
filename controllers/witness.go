package controllers

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/jia-app/paymesh/internal/spire"
)

// Witness remembers which owners this process has seen in the API server. Entries whose owner is not there are removed
// only where it was seen before: a manager that was started with another cluster's name finds nothing but entries without
// owners, and must leave them alone. Those it only counts, in the metric paymesh_spire_orphaned_entries.
type Witness struct {
	mu      sync.Mutex
	seen    map[spire.Owner]bool
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
	return w.seen[owner]
}

// Forget drops an owner that is gone with all of its entries.
func (w *Witness) Forget(owner spire.Owner) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.seen, owner)
	delete(w.orphans, owner)
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
