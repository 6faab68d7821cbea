// Package spire_test holds the SPIRE side of paymesh against a real SPIRE server and agent, and the semantics of SPIRE
// that it depends on.
package spire_test

import (
	"context"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8stypes "k8s.io/apimachinery/pkg/types"

	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/spire"
	"github.com/jia-app/paymesh/internal/spire/client"
	"github.com/jia-app/paymesh/test/lab"
)

// patience is how long a test waits for what should take milliseconds.
const patience = 20 * time.Second

// The parts that tests share; tests keep to entries of their own. Those that stop a server start their own.
var (
	cluster mesh.ClusterID
	server  *lab.SPIREServer
	agent   *lab.Agent
	node    *corev1.Node
)

func TestMain(m *testing.M) {
	lab.Main(m, func(t lab.T) {
		cluster = clusterID(t, lab.ClusterName)
		api := lab.StartAPIServer(t)
		node = api.CreateNode(t, "node-1")
		server = lab.StartSPIREServer(t, lab.SPIREOptions{APIServer: api, AdminIDs: []string{cluster.OperatorID().String()}})
		agent = server.StartAgent(t, node)
		server.AddUnixEntry(t, agent, cluster.OperatorID().Path())
	})
}

// sweep deletes, when the test ends, what it adds to the shared server from now on, so that tests can run again (-count).
func sweep(t *testing.T, s *lab.SPIREServer) {
	t.Helper()
	if s != server {
		return // it goes with the test
	}
	before := map[string]bool{}
	for _, e := range all(t, s) {
		before[e.Id] = true
	}
	t.Cleanup(func() {
		var added []string
		for _, e := range all(t, s) {
			if !before[e.Id] {
				added = append(added, e.Id)
			}
		}
		if len(added) > 0 {
			remove(t, s, added...)
		}
	})
}

// all are the entries of a server, as SPIRE shows them.
func all(t *testing.T, s *lab.SPIREServer) []*types.Entry {
	t.Helper()
	answer, err := s.Entries.ListEntries(context.WithoutCancel(t.Context()), &entryv1.ListEntriesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return answer.Entries
}

func clusterID(t lab.T, name string) mesh.ClusterID {
	t.Helper()
	id, err := mesh.NewClusterID(lab.TrustDomain, name)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return id
}

// admin is a client of a server's admin socket.
func admin(t *testing.T, s *lab.SPIREServer) *client.Client {
	t.Helper()
	sweep(t, s)
	c, err := client.NewUnix(s.Socket, nil)
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// nodeOf is the model of a node.
func nodeOf(t lab.T, cluster mesh.ClusterID, name string, uid k8stypes.UID) mesh.Node {
	t.Helper()
	alias, err := cluster.NodeAlias(uid)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return mesh.Node{Name: name, UID: uid, Alias: alias}
}

// identity is a payment service's, on some nodes.
func identity(cluster mesh.ClusterID, name string, nodes ...mesh.Node) mesh.Identity {
	return mesh.Identity{
		Key: k8stypes.NamespacedName{Namespace: "payments", Name: name}, ServiceAccountName: name,
		ID:          spiffeid.RequireFromPath(cluster.TrustDomain, "/"+cluster.Name+"/"+name),
		X509SVIDTTL: metav1.Duration{Duration: 10 * time.Minute},
		DNSNames:    []string{"z.example.com", "a.example.com", "m.example.com"}, Hint: "internal",
		Nodes: nodes,
	}
}

// entry is the entry of an identity, in a cluster of the test's own so that tests do not meet.
func entry(t lab.T, cluster, name string) spire.Entry {
	t.Helper()
	id := clusterID(t, cluster)
	return spire.Entries(mesh.Mesh{Cluster: id, Identities: []mesh.Identity{identity(id, name, nodeOf(t, id, "node-1", "1"))}})[0]
}

func owner(name string) spire.Owner {
	return spire.Owner{Kind: spire.OwnerIdentity, Identity: k8stypes.NamespacedName{Namespace: "payments", Name: name}}
}

// manual is an entry that somebody else makes.
func manual(id, path string) *types.Entry {
	return &types.Entry{
		Id: id, SpiffeId: &types.SPIFFEID{TrustDomain: lab.TrustDomain, Path: path},
		ParentId:  &types.SPIFFEID{TrustDomain: lab.TrustDomain, Path: "/spire/server"},
		Selectors: []*types.Selector{{Type: "k8s", Value: "ns:manual"}},
	}
}

// create makes an entry by SPIRE's own API.
func create(t *testing.T, s *lab.SPIREServer, e *types.Entry) (*types.Entry, *types.Status) {
	t.Helper()
	sweep(t, s)
	answer, err := s.Entries.BatchCreateEntry(t.Context(), &entryv1.BatchCreateEntryRequest{Entries: []*types.Entry{e}})
	if err != nil {
		t.Fatalf("create %s: %v", e.Id, err)
	}
	return answer.Results[0].Entry, answer.Results[0].Status
}

func mustCreate(t *testing.T, s *lab.SPIREServer, e *types.Entry) *types.Entry {
	t.Helper()
	made, status := create(t, s, e)
	if codes.Code(status.Code) != codes.OK {
		t.Fatalf("create %s: %s", e.Id, status.Message)
	}
	return made
}

// update sends an entry by SPIRE's own API, as somebody would by hand.
func update(t *testing.T, s *lab.SPIREServer, e *types.Entry, mask *types.EntryMask) (*types.Entry, *types.Status) {
	t.Helper()
	answer, err := s.Entries.BatchUpdateEntry(t.Context(), &entryv1.BatchUpdateEntryRequest{Entries: []*types.Entry{e}, InputMask: mask})
	if err != nil {
		t.Fatalf("update %s: %v", e.Id, err)
	}
	return answer.Results[0].Entry, answer.Results[0].Status
}

func get(t *testing.T, s *lab.SPIREServer, id string) *types.Entry {
	t.Helper()
	e, err := s.Entries.GetEntry(t.Context(), &entryv1.GetEntryRequest{Id: id})
	if err != nil {
		t.Fatalf("get %s: %v", id, err)
	}
	return e
}

func remove(t *testing.T, s *lab.SPIREServer, ids ...string) []codes.Code {
	t.Helper()
	answer, err := s.Entries.BatchDeleteEntry(context.WithoutCancel(t.Context()), &entryv1.BatchDeleteEntryRequest{Ids: ids})
	if err != nil {
		t.Fatalf("delete %q: %v", ids, err)
	}
	var got []codes.Code
	for _, result := range answer.Results {
		got = append(got, codes.Code(result.Status.Code))
	}
	return got
}

func apply(t *testing.T, c interface {
	Apply(ctx context.Context, plan spire.Plan) ([]spire.Result, error)
}, plan spire.Plan,
) []spire.Result {
	t.Helper()
	results, err := c.Apply(t.Context(), plan)
	if err != nil {
		t.Fatalf("apply: %v", err)
	}
	return results
}
