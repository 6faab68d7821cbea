package spire_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/spire"
)

func TestAnEntryIsCoveredWhereWhoeverItIsForHasTheIDByOurs(t *testing.T) {
	cluster, err := mesh.NewClusterID("jia.app", "main")
	if err != nil {
		t.Fatal(err)
	}
	ours := []spire.Entry{{SPIFFEID: "spiffe://jia.app/pay", Selectors: []string{"k8s:ns:a", "k8s:pod-label:app:pay", "k8s:sa:pay"}}}
	pods := map[string]bool{"mine": true, "another": false}
	theirs := func(selectors ...string) spire.Entry {
		return spire.Entry{SPIFFEID: "spiffe://jia.app/pay", ParentID: "spiffe://jia.app/spire/agent/k8s_psat/main/a-node", Selectors: selectors}
	}
	under := func(parent string, selectors ...string) spire.Entry {
		e := theirs(selectors...)
		e.ParentID = "spiffe://jia.app" + parent
		return e
	}
	sameSelectors := ours[0].Selectors
	ours[0].DNSNames, ours[0].FederatesWith, ours[0].Hint = []string{"pay.example", "pay"}, []string{"bank.example", "shop.example"}, "internal"
	with := func(change func(e *spire.Entry)) spire.Entry {
		e := theirs("k8s:pod-uid:mine")
		change(&e)
		return e
	}
	for name, c := range map[string]struct {
		ours   []spire.Entry
		theirs spire.Entry
		why    string // a part of it; empty where it is covered
	}{
		"the same selectors":              {ours, theirs("k8s:ns:a", "k8s:pod-label:app:pay", "k8s:sa:pay"), ""},
		"narrower":                        {ours, theirs("k8s:container-name:c", "k8s:ns:a", "k8s:pod-label:app:pay", "k8s:sa:pay"), ""},
		"a pod of ours":                   {ours, theirs("k8s:pod-uid:mine"), ""},
		"a pod that is gone":              {ours, theirs("k8s:pod-uid:gone"), ""},
		"another pod":                     {ours, theirs("k8s:pod-uid:another"), "does not select: another"},
		"without the label":               {ours, theirs("k8s:ns:a", "k8s:sa:pay"), "without k8s:pod-label:app:pay"},
		"of another namespace":            {ours, theirs("k8s:ns:b", "k8s:pod-label:app:pay", "k8s:sa:pay"), "without k8s:ns:a"},
		"processes of a machine":          {ours, theirs("unix:uid:0"), "without k8s:ns:a"},
		"no entry of ours":                {nil, theirs("k8s:pod-uid:mine"), "no entry of this identity"},
		"another ID":                      {ours, with(func(e *spire.Entry) { e.SPIFFEID = "spiffe://jia.app/other" }), "another one"},
		"an administrator":                {ours, with(func(e *spire.Entry) { e.Admin = true }), "more than the SPIFFE ID"},
		"a nested server":                 {ours, with(func(e *spire.Entry) { e.Downstream = true }), "more than the SPIFFE ID"},
		"an SVID that the agent may keep": {ours, with(func(e *spire.Entry) { e.StoreSVID = true }), "more than the SPIFFE ID"},
		"names and partners of ours": {ours, with(func(e *spire.Entry) {
			e.DNSNames, e.FederatesWith, e.Hint = []string{"pay", "pay.example"}, []string{"shop.example"}, "internal"
		}), ""},
		"a name that ours lack":          {ours, with(func(e *spire.Entry) { e.DNSNames = []string{"pay", "old-pay"} }), "dnsNames that this identity lacks: old-pay"},
		"a partner that ours lack":       {ours, with(func(e *spire.Entry) { e.FederatesWith = []string{"old.example", "bank.example"} }), "federatesWith that this identity lacks: old.example"},
		"another hint":                   {ours, with(func(e *spire.Entry) { e.Hint = "default" }), "another hint: default"},
		"under a node's alias":           {ours, under("/paymesh/main/node/a-node", sameSelectors...), ""},
		"under the cluster's alias":      {ours, under("/paymesh/main/nodes", sameSelectors...), ""},
		"another cluster's agent":        {ours, under("/spire/agent/k8s_psat/other/a-node", sameSelectors...), "not below an agent or a node of cluster main"},
		"a pod of another cluster":       {ours, under("/spire/agent/k8s_psat/other/a-node", "k8s:pod-uid:gone"), "not below an agent or a node of cluster main"},
		"a cluster whose name starts so": {ours, under("/spire/agent/k8s_psat/main-2/a-node", sameSelectors...), "k8s_psat/main-2/a-node"},
		"another cluster's node alias":   {ours, under("/paymesh/main-2/node/a-node", sameSelectors...), "not below"},
		"below a machine's agent":        {ours, under("/spire/agent/join_token/abc", sameSelectors...), "not below"},
		"below an alias of their own":    {ours, under("/all-agents", "k8s:pod-uid:mine"), "not below"},
		"below the server":               {ours, under("/spire/server", sameSelectors...), "not below"},
	} {
		t.Run(name, func(t *testing.T) {
			got := spire.Uncovered(cluster, c.ours, c.theirs, pods)
			if (got == "") != (c.why == "") || !strings.Contains(got, c.why) {
				t.Errorf("got %q, want %q", got, c.why)
			}
		})
	}
}

