package spire_test

import (
	"strings"
	"testing"

	"github.com/jia-app/paymesh/internal/spire"
)

func TestAnEntryIsCoveredWhereWhoeverItIsForHasTheIDByOurs(t *testing.T) {
	ours := []spire.Entry{{SPIFFEID: "spiffe://jia.app/pay", Selectors: []string{"k8s:ns:a", "k8s:pod-label:app:pay", "k8s:sa:pay"}}}
	pods := map[string]bool{"mine": true, "another": false}
	theirs := func(selectors ...string) spire.Entry {
		return spire.Entry{SPIFFEID: "spiffe://jia.app/pay", Selectors: selectors}
	}
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
	} {
		t.Run(name, func(t *testing.T) {
			got := spire.Uncovered(c.ours, c.theirs, pods)
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
