package spire_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/jia-app/paymesh/internal/corpus"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/spire"
)

func TestEntriesMakesTheGoldenEntriesOfEveryCase(t *testing.T) {
	corpus.Each(t, func(t *testing.T, c corpus.Case) {
		m, _ := mesh.Build(c.Objects)
		c.Golden(t, "entries.yaml", struct {
			Entries []spire.Entry `json:"entries"`
		}{spire.Entries(m)})
	})
}

func TestEntriesMakesTheSameBytesOfTheSameObjectsInAnyOrder(t *testing.T) {
	corpus.Each(t, func(t *testing.T, c corpus.Case) {
		want := entriesOf(c.Objects)
		for seed := range uint64(20) {
			if diff := cmp.Diff(text(t, want), text(t, entriesOf(c.Shuffled(seed)))); diff != "" {
				t.Fatalf("seed %d (-in order +shuffled):\n%s", seed, diff)
			}
		}
	})
}

func TestEveryEntryIsOursHasAParentAmongTheEntriesOrTheServerAndSortedSelectors(t *testing.T) {
	corpus.Each(t, func(t *testing.T, c corpus.Case) {
		m, _ := mesh.Build(c.Objects)
		entries := spire.Entries(m)
		parents := map[string]bool{m.Cluster.TrustDomain.IDString() + "/spire/server": true}
		for _, node := range m.Nodes {
			parents[node.Alias.String()] = true
		}
		count, wide := len(m.Nodes), false
		for _, identity := range m.Identities {
			count += len(identity.Nodes)
			for _, node := range identity.Nodes {
				if !parents[node.Alias.String()] { // an earlier one, which is none of m
					count++
					parents[node.Alias.String()] = true
				}
			}
			if identity.ClusterWide {
				count, wide = count+1, true
			}
		}
		if wide {
			count++
			parents[m.Cluster.ClusterAlias().String()] = true
		}
		if len(entries) != count {
			t.Errorf("%d entries for %d nodes and placements", len(entries), count)
		}
		for _, entry := range entries {
			if _, ok := spire.ParseEntryID(m.Cluster.Name, entry.ID); !ok {
				t.Errorf("%s is not an ID of ours", entry.ID)
			}
			if !parents[entry.ParentID] {
				t.Errorf("%s has the parent %s, which nothing makes", entry.ID, entry.ParentID)
			}
			isAliasOfAll := entry.SPIFFEID == m.Cluster.ClusterAlias().String()
			if len(entry.Selectors) < 2 && !isAliasOfAll || !slices.IsSorted(entry.Selectors) || len(slices.Compact(slices.Clone(entry.Selectors))) != len(entry.Selectors) {
				t.Errorf("%s has selectors that are not a sorted set of at least two: %q", entry.ID, entry.Selectors)
			}
		}
	})
}

func TestAnIdentitysOwnEntriesAndTheirParentsAreAllThatItNeeds(t *testing.T) {
	corpus.Each(t, func(t *testing.T, c corpus.Case) {
		m, _ := mesh.Build(c.Objects)
		for _, identity := range m.Identities {
			alone := spire.Entries(mesh.Mesh{Cluster: m.Cluster, Nodes: identity.Nodes, Identities: []mesh.Identity{identity}})
			parts := slices.Concat(spire.Parents(m.Cluster, identity), spire.Own(m.Cluster, identity))
			slices.SortFunc(parts, func(x, y spire.Entry) int { return strings.Compare(x.ID, y.ID) })
			if diff := cmp.Diff(alone, parts); diff != "" {
				t.Errorf("%s (-all +parents and own):\n%s", identity.Key, diff)
			}
		}
	})
}

