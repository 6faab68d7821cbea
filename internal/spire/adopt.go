package spire

import (
	"path"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/jia-app/paymesh/internal/mesh"
)

// podUID is the selector by which spire-controller-manager's entries are for one pod.
const podUID = "k8s:pod-uid:"

// Foreign reports whether an entry is none that paymesh has made, for this cluster or for another.
func Foreign(id string) bool { return !strings.HasPrefix(id, idPrefix+".") }

// Uncovered says why an entry of somebody else's must stay though ours have its SPIFFE ID: there may be workloads that have
// the ID by it and not by ours. It is empty where there are none. pods has the UID of every pod of the cluster, with whether
// the identity of ours selects it; a pod that is gone needs no entry. Of pods elsewhere nothing is known here: what is not
// below an agent or an alias of the cluster may be for those.
func Uncovered(cluster mesh.ClusterID, ours []Entry, theirs Entry, pods map[string]bool) string {
	switch {
	case len(ours) == 0:
		return "no entry of this identity is registered yet"
	case theirs.SPIFFEID != ours[0].SPIFFEID:
		return "its SPIFFE ID is another one"
	case theirs.Admin || theirs.Downstream || theirs.StoreSVID:
		return "it gives more than the SPIFFE ID: admin, downstream or storeSVID"
	case !within(cluster, theirs.ParentID):
		return "it is not below an agent or a node of cluster " + cluster.Name + ", but below " + theirs.ParentID
	}
	for _, selector := range theirs.Selectors {
		if uid, ok := strings.CutPrefix(selector, podUID); ok {
			if selected, there := pods[uid]; there && !selected {
				return "it is for a pod that this identity does not select: " + uid
			}
			return more(ours[0], theirs)
		}
	}
	for _, selector := range ours[0].Selectors {
		if !slices.Contains(theirs.Selectors, selector) {
			return "it is for workloads without " + selector + ", too"
		}
	}
	return more(ours[0], theirs)
}

// more says what workloads have by theirs that they would not have by ours: a name that a peer may dial, a bundle by which
// they know a partner, or the hint by which they find the SVID.
func more(ours, theirs Entry) string {
	lacking := func(theirs, ours []string) string {
		return strings.Join(slices.DeleteFunc(slices.Clone(theirs), func(name string) bool { return slices.Contains(ours, name) }), " ")
	}
	if names := lacking(theirs.DNSNames, ours.DNSNames); names != "" {
		return "it has dnsNames that this identity lacks: " + names
	}
	if partners := lacking(theirs.FederatesWith, ours.FederatesWith); partners != "" {
		return "it has federatesWith that this identity lacks: " + partners
	}
	if theirs.Hint != "" && theirs.Hint != ours.Hint {
		return "it has another hint: " + theirs.Hint
	}
	return ""
}

// InPlaceOf are those of our entries by which the workloads of theirs have the SPIFFE ID: those for its node, or for all
// nodes; all of them where theirs is for all nodes, or for one that is not known. The last part of the ID of an alias of ours,
// and of a k8s_psat agent, is the UID of the node; of an agent with use_pod_uid_for_agent_id it is that of its pod.
func InPlaceOf(cluster mesh.ClusterID, ours []Held, theirs Entry) []Held {
	everywhere := cluster.ClusterAlias().String()
	there := slices.DeleteFunc(slices.Clone(ours), func(held Held) bool {
		return held.ParentID != everywhere && !sameNode(held.ParentID, theirs.ParentID)
	})
	if len(there) == 0 || theirs.ParentID == everywhere {
		return ours
	}
	return there
}

// Attesting is the youngest of the nodes, where an entry of somebody else's is below an agent that none of them has the UID
// of, and the node was registered within the lifetime of an agent's SVID: until that is over the agent may be the one of this
// node, known by the UID that the node had before. Without it, nobody has to wait.
func Attesting(nodes []mesh.Node, theirs Entry, agentTTL time.Duration, now time.Time) (youngest mesh.Node, left time.Duration) {
	for _, node := range nodes {
		if sameNode(node.Alias.String(), theirs.ParentID) {
			return mesh.Node{}, 0
		}
		if l := node.Registered.Add(agentTTL).Sub(now); l > left {
			youngest, left = node, l
		}
	}
	return youngest, left
}

// sameNode reports whether two parents have the same last part.
func sameNode(x, y string) bool { return path.Base(x) == path.Base(y) }

// within reports whether all workloads below a parent run in the cluster: it is an agent that was attested as one of the
// cluster's, or one of the aliases that stand for those.
func within(cluster mesh.ClusterID, parent string) bool {
	alias, err := cluster.NodeAlias(types.UID(path.Base(parent)))
	return parent == cluster.ClusterAlias().String() || err == nil && parent == alias.String() ||
		strings.HasPrefix(parent, cluster.TrustDomain.IDString()+"/spire/agent/k8s_psat/"+cluster.Name+"/")
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
