package spire_test

import (
	"strings"
	"testing"

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
		"under a node's alias":            {ours, under("/paymesh/main/node/a-node", sameSelectors...), ""},
		"under the cluster's alias":       {ours, under("/paymesh/main/nodes", sameSelectors...), ""},
		"another cluster's agent":         {ours, under("/spire/agent/k8s_psat/other/a-node", sameSelectors...), "not below an agent or a node of cluster main"},
		"a pod of another cluster":        {ours, under("/spire/agent/k8s_psat/other/a-node", "k8s:pod-uid:gone"), "not below an agent or a node of cluster main"},
		"a cluster whose name starts so":  {ours, under("/spire/agent/k8s_psat/main-2/a-node", sameSelectors...), "k8s_psat/main-2/a-node"},
		"another cluster's node alias":    {ours, under("/paymesh/main-2/node/a-node", sameSelectors...), "not below"},
		"below a machine's agent":         {ours, under("/spire/agent/join_token/abc", sameSelectors...), "not below"},
		"below an alias of their own":     {ours, under("/all-agents", "k8s:pod-uid:mine"), "not below"},
		"below the server":                {ours, under("/spire/server", sameSelectors...), "not below"},
	} {
		t.Run(name, func(t *testing.T) {
			got := spire.Uncovered(cluster, c.ours, c.theirs, pods)
			if (got == "") != (c.why == "") || !strings.Contains(got, c.why) {
				t.Errorf("got %q, want %q", got, c.why)
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
