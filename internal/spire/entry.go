// Package spire renders the registration entries that a Mesh needs and compares them with what a SPIRE server holds: a
// mesh.Mesh goes in, entries come out; wanted and held entries go in, a Plan comes out. It is pure: no client, no clock,
// no logger.
package spire

import (
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/jia-app/paymesh/internal/mesh"
)

// operatorSVIDTTL is how long the manager's own SVID lives: its agent renews it at half of that, and a copy that leaked
// can command the SPIRE server for that long.
const operatorSVIDTTL = time.Hour

// Entry is a registration entry as paymesh renders and compares it. An entry is not changed once made.
type Entry struct {
	// ID is the entry ID (see ParseEntryID).
	ID       string `json:"id"`
	SPIFFEID string `json:"spiffeID"`
	ParentID string `json:"parentID"`
	// Selectors are type:value, sorted, each of them once.
	Selectors []string `json:"selectors"`
	// X509SVIDTTL and JWTSVIDTTL are in seconds; zero is the server's default.
	X509SVIDTTL int32 `json:"x509SVIDTTL,omitzero"`
	JWTSVIDTTL  int32 `json:"jwtSVIDTTL,omitzero"`
	// DNSNames are in the order of the spec: the first one becomes the SVID's common name.
	DNSNames []string `json:"dnsNames,omitempty"`
	Hint     string   `json:"hint,omitempty"`
	// FederatesWith are names of trust domains, sorted, without spiffe://.
	FederatesWith []string `json:"federatesWith,omitempty"`
	// Admin, Downstream, StoreSVID and ExpiresAt (seconds since 1970, zero is never) are not set by paymesh; they are
	// here so that an entry in which somebody else set them is seen to differ.
	Admin      bool  `json:"admin,omitzero"`
	Downstream bool  `json:"downstream,omitzero"`
	StoreSVID  bool  `json:"storeSVID,omitzero"`
	ExpiresAt  int64 `json:"expiresAt,omitzero"`
}

// Held is an entry as a SPIRE server holds it.
type Held struct {
	Entry `json:",inline"`
	// Revision rises by one with each update of the entry, also with one that changes nothing.
	Revision int64 `json:"revision,omitzero"`
	// CreatedAt is in seconds since 1970.
	CreatedAt int64 `json:"createdAt,omitzero"`
}

// Equal reports whether nothing that paymesh renders differs. Selectors and trust domains are sets, kept sorted; the
// order of DNS names counts, since it decides the common name.
func (e Entry) Equal(other Entry) bool {
	return e.ID == other.ID && e.SPIFFEID == other.SPIFFEID && e.ParentID == other.ParentID &&
		slices.Equal(e.Selectors, other.Selectors) &&
		e.X509SVIDTTL == other.X509SVIDTTL && e.JWTSVIDTTL == other.JWTSVIDTTL &&
		slices.Equal(e.DNSNames, other.DNSNames) && e.Hint == other.Hint &&
		slices.Equal(e.FederatesWith, other.FederatesWith) &&
		e.Admin == other.Admin && e.Downstream == other.Downstream && e.StoreSVID == other.StoreSVID &&
		e.ExpiresAt == other.ExpiresAt
}

// Similar reports whether SPIRE takes two entries for the same, whatever their IDs: of those with one parent, SPIFFE ID and
// selectors it creates no second one, and makes no difference which of them a workload gets its SVID by.
func (e Entry) Similar(other Entry) bool {
	return e.SPIFFEID == other.SPIFFEID && e.ParentID == other.ParentID && slices.Equal(e.Selectors, other.Selectors)
}

// Entries renders the alias of every node of m, that of the cluster where an identity needs it, and for each identity an
// entry on each of its nodes, or one for the cluster; sorted by ID.
// A node whose UID no entry ID can hold gets none: the API server makes UIDs of hexadecimal digits and hyphens.
func Entries(m mesh.Mesh) []Entry {
	entries := aliases(m.Cluster, m.Nodes)
	if slices.ContainsFunc(m.Identities, func(identity mesh.Identity) bool { return identity.ClusterWide }) {
		entries = append(entries, clusterAlias(m.Cluster))
	}
	for _, identity := range m.Identities {
		entries = append(entries, Own(m.Cluster, identity)...)
	}
	sortByID(entries)
	return entries
}

// Own renders the entries of one identity, without those that are their parents; sorted by ID.
func Own(cluster mesh.ClusterID, identity mesh.Identity) []Entry {
	owner := Owner{Kind: OwnerIdentity, Identity: identity.Key}
	if identity.ClusterWide {
		return appendOwned(nil, cluster.Name, owner, below(cluster.ClusterAlias(), identity, clusterWideID(cluster.Name, identity.Key)))
	}
	var entries []Entry
	for _, node := range identity.Nodes {
		entries = appendOwned(entries, cluster.Name, owner, below(node.Alias, identity, identityID(cluster.Name, identity.Key, node.UID)))
	}
	sortByID(entries)
	return entries
}

