// Package mesh turns Kubernetes objects into one model of who is who: objects go in, a Mesh and the Problems of its bad
// parts come out. It is pure: no client, no clock, no logger; the same objects in any order give the same Mesh.
package mesh

import (
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Mesh is what the objects of a neighbourhood mean. Every SPIFFE ID and name in it is computed here and nowhere else.
// It is not changed once built.
type Mesh struct {
	// Cluster is the cluster that the mesh is in, by the name that SPIRE's node attestor has for it.
	Cluster ClusterID `json:"cluster"`
	// Identities are the accepted identities, sorted by namespace and name.
	Identities []Identity `json:"identities,omitempty"`
	// Nodes are the nodes that need an alias in SPIRE, sorted by UID.
	Nodes []Node `json:"nodes,omitempty"`
	// Services are the accepted MeshServices, sorted by namespace and name.
	Services []Service `json:"services,omitempty"`
	// Gateways are the accepted MeshGateways, sorted by namespace and name.
	Gateways []Gateway `json:"gateways,omitempty"`
}

// ClusterID names a cluster within a trust domain.
type ClusterID struct {
	TrustDomain spiffeid.TrustDomain `json:"trustDomain"`
	// Name is the cluster's name as SPIRE's k8s_psat node attestor has it.
	Name string `json:"name"`
}

// Identity is a SPIFFE ID and the pods that bear it.
type Identity struct {
	Key types.NamespacedName `json:"key"`
	ID  spiffeid.ID          `json:"id"`
	// ServiceAccountName and PodLabels select the pods, in the namespace of Key.
	ServiceAccountName string            `json:"serviceAccountName"`
	PodLabels          map[string]string `json:"podLabels,omitempty"`
	// UnreadGrant says which part of its namespace's grant cannot be read and what to type, where the identity was accepted
	// before, and nothing that can be read grants its path.
	UnreadGrant string `json:"unreadGrant,omitempty"`
	// X509SVIDTTL and JWTSVIDTTL are zero where the SPIRE server's default holds.
	X509SVIDTTL metav1.Duration `json:"x509SVIDTTL,omitzero"`
	JWTSVIDTTL  metav1.Duration `json:"jwtSVIDTTL,omitzero"`
	DNSNames    []string        `json:"dnsNames,omitempty"`
	// UnnamedServices are the Services that the identity is not named after since there are too many.
	UnnamedServices []string `json:"unnamedServices,omitempty"`
	// LingeringServices are those that select no pod of the identity any more, and that it is named after until a grace time ends.
	LingeringServices []string `json:"lingeringServices,omitempty"`
	Hint              string   `json:"hint,omitempty"`
	// FederatesWith are the trust domains whose bundles the pods get, and MissingBundles those that they want and of which
	// SPIRE has none; both sorted.
	FederatesWith  []string `json:"federatesWith,omitempty"`
	MissingBundles []string `json:"missingBundles,omitempty"`
	// ClusterWide is true where the identity can be had on every node of the cluster. Then Nodes and UnknownNodes are empty:
	// where its pods run does not matter.
	ClusterWide bool `json:"clusterWide,omitempty"`
	// Nodes are the nodes that run pods of the identity, and those that their agents may have attested as; sorted by UID.
	Nodes []Node `json:"nodes,omitempty"`
	// UnknownNodes are the names of nodes that run pods of the identity and that the API server does not show (yet).
	// While there are any, it is not known which entries nobody needs any more.
	UnknownNodes []string `json:"unknownNodes,omitempty"`
}

// Node is a node that SPIRE may issue identities on.
type Node struct {
	Name string    `json:"name"`
	UID  types.UID `json:"uid"`
	// Alias is the SPIFFE ID that stands for whatever SPIRE agent attests on this node: the parent of the node's entries.
	Alias spiffeid.ID `json:"alias"`
	// Registered is when the API server took up the Node.
	Registered metav1.Time `json:"registered,omitzero"`
	// Until is, of a Node that is not there any more and that another of its name has come for, when the agent on it must have
	// attested as that other one. It is zero for every other.
	Until metav1.Time `json:"until,omitzero"`
}

// Problem says why a part of an object is not in the Mesh. The other parts are.
type Problem struct {
	// Kind and Object name the object that has the condition.
	Kind   string               `json:"kind"`
	Object types.NamespacedName `json:"object"`
	// Condition and Reason are the condition that is not True because of it, and why (see api/v1alpha1).
	Condition string `json:"condition"`
	Reason    string `json:"reason"`
	// Field is the field at fault, as in spec.path.
	Field string `json:"field,omitempty"`
	// Message names the field and says what to do next.
	Message string `json:"message"`
}

func (p Problem) String() string {
	return fmt.Sprintf("%s %s: %s %s: %s", p.Kind, p.Object, p.Condition, p.Reason, p.Message)
}