func TestOnlyAnEntryOfTheOtherPlacementIsTakenOver(t *testing.T) {
	onNode, wide := []spire.Entry{{ID: "pm1.main.a.b.1111"}}, []spire.Entry{{ID: "pm1.main.a.b.cluster"}}
	for name, test := range map[string]struct {
		want    []spire.Entry
		surplus string
		is      bool
	}{
		"a node's by that of the cluster":  {wide, "pm1.main.a.b.2222", true},
		"that of the cluster by a node's":  {onNode, "pm1.main.a.b.cluster", true},
		"a node's that the last pod left":  {onNode, "pm1.main.a.b.2222", false},
		"that of the cluster, for nothing": {nil, "pm1.main.a.b.cluster", false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := spire.TakesOver(test.want, test.surplus); got != test.is {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestBootstrapMakesTheClusterAliasAndTheManagersEntryBelowIt(t *testing.T) {
	want := []spire.Entry{
		{
			ID: "pm1.eu-1.nodes", SPIFFEID: "spiffe://jia.app/paymesh/eu-1/nodes", ParentID: "spiffe://jia.app/spire/server",
			Selectors: []string{"k8s_psat:cluster:eu-1"},
		},
		{
			ID: "pm1.eu-1.operator", SPIFFEID: "spiffe://jia.app/paymesh/eu-1/operator", ParentID: "spiffe://jia.app/paymesh/eu-1/nodes",
			Selectors: []string{"k8s:ns:paymesh-system", "k8s:sa:paymesh-manager"}, X509SVIDTTL: 3600,
		},
	}
	got := spire.Bootstrap(cluster(t, "eu-1"), types.NamespacedName{Namespace: "paymesh-system", Name: "paymesh-manager"})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, entry := range got {
		if owner, ok := spire.ParseEntryID("eu-1", entry.ID); !ok || owner.Kind != spire.OwnerBootstrap {
			t.Errorf("%s is read as of %v, %v", entry.ID, owner, ok)
		}
	}
}

func TestANodeWhoseUIDNoEntryIDCanHoldGetsNoEntries(t *testing.T) {
	for _, uid := range []types.UID{"a.b", "a_b"} {
		alias, err := cluster(t, "main").NodeAlias(uid)
		if err != nil {
			t.Fatal(err)
		}
		node := mesh.Node{Name: "n", UID: uid, Alias: alias}
		m := mesh.Mesh{Cluster: cluster(t, "main"), Nodes: []mesh.Node{node}, Identities: []mesh.Identity{{
			Key: types.NamespacedName{Namespace: "a", Name: "b"}, ServiceAccountName: "c", Nodes: []mesh.Node{node},
		}}}
		if got := spire.Entries(m); len(got) != 0 {
			t.Errorf("UID %q made %v", uid, got)
		}
	}
}

func TestParseEntryIDReadsOnlyWhatPaymeshMakesForExactlyThisCluster(t *testing.T) {
	identity := spire.Owner{Kind: spire.OwnerIdentity, Identity: types.NamespacedName{Namespace: "payments", Name: "payment-service"}}
	node := spire.Owner{Kind: spire.OwnerNode, NodeUID: "1111-2222"}
	ours := map[string]spire.Owner{
		"pm1.a.payments.payment-service.1111-2222": identity,
		"pm1.a.node.1111-2222":                     node,
		"pm1.a.nodes":                              {Kind: spire.OwnerBootstrap},
		"pm1.a.operator":                           {Kind: spire.OwnerBootstrap},
		// A namespace may be called node: the number of parts tells the forms apart.
		"pm1.a.node.node.1111-2222": {Kind: spire.OwnerIdentity, Identity: types.NamespacedName{Namespace: "node", Name: "node"}},
	}
	for id, want := range ours {
		if got, ok := spire.ParseEntryID("a", id); !ok || got != want {
			t.Errorf("%s: got %+v, %v", id, got, ok)
		}
	}
	for name, id := range map[string]string{
		"another cluster":                 "pm1.b.node.1111-2222",
		"a cluster that begins the same":  "pm1.a-b.node.1111-2222",
		"another scheme":                  "pm2.a.node.1111-2222",
		"no ID":                           "",
		"the bare prefix":                 "pm1.a",
		"an unknown part":                 "pm1.a.something",
		"a node without UID":              "pm1.a.node.",
		"an unknown kind":                 "pm1.a.nod.1111-2222",
		"a UID with an underscore":        "pm1.a.node.1_2",
		"an upper case namespace":         "pm1.a.Payments.payment-service.1111-2222",
		"a name that begins with a digit": "pm1.a.payments.1payment.1111-2222",
		"a name that is too long":         "pm1.a.payments." + strings.Repeat("n", 53) + ".1111-2222",
		"too many parts":                  "pm1.a.payments.payment-service.1111-2222.x",
		"longer than SPIRE takes":         "pm1.a.node." + strings.Repeat("1", 255),
		"a random UUID":                   "2f1b7f0e-6f3b-4b0f-9c6f-2a1d3c4b5e6f",
	} {
		t.Run(name, func(t *testing.T) {
			if owner, ok := spire.ParseEntryID("a", id); ok {
				t.Errorf("%s is read as of %+v", id, owner)
			}
		})
	}
}

func TestTheLongestNamesMakeAnEntryIDThatSPIRETakes(t *testing.T) {
	name := cluster(t, strings.Repeat("c", 63))
	node := nodeOf(t, name, "11111111-2222-3333-4444-555555555555")
	m := mesh.Mesh{Cluster: name, Identities: []mesh.Identity{{
		Key: types.NamespacedName{Namespace: strings.Repeat("n", 63), Name: strings.Repeat("i", 52)}, Nodes: []mesh.Node{node},
	}}}
	entries := spire.Entries(m)
	if len(entries) != 1 || len(entries[0].ID) > 255 {
		t.Errorf("got %v, want one entry with an ID of at most 255 bytes", entries)
	}
}

func FuzzEveryEntryIDReadsBackAsItsOwner(f *testing.F) {
	f.Add("main", "payments", "payment-service", "11111111-2222-3333-4444-555555555555")
	f.Add("a_b", "node", "nodes", "x")
	f.Add("a", "a.b", "c", "d.e")
	f.Fuzz(func(t *testing.T, clusterName, namespace, name, uid string) {
		id, err := mesh.NewClusterID("jia.app", clusterName)
		if err != nil {
			return
		}
		alias, err := id.NodeAlias(types.UID(uid))
		if err != nil {
			return
		}
		node := mesh.Node{Name: "n", UID: types.UID(uid), Alias: alias}
		key := types.NamespacedName{Namespace: namespace, Name: name}
		for _, entry := range spire.Entries(mesh.Mesh{Cluster: id, Nodes: []mesh.Node{node}, Identities: []mesh.Identity{{Key: key, Nodes: []mesh.Node{node}}}}) {
			owner, ok := spire.ParseEntryID(clusterName, entry.ID)
			want := spire.Owner{Kind: spire.OwnerIdentity, Identity: key}
			if entry.SPIFFEID == alias.String() {
				want = spire.Owner{Kind: spire.OwnerNode, NodeUID: types.UID(uid)}
			}
			if !ok || owner != want {
				t.Errorf("%s is read as of %+v, %v; want %+v", entry.ID, owner, ok, want)
			}
			if _, ok := spire.ParseEntryID(clusterName+"x", entry.ID); ok {
				t.Errorf("%s is read as of another cluster", entry.ID)
			}
		}
	})
}

// base is an entry with every field set that paymesh renders or watches.
var base = spire.Entry{
	ID: "pm1.main.a.b.1", SPIFFEID: "spiffe://jia.app/x", ParentID: "spiffe://jia.app/paymesh/main/node/1", Selectors: []string{"k8s:ns:a", "k8s:sa:b"},
	X509SVIDTTL: 60, JWTSVIDTTL: 30, DNSNames: []string{"z.example.com", "a.example.com"}, Hint: "h", FederatesWith: []string{"b.org", "c.org"},
}

func TestDiffUpdatesWhereAnythingRenderedDiffersAndNowhereElse(t *testing.T) {
	for name, change := range map[string]func(*spire.Held){
		"SPIFFE ID":              func(h *spire.Held) { h.SPIFFEID += "/y" },
		"parent":                 func(h *spire.Held) { h.ParentID += "0" },
		"selector gone":          func(h *spire.Held) { h.Selectors = h.Selectors[:1] },
		"selector more":          func(h *spire.Held) { h.Selectors = append(slices.Clone(h.Selectors), "k8s:sa:c") },
		"X.509 TTL":              func(h *spire.Held) { h.X509SVIDTTL++ },
		"JWT TTL":                func(h *spire.Held) { h.JWTSVIDTTL = 0 },
		"DNS name gone":          func(h *spire.Held) { h.DNSNames = h.DNSNames[:1] },
		"other common name":      func(h *spire.Held) { h.DNSNames = []string{"a.example.com", "z.example.com"} },
		"hint":                   func(h *spire.Held) { h.Hint = "" },
		"federation set by hand": func(h *spire.Held) { h.FederatesWith = []string{"b.org"} },
		"admin set by hand":      func(h *spire.Held) { h.Admin = true },
		"downstream by hand":     func(h *spire.Held) { h.Downstream = true },
		"store SVID by hand":     func(h *spire.Held) { h.StoreSVID = true },
		"expiry set by hand":     func(h *spire.Held) { h.ExpiresAt = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			held := spire.Held{Entry: base, Revision: 4}
			change(&held)
			want := spire.Plan{Update: []spire.Entry{base}}
			if diff := cmp.Diff(want, spire.Diff([]spire.Entry{base}, []spire.Held{held})); diff != "" {
				t.Error(diff)
			}
		})
	}
	same := spire.Held{Entry: base, Revision: 7, CreatedAt: 8}
	if plan := spire.Diff([]spire.Entry{base}, []spire.Held{same}); !plan.Empty() {
		t.Errorf("an entry of which only the revision and the age differ is written: %+v", plan)
	}
}

// server is the least that a SPIRE server does with a plan.
type server map[string]spire.Held

func (s server) apply(plan spire.Plan) {
	for _, entry := range plan.Create {
		s[entry.ID] = spire.Held{Entry: entry}
	}
	for _, entry := range plan.Update {
		s[entry.ID] = spire.Held{Entry: entry, Revision: s[entry.ID].Revision + 1}
	}
	for _, id := range plan.Delete {
		delete(s, id)
	}
}

func (s server) held() []spire.Held {
	var held []spire.Held
	for _, entry := range s { // in any order: Diff must not care
		held = append(held, entry)
	}
	return held
}

func TestAnySequenceOfWantsEndsInTheEntriesOfAFreshStart(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		old := server{}
		for range 12 {
			want := randomEntries(t, random)
			old.apply(spire.Diff(want, old.held()))
			if plan := spire.Diff(want, old.held()); !plan.Empty() {
				t.Fatalf("seed %d: after the plan there is more to do: %+v", seed, plan)
			}
			for id, entry := range old { // somebody edits and deletes by hand
				switch random.IntN(8) {
				case 0:
					delete(old, id)
				case 1:
					entry.Admin = true
					entry.Revision++
					old[id] = entry
				}
			}
			shuffled := slices.Clone(want)
			random.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
			if diff := cmp.Diff(spire.Diff(want, old.held()), spire.Diff(shuffled, old.held())); diff != "" {
				t.Fatalf("seed %d: the plan depends on the order:\n%s", seed, diff)
			}
			old.apply(spire.Diff(want, old.held()))
			fresh := server{}
			fresh.apply(spire.Diff(want, nil))
			if diff := cmp.Diff(plain(fresh), plain(old)); diff != "" {
				t.Fatalf("seed %d (-fresh start +after changes):\n%s", seed, diff)
			}
		}
	}
}

// randomEntries renders a mesh of random identities on random nodes.
func randomEntries(t *testing.T, random *rand.Rand) []spire.Entry {
	t.Helper()
	m := mesh.Mesh{Cluster: cluster(t, "main")}
	for i := range 4 {
		if random.IntN(2) == 0 {
			m.Nodes = append(m.Nodes, nodeOf(t, m.Cluster, types.UID(fmt.Sprintf("%d", i))))
		}
	}
	for i := range 4 {
		identity := mesh.Identity{
			Key: types.NamespacedName{Namespace: "ns", Name: fmt.Sprintf("id%d", i)}, ServiceAccountName: "sa",
			X509SVIDTTL: metav1.Duration{Duration: time.Duration(random.IntN(3)) * time.Minute},
			PodLabels:   map[string]string{"app": fmt.Sprint(random.IntN(2)), "tier": fmt.Sprint(random.IntN(2))},
		}
		for _, node := range m.Nodes {
			if random.IntN(2) == 0 {
				identity.Nodes = append(identity.Nodes, node)
			}
		}
		m.Identities = append(m.Identities, identity)
	}
	return spire.Entries(m)
}

func plain(s server) map[string]spire.Entry {
	entries := map[string]spire.Entry{}
	for id, held := range s {
		entries[id] = held.Entry
	}
	return entries
}

func entriesOf(objects mesh.Objects) []spire.Entry {
	m, _ := mesh.Build(objects)
	return spire.Entries(m)
}

func text(t *testing.T, entries []spire.Entry) string {
	t.Helper()
	out, err := yaml.Marshal(entries)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func cluster(t *testing.T, name string) mesh.ClusterID {
	t.Helper()
	id, err := mesh.NewClusterID("jia.app", name)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func nodeOf(t *testing.T, cluster mesh.ClusterID, uid types.UID) mesh.Node {
	t.Helper()
	alias, err := cluster.NodeAlias(uid)
	if err != nil {
		t.Fatal(err)
	}
	return mesh.Node{Name: "node-" + string(uid), UID: uid, Alias: alias}
}
