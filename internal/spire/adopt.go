package spire

import (
	"slices"
	"strings"
)

// podUID is the selector by which spire-controller-manager's entries are for one pod.
const podUID = "k8s:pod-uid:"

// Foreign reports whether an entry is none that paymesh has made, for this cluster or for another.
func Foreign(id string) bool { return !strings.HasPrefix(id, idPrefix+".") }

// Uncovered says why an entry of somebody else's must stay though ours have its SPIFFE ID: there may be workloads that have
// the ID by it and not by ours. It is empty where there are none. pods has the UID of every pod that there is, with whether
// the identity of ours selects it; a pod that is gone needs no entry.
func Uncovered(ours []Entry, theirs Entry, pods map[string]bool) string {
	switch {
	case len(ours) == 0:
		return "no entry of this identity is registered yet"
	case theirs.SPIFFEID != ours[0].SPIFFEID:
		return "its SPIFFE ID is another one"
	case theirs.Admin || theirs.Downstream || theirs.StoreSVID:
		return "it gives more than the SPIFFE ID: admin, downstream or storeSVID"
	}
	for _, selector := range theirs.Selectors {
		if uid, ok := strings.CutPrefix(selector, podUID); ok {
			if selected, there := pods[uid]; there && !selected {
				return "it is for a pod that this identity does not select: " + uid
			}
			return ""
		}
	}
	for _, selector := range ours[0].Selectors {
		if !slices.Contains(theirs.Selectors, selector) {
			return "it is for workloads without " + selector + ", too"
		}
	}
	return ""
}

// Beside renders entries like these that match no workload: SPIRE makes no second entry with the same parent, SPIFFE ID and
// selectors, and lets one become that by an update. So the second one is there before the first has to go.
func Beside(entries []Entry) []Entry {
	list := slices.Clone(entries)
	for i := range list {
		list[i].Selectors = append(slices.Clone(list[i].Selectors), "paymesh:adopting")
		slices.Sort(list[i].Selectors)
	}
	return list
}
