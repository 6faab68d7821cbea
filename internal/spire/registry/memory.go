package registry

import (
	"slices"
	"strings"

	"github.com/jia-app/paymesh/internal/spire"
)

// memory is what the server was last seen to hold of ours, with the index that owners ask by.
type memory struct {
	entries map[string]*record // by entry ID
	byOwner index[spire.Owner]
	// byNode has the aliases of nodes, by the name of the node.
	byNode index[string]
}

type record struct {
	spire.Held
	owner spire.Owner
	// pass is the last audit pass that saw the entry as it is, or in which it was written.
	pass uint64
	// read is true once the entry was read as it is, and not only written.
	read bool
}

// index holds the entry IDs of each key.
type index[K comparable] map[K]map[string]struct{}

func newMemory() memory {
	return memory{entries: map[string]*record{}, byOwner: index[spire.Owner]{}, byNode: index[string]{}}
}

func (m *memory) put(owner spire.Owner, entry spire.Held, pass uint64) {
	m.remove(entry.ID)
	m.entries[entry.ID] = &record{Held: entry, owner: owner, pass: pass}
	m.byOwner.add(owner, entry.ID)
	if owner.Kind == spire.OwnerNode {
		m.byNode.add(entry.Hint, entry.ID)
	}
}

// saw notes that an entry was read as it is remembered.
func (m *memory) saw(id string, pass uint64) {
	if entry, ok := m.entries[id]; ok {
		entry.pass, entry.read = pass, true
	}
}

func (m *memory) remove(id string) {
	entry, ok := m.entries[id]
	if !ok {
		return
	}
	delete(m.entries, id)
	m.byOwner.drop(entry.owner, id)
	if entry.owner.Kind == spire.OwnerNode {
		m.byNode.drop(entry.Hint, id)
	}
}

func (m *memory) list(ids map[string]struct{}) []spire.Held {
	if len(ids) == 0 {
		return nil
	}
	list := make([]spire.Held, 0, len(ids))
	for id := range ids {
		list = append(list, m.entries[id].Held)
	}
	slices.SortFunc(list, func(x, y spire.Held) int { return strings.Compare(x.ID, y.ID) })
	return list
}

func (x index[K]) add(key K, id string) {
	if x[key] == nil {
		x[key] = map[string]struct{}{}
	}
	x[key][id] = struct{}{}
}

func (x index[K]) drop(key K, id string) {
	delete(x[key], id)
	if len(x[key]) == 0 {
		delete(x, key)
	}
}

// writes orders our own writes against what the audit reads. What the audit asked for before a write of ours ended says
// nothing about the entry: the write's own answer is newer.
type writes struct {
	// now counts ends of writes.
	now uint64
	// busy are the entries that are being written.
	busy map[string]bool
	// ended is when the last write of an entry ended, for writes since the audit pass began.
	ended map[string]uint64
	// doubtful are entries about which the server did not answer: written or not, nobody knows.
	doubtful map[string]bool
	// released is closed when a write ends.
	released chan struct{}
}

func newWrites() writes {
	return writes{busy: map[string]bool{}, ended: map[string]uint64{}, doubtful: map[string]bool{}, released: make(chan struct{})}
}

// begin takes all of the entries, or none of them where one is taken: then released tells when to try again.
func (w *writes) begin(ids []string) (ok bool, released <-chan struct{}) {
	if slices.ContainsFunc(ids, func(id string) bool { return w.busy[id] }) {
		return false, w.released
	}
	for _, id := range ids {
		w.busy[id] = true
	}
	return true, nil
}

func (w *writes) end(ids, unanswered []string) {
	w.now++
	for _, id := range ids {
		delete(w.busy, id)
		delete(w.doubtful, id)
		w.ended[id] = w.now
	}
	for _, id := range unanswered {
		w.doubtful[id] = true
	}
	close(w.released)
	w.released = make(chan struct{})
}

// supersede reports whether a write of ours is newer than something that was read since then.
func (w *writes) supersede(id string, since uint64) bool {
	return w.busy[id] || w.ended[id] > since
}
