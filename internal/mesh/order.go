package mesh

import (
	"cmp"
	"slices"
)

// Who comes first: 0 is an incumbent that takes what it took.
const (
	grown    = 1
	newcomer = 2
)

// byAge sorts the candidates by what decides where nothing is recorded.
func byAge(candidates []*candidate) {
	slices.SortFunc(candidates, func(x, y *candidate) int {
		return cmp.Or(x.service.object.CreationTimestamp.Compare(y.service.object.CreationTimestamp.Time),
			compareKeys(x.service.Key, y.service.Key),
			-compareBools(x.hasRecord(), y.hasRecord()), cmp.Compare(x.exposure.Name, y.exposure.Name))
	})
}

// order puts the candidates, which are sorted by age, in the order in which they are let in: who is served as it is, then who
// is served at the gateway and wants more, then who is not. So nobody who is served loses its room by wanting a path that
// somebody older wants as well.
func order(candidates []*candidate) {
	for _, c := range candidates {
		switch {
		case !c.incumbent && len(c.recorded) == 0 && !c.hasRecord(): // one that is served, and changes, is none
			c.rank = newcomer
		case !c.incumbent || c.outgrew():
			c.rank = grown
		}
	}
	slices.SortStableFunc(candidates, func(x, y *candidate) int { return cmp.Compare(x.rank, y.rank) })
	for rank, c := range candidates {
		c.rank = rank
	}
}
