package retention

import (
	"fmt"
	"testing"
)

func TestEntriesWithoutAnObjectAreRemovedOnlyWhereItWasSeen(t *testing.T) {
	w := NewWitness(nil)
	known, stranger := ownerNamed("known"), ownerNamed("stranger")
	w.Saw(known)
	if !w.Knows(known) || w.Knows(stranger) {
		t.Error("it knows whom it has seen, and nobody else")
	}
	if !w.Orphaned(stranger, 2) || w.Orphaned(stranger, 2) || w.count() != 2 {
		t.Error("an orphan is news once, and counts by its entries")
	}
	w.Saw(stranger)
	if w.count() != 0 {
		t.Error("who is seen is no orphan any more")
	}
	w.Left(known)
	if !w.Knows(known) {
		t.Error("who has gone is known: a restored SPIRE server may have its entries again")
	}
	for i := range mostGone {
		w.Left(ownerNamed(fmt.Sprintf("gone-%d", i)))
	}
	if w.Knows(known) || len(w.seen) > mostGone+1 {
		t.Errorf("%d are remembered, or the one that went first is", len(w.seen))
	}
	back := ownerNamed("back")
	w.Saw(back)
	w.Left(back)
	w.Saw(back)
	for i := range mostGone - 1 {
		w.Left(ownerNamed(fmt.Sprintf("gone-since-%d", i)))
	}
	w.Left(back)
	w.Left(ownerNamed("one more"))
	if !w.Knows(back) {
		t.Error("who came back and went again is forgotten by when it went first")
	}
}
