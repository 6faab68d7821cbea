package mesh

import (
	"cmp"
	"slices"

	"k8s.io/apimachinery/pkg/types"
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
// is served and wants more, then who is not. That is for the room of a gateway. Of paths that nobody is served at age alone
// decides, so that who wants more of them comes after an older one that wants the same.
func (a pathClaims) order(candidates []*candidate) {
	for age, c := range candidates {
		c.age = age
		switch {
		case !c.incumbent && len(c.recorded) == 0 && !c.hasRecord(): // one that is served, and changes, is none
			c.rank = newcomer
		case !c.incumbent || c.outgrew():
			c.rank = grown
		}
	}
	more := wanted{}
	for _, c := range candidates {
		if c.rank == grown && !c.incumbent {
			more.enter(c)
		}
	}
	for _, c := range candidates {
		if c.rank != newcomer {
			continue
		}
		if younger := more.contested(c); len(younger) > 0 && a.judge(c) == nil { // else they get it anyway
			for _, one := range younger {
				one.rank = newcomer
			}
		}
	}
	slices.SortStableFunc(candidates, func(x, y *candidate) int { return cmp.Compare(x.rank, y.rank) })
	for rank, c := range candidates {
		c.rank = rank
	}
}

// wanted are, by gateway, the paths that candidates want, each once for all of their host names.
type wanted map[types.NamespacedName]*patterns

func (w wanted) enter(c *candidate) {
	of := w[c.gateway.Key]
	if of == nil {
		of = &patterns{}
		w[c.gateway.Key] = of
	}
	for _, want := range c.wants {
		of.add(&claim{by: c, want: want})
	}
}

// contested are the candidates, younger than this one, that want what it wants under a host name where they are not served.
func (w wanted) contested(c *candidate) []*candidate {
	of := w[c.gateway.Key]
	if of == nil {
		return nil
	}
	found := map[*candidate]bool{}
	for _, want := range c.wants {
		of.overlapping(want.pattern, func(other *claim) {
			by := other.by
			if found[by] || by.rank == newcomer || by.age < c.age || !other.rivals(&claim{by: c, want: want}) {
				return
			}
			for _, hostname := range c.route.Hostnames {
				at := host{c.gateway.Key, hostname}
				if _, shared := slices.BinarySearch(by.route.Hostnames, hostname); shared && !by.service.recorded[servedAt{at, other.path}] {
					found[by] = true
				}
			}
		})
	}
	younger := make([]*candidate, 0, len(found))
	for by := range found {
		younger = append(younger, by)
	}
	return younger
}
