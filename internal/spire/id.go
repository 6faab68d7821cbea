package spire

import (
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
)

const (
	// idPrefix marks the entries of paymesh, and the version of the scheme of their IDs.
	idPrefix = "pm1"
	// The last part of the IDs of the entries that have no object.
	operatorPart, nodesPart = "operator", "nodes"
	// nodePart stands before the UID in the ID of a node alias.
	nodePart = "node"
	// clusterPart stands for the node in the ID of an entry for all nodes. The API server makes no such UID.
	clusterPart = "cluster"
	// maxEntryIDBytes is SPIRE's limit. The longest ID of ours that the API server's names and UIDs can make has 221.
	maxEntryIDBytes = 255
	// maxNameLength is that of a ServiceIdentity's name.
	maxNameLength = 52
)

// nodeUID is what a node's UID may consist of: no dot, which separates the parts of an entry ID.
var nodeUID = regexp.MustCompile(`^[A-Za-z0-9-]+$`)

// OwnerKind is the kind of what an entry is there for.
type OwnerKind string

const (
	// OwnerIdentity is a ServiceIdentity, on one of its nodes or on all of the cluster.
	OwnerIdentity OwnerKind = "Identity"
	// OwnerNode is a Node: its alias.
	OwnerNode OwnerKind = "Node"
	// OwnerBootstrap is the bootstrap container beside spire-server, which keeps the manager's own identity, and with it the
	// alias of all nodes, which identities for the whole cluster need, too.
	OwnerBootstrap OwnerKind = "Bootstrap"
)

// Owner is what an entry is there for. It is comparable: two entries with the same Owner belong to the same object.
type Owner struct {
	Kind OwnerKind
	// Identity is the namespace and name of the ServiceIdentity, where Kind is OwnerIdentity.
	Identity types.NamespacedName
	// NodeUID is the UID of the Node, where Kind is OwnerNode. An identity's entries on all its nodes have one Owner.
	NodeUID types.UID
}

// ParseEntryID reads who owns an entry from its ID; false where the ID is not one that paymesh makes for the cluster with
// exactly this name: then the entry is somebody else's, and nobody's business here. The IDs are
//
//	pm1.<cluster>.<namespace>.<name>.<node UID>  an identity on a node
//	pm1.<cluster>.<namespace>.<name>.cluster     an identity on every node of the cluster
//	pm1.<cluster>.node.<node UID>                the alias of a node
//	pm1.<cluster>.nodes, pm1.<cluster>.operator  the alias of all nodes, and the manager
//
// No part holds a dot, and each form has its own number of parts, so an ID has one reading.
func ParseEntryID(cluster, id string) (Owner, bool) {
	rest, ours := strings.CutPrefix(id, idPrefix+"."+cluster+".")
	if !ours || len(id) > maxEntryIDBytes {
		return Owner{}, false
	}
	switch parts := strings.Split(rest, "."); len(parts) {
	case 1:
		return Owner{Kind: OwnerBootstrap}, parts[0] == operatorPart || parts[0] == nodesPart
	case 2:
		owner := Owner{Kind: OwnerNode, NodeUID: types.UID(parts[1])}
		return owner, parts[0] == nodePart && nodeUID.MatchString(parts[1])
	case 3:
		owner := Owner{Kind: OwnerIdentity, Identity: types.NamespacedName{Namespace: parts[0], Name: parts[1]}}
		valid := len(validation.IsDNS1123Label(parts[0])) == 0 &&
			len(validation.IsDNS1035Label(parts[1])) == 0 && len(parts[1]) <= maxNameLength && nodeUID.MatchString(parts[2])
		return owner, valid
	}
	return Owner{}, false
}

func identityID(cluster string, key types.NamespacedName, node types.UID) string {
	return strings.Join([]string{idPrefix, cluster, key.Namespace, key.Name, string(node)}, ".")
}

func clusterWideID(cluster string, key types.NamespacedName) string {
	return identityID(cluster, key, clusterPart)
}

// NodeOf is the UID of the node that an entry of an identity, or the alias that it is under, is for; a word that is no UID where
// that is all nodes.
func NodeOf(id string) string { return id[strings.LastIndexByte(id, '.')+1:] }

func isClusterWide(id string) bool { return strings.HasSuffix(id, "."+clusterPart) }

func nodeAliasID(cluster string, node types.UID) string {
	return strings.Join([]string{idPrefix, cluster, nodePart, string(node)}, ".")
}

func clusterAliasID(cluster string) string { return idPrefix + "." + cluster + "." + nodesPart }

func operatorID(cluster string) string { return idPrefix + "." + cluster + "." + operatorPart }