func TestTheEntriesInPlaceOfAnotherAreThoseOnItsNode(t *testing.T) {
	cluster, err := mesh.NewClusterID("jia.app", "main")
	if err != nil {
		t.Fatal(err)
	}
	held := func(id, parent string) spire.Held {
		return spire.Held{Entry: spire.Entry{ID: id, ParentID: "spiffe://jia.app" + parent}, CreatedAt: 1, Revision: 2}
	}
	one, two := held("one", "/paymesh/main/node/uid-1"), held("two", "/paymesh/main/node/uid-2")
	all := held("all", "/paymesh/main/nodes")
	for name, c := range map[string]struct {
		ours   []spire.Held
		parent string
		want   []spire.Held
	}{
		"below the node's agent":                     {[]spire.Held{one, two}, "/spire/agent/k8s_psat/main/uid-2", []spire.Held{two}},
		"below the node's alias":                     {[]spire.Held{one, two}, "/paymesh/main/node/uid-1", []spire.Held{one}},
		"below a node without one, or a pod's agent": {[]spire.Held{one, two}, "/spire/agent/k8s_psat/main/uid-3", []spire.Held{one, two}},
		"below the cluster's alias":                  {[]spire.Held{one, two}, "/paymesh/main/nodes", []spire.Held{one, two}},
		"one for the cluster, any parent":            {[]spire.Held{all}, "/spire/agent/k8s_psat/main/uid-1", []spire.Held{all}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := spire.InPlaceOf(cluster, c.ours, held("theirs", c.parent).Entry); !slices.EqualFunc(got, c.want, func(x, y spire.Held) bool { return x.ID == y.ID }) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestAnAgentIsAttestingWhereItsNodeIsYoungAndHasAnotherUID(t *testing.T) {
	cluster, err := mesh.NewClusterID("jia.app", "main")
	if err != nil {
		t.Fatal(err)
	}
	start := time.Unix(1000, 0)
	node := func(name string, uid types.UID, age time.Duration) mesh.Node {
		alias, err := cluster.NodeAlias(uid)
		if err != nil {
			t.Fatal(err)
		}
		return mesh.Node{Name: name, UID: uid, Alias: alias, Registered: metav1.NewTime(start.Add(-age))}
	}
	old, young, youngest := node("old", "01", 2*time.Hour), node("young", "02", 10*time.Minute), node("youngest", "03", time.Minute)
	for name, c := range map[string]struct {
		nodes []mesh.Node
		agent string
		node  string
		left  time.Duration
	}{
		"no node":                     {nil, "09", "", 0},
		"its own node":                {[]mesh.Node{old, young}, "02", "", 0},
		"its own node, beside others": {[]mesh.Node{youngest, young}, "02", "", 0},
		"old nodes":                   {[]mesh.Node{old}, "09", "", 0},
		"a young node":                {[]mesh.Node{old, young}, "09", "young", 50 * time.Minute},
		"the youngest of several":     {[]mesh.Node{youngest, young, old}, "09", "youngest", 59 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			node, left := spire.Attesting(c.nodes, spire.Entry{ParentID: "spiffe://jia.app/spire/agent/k8s_psat/main/" + c.agent}, time.Hour, start)
			if node.Name != c.node || left != c.left {
				t.Errorf("%q for %s, want %q for %s", node.Name, left, c.node, c.left)
			}
		})
	}
}

func TestAnEntryBesideAnotherMatchesNothingAndLeavesTheOriginalAlone(t *testing.T) {
	want := []spire.Entry{{ID: "a", Selectors: []string{"k8s:ns:a", "z:z"}}}
	beside := spire.Beside(want)
	if len(beside[0].Selectors) != 3 || len(want[0].Selectors) != 2 || beside[0].ID != "a" {
		t.Errorf("got %+v of %+v", beside, want)
	}
}

func TestWhatAnyPaymeshMadeIsNotForeign(t *testing.T) {
	for id, want := range map[string]bool{"pm1.main.ns.a.1": false, "pm1.other.node.1": false, "pm2.x": true, "c44be32e-ec91": true, "scm.c44be32e": true} {
		if spire.Foreign(id) != want {
			t.Errorf("%s: %v", id, !want)
		}
	}
}