// Parents renders the aliases that the entries of an identity are under; sorted by ID.
func Parents(cluster mesh.ClusterID, identity mesh.Identity) []Entry {
	if identity.ClusterWide {
		return []Entry{clusterAlias(cluster)}
	}
	entries := aliases(cluster, identity.Nodes)
	sortByID(entries)
	return entries
}

// Bootstrap renders what the manager's own identity hangs on: an alias for all agents of the cluster, and under it the
// entry of the manager, by its namespace and service account.
func Bootstrap(cluster mesh.ClusterID, operator types.NamespacedName) []Entry {
	entries := []Entry{
		clusterAlias(cluster),
		{
			ID: operatorID(cluster.Name), SPIFFEID: cluster.OperatorID().String(), ParentID: cluster.ClusterAlias().String(),
			Selectors:   []string{"k8s:ns:" + operator.Namespace, "k8s:sa:" + operator.Name},
			X509SVIDTTL: int32(operatorSVIDTTL / time.Second),
		},
	}
	sortByID(entries)
	return entries
}

// clusterAlias is the entry by which every agent of the cluster has the cluster's alias. The manager's own entry hangs on
// it, too: nobody deletes it.
func clusterAlias(cluster mesh.ClusterID) Entry {
	return Entry{
		ID: clusterAliasID(cluster.Name), SPIFFEID: cluster.ClusterAlias().String(), ParentID: serverID(cluster),
		Selectors: []string{"k8s_psat:cluster:" + cluster.Name},
	}
}

func aliases(cluster mesh.ClusterID, nodes []mesh.Node) []Entry {
	var entries []Entry
	for _, node := range nodes {
		entries = appendOwned(entries, cluster.Name, Owner{Kind: OwnerNode, NodeUID: node.UID}, alias(cluster, node))
	}
	return entries
}

// alias is the entry by which whatever agent attests on the node has the node's alias, whatever the agent's own ID is. Its hint,
// which no workload gets to see, keeps the name of the node for when the API server does not show it any more.
func alias(cluster mesh.ClusterID, node mesh.Node) Entry {
	return Entry{
		ID: nodeAliasID(cluster.Name, node.UID), SPIFFEID: node.Alias.String(), ParentID: serverID(cluster),
		Selectors: []string{"k8s_psat:agent_node_uid:" + string(node.UID), "k8s_psat:cluster:" + cluster.Name},
		Hint:      node.Name,
	}
}

// below is the entry of an identity under an alias.
func below(parent spiffeid.ID, identity mesh.Identity, id string) Entry {
	selectors := []string{"k8s:ns:" + identity.Key.Namespace, "k8s:sa:" + identity.ServiceAccountName}
	for key, value := range identity.PodLabels {
		selectors = append(selectors, "k8s:pod-label:"+key+":"+value)
	}
	slices.Sort(selectors)
	return Entry{
		ID: id, SPIFFEID: identity.ID.String(), ParentID: parent.String(),
		Selectors:   selectors,
		X509SVIDTTL: seconds(identity.X509SVIDTTL), JWTSVIDTTL: seconds(identity.JWTSVIDTTL),
		DNSNames: slices.Clone(identity.DNSNames), Hint: identity.Hint, FederatesWith: slices.Clone(identity.FederatesWith),
	}
}

// Current is an entry of an identity, wherever it is, as it would be made now.
func Current(identity mesh.Identity, held Held) Entry {
	entry := below(identity.ID, identity, held.ID)
	entry.ParentID = held.ParentID
	return entry
}

// appendOwned appends an entry whose ID reads back as its owner's. Any other would be written and then be found again as
// somebody else's, or as nobody's.
func appendOwned(entries []Entry, cluster string, owner Owner, entry Entry) []Entry {
	if read, ok := ParseEntryID(cluster, entry.ID); !ok || read != owner {
		return entries
	}
	return append(entries, entry)
}

// seconds cannot overflow: the schema allows a week at most.
func seconds(d metav1.Duration) int32 { return int32(d.Duration / time.Second) } //nolint:gosec // see above

// serverPath is the path of a SPIRE server's own ID: the parent of entries that agents are matched with (SPIRE calls them node
// entries).
const serverPath = "/spire/server"

func serverID(cluster mesh.ClusterID) string { return cluster.TrustDomain.IDString() + serverPath }

// ForAgents reports whether agents are matched with an entry, as with an alias, and no workload.
func (e Entry) ForAgents() bool { return strings.HasSuffix(e.ParentID, serverPath) }

func sortByID(entries []Entry) {
	slices.SortFunc(entries, func(x, y Entry) int { return strings.Compare(x.ID, y.ID) })
}
