package mesh

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"k8s.io/apimachinery/pkg/types"
)

// The paths below which nobody but SPIRE and paymesh themselves may have an ID: SPIRE walks entries by ID, so whoever
// held a node's alias would hold every identity of that node.
const (
	reservedForSPIRE   = "/spire"
	reservedForPaymesh = "/paymesh"
	// maxIDBytes is the length that every SPIFFE implementation has to support (SPIFFE-ID, section 2.3).
	maxIDBytes = 2048
	// maxTrustDomainBytes is from the same section; the schema's bound for paths rests on it. go-spiffe does not check it.
	maxTrustDomainBytes = 255
)

var clusterName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,63}$`)

// NewClusterID checks the two names that every ID of a cluster is made of.
// The cluster name is a segment of the node aliases and of the entry IDs, where a dot separates: letters, digits,
// hyphens and underscores only, at most 63.
func NewClusterID(trustDomain, name string) (ClusterID, error) {
	td, err := spiffeid.TrustDomainFromString(trustDomain)
	if err != nil {
		return ClusterID{}, fmt.Errorf("trust domain %q: %w", trustDomain, err)
	}
	if len(trustDomain) > maxTrustDomainBytes {
		return ClusterID{}, fmt.Errorf("trust domain %q has %d bytes: a name has at most %d", trustDomain, len(trustDomain), maxTrustDomainBytes)
	}
	if !clusterName.MatchString(name) {
		return ClusterID{}, fmt.Errorf("cluster name %q: want 1 to 63 letters, digits, hyphens or underscores, the name that SPIRE's k8s_psat attestor has for this cluster", name)
	}
	return ClusterID{TrustDomain: td, Name: name}, nil
}

// OperatorID is the SPIFFE ID of the cluster's paymesh manager.
func (c ClusterID) OperatorID() spiffeid.ID {
	return spiffeid.RequireFromPath(c.TrustDomain, reservedForPaymesh+"/"+c.Name+"/operator")
}

// ClusterAlias is the SPIFFE ID that stands for every SPIRE agent of the cluster.
func (c ClusterID) ClusterAlias() spiffeid.ID {
	return spiffeid.RequireFromPath(c.TrustDomain, reservedForPaymesh+"/"+c.Name+"/nodes")
}

// NodeAlias is the SPIFFE ID that stands for whatever SPIRE agent attests on the node with this UID.
// It is independent of the agent's own ID, whose form SPIRE's configuration decides.
func (c ClusterID) NodeAlias(uid types.UID) (spiffeid.ID, error) {
	id, err := spiffeid.FromSegments(c.TrustDomain, "paymesh", c.Name, "node", string(uid))
	if err != nil {
		return spiffeid.ID{}, fmt.Errorf("alias of the node with UID %q: %w", uid, err)
	}
	return id, nil
}

// DefaultPath is the SPIFFE ID path that a service account has without any grant.
func DefaultPath(namespace, serviceAccount string) string {
	return "/ns/" + namespace + "/sa/" + serviceAccount
}

// covers reports whether prefix is path or a parent of it, in whole segments.
func covers(prefix, path string) bool {
	return path == prefix || strings.HasPrefix(path, prefix+"/")
}
