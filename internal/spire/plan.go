package spire

import (
	"slices"
	"strings"
)

// Plan is what has to be written so that a SPIRE server holds what is wanted. Each part is sorted by entry ID.
type Plan struct {
	Create []Entry `json:"create,omitempty"`
	Update []Entry `json:"update,omitempty"`
	// Delete are entry IDs.
	Delete []string `json:"delete,omitempty"`
}

// Empty reports whether there is nothing to write.
func (p Plan) Empty() bool { return len(p.Create) == 0 && len(p.Update) == 0 && len(p.Delete) == 0 }

// IDs are the IDs of all entries that the plan writes.
func (p Plan) IDs() []string {
	ids := make([]string, 0, len(p.Create)+len(p.Update)+len(p.Delete))
	for _, entry := range p.Create {
		ids = append(ids, entry.ID)
	}
	for _, entry := range p.Update {
		ids = append(ids, entry.ID)
	}
	return append(ids, p.Delete...)
}

// Diff plans how held becomes want. Entries are matched by ID alone: an entry whose SPIFFE ID, parent or selectors changed
// is updated in place, so that nobody is without it in between. An entry is updated only where something that paymesh
// renders differs, since SPIRE counts every update as a change and its agents sign the SVID again.
// Both lists are of one owner or of several together; an entry that is held and not wanted is deleted.
func Diff(want []Entry, held []Held) Plan {
	var plan Plan
	left := make(map[string]Held, len(held))
	for _, entry := range held {
		left[entry.ID] = entry
	}
	for _, entry := range want {
		have, ok := left[entry.ID]
		delete(left, entry.ID)
		switch {
		case !ok:
			plan.Create = append(plan.Create, entry)
		case !have.Equal(entry):
			plan.Update = append(plan.Update, entry)
		}
	}
	for id := range left {
		plan.Delete = append(plan.Delete, id)
	}
	sortByID(plan.Create)
	sortByID(plan.Update)
	slices.SortFunc(plan.Delete, strings.Compare)
	return plan
}

// TakesOver reports whether wanted entries do in another place what an entry in surplus does: the placement of their
// identity was changed. Then it may go only when they are there.
func TakesOver(want []Entry, surplus string) bool {
	return slices.ContainsFunc(want, func(entry Entry) bool { return IsClusterWide(entry.ID) != IsClusterWide(surplus) })
}
