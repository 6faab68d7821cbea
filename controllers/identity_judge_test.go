package controllers

import (
	"errors"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/spire"
	"github.com/jia-app/paymesh/internal/spire/registry"
)

func TestRegisteredSaysWhatStandsInTheWay(t *testing.T) {
	synced := registry.State{Synced: true}
	node := mesh.Node{Name: "node-1"}
	missing := []spire.Entry{{ID: "pm1.main.a.b.1"}}
	rejected := []spire.Result{{ID: "pm1.main.a.b.1", Code: "InvalidArgument", Message: "invalid DNS name"}}
	for name, test := range map[string]struct {
		outcome           outcome
		notAccepted       bool
		want, mentions    string
		deleting, because string
	}{
		"all is there":        {outcome: outcome{decided: true, state: synced, nodes: []mesh.Node{node}}, want: "True Registered", mentions: "node-1"},
		"no pod":              {outcome: outcome{decided: true, state: synced}, want: "True NoPods", mentions: "pay"},
		"not accepted":        {outcome: outcome{decided: true, state: synced}, notAccepted: true, want: "False NotAccepted", mentions: "Accepted"},
		"still reading":       {outcome: outcome{}, want: "Unknown Syncing", mentions: "reading", deleting: "Unknown Syncing", because: "the object goes when"},
		"SPIRE away at first": {outcome: outcome{state: registry.State{Err: errors.New("refused")}}, want: "Unknown SPIREUnavailable", mentions: "refused"},
		"SPIRE away later": {
			outcome: outcome{decided: true, state: registry.State{Synced: true, Err: errors.New("refused")}, nodes: []mesh.Node{node}}, want: "Unknown SPIREUnavailable", mentions: "retried automatically",
			deleting: "Unknown SPIREUnavailable", because: meshv1alpha1.FinalizerEntries,
		},
		"a refused write": {
			outcome: outcome{decided: true, state: synced, failed: rejected, missing: missing}, want: "False Rejected", mentions: "invalid DNS name",
			deleting: "False Rejected", because: "the object goes when",
		},
		"a refused removal of what is not accepted": {
			outcome: outcome{decided: true, state: synced, failed: rejected}, notAccepted: true, want: "False Rejected", mentions: "invalid DNS name",
		},
		"an unknown node":       {outcome: outcome{decided: true, state: synced, unknown: []string{"node-2"}}, want: "Unknown NodeUnknown", mentions: "node-2"},
		"drift after the write": {outcome: outcome{decided: true, state: synced, missing: missing, nodes: []mesh.Node{node}}, want: "False Drifted", mentions: "pm1.main.a.b.1"},
	} {
		t.Run(name, func(t *testing.T) {
			check := func(set func(*meshv1alpha1.ServiceIdentity), want, mentions string) {
				t.Helper()
				object := &meshv1alpha1.ServiceIdentity{Spec: meshv1alpha1.ServiceIdentitySpec{ServiceAccountName: "pay"}}
				set(object)
				got := meta.FindStatusCondition(object.Status.Conditions, meshv1alpha1.ConditionRegistered)
				if status := string(got.Status) + " " + got.Reason; status != want || !strings.Contains(got.Message, mentions) {
					t.Errorf("Registered is %s (%s), want %s, with %q", status, got.Message, want, mentions)
				}
			}
			check(func(o *meshv1alpha1.ServiceIdentity) { setRegistered(o, !test.notAccepted, test.outcome) }, test.want, test.mentions)
			if test.deleting != "" {
				check(func(o *meshv1alpha1.ServiceIdentity) { setDeleting(o, test.outcome) }, test.deleting, test.because)
			}
		})
	}
}

func TestARefusalNamesTheForeignEntryBeforeAnythingElse(t *testing.T) {
	rejected := spire.Result{ID: "pm1.main.a.b.1", Code: "InvalidArgument", Message: "invalid DNS name"}
	conflict := spire.Result{ID: "pm1.main.a.b.2", Code: spire.CodeAlreadyExists, Conflict: &spire.Held{Entry: spire.Entry{
		ID: "somebody-elses", SPIFFEID: "spiffe://jia.app/x", ParentID: "spiffe://jia.app/node", Selectors: []string{"k8s:ns:a", "k8s:sa:b"},
	}}}
	reason, message := refusal([]spire.Result{rejected, conflict})
	if reason != meshv1alpha1.ReasonConflict || !strings.Contains(message, "somebody-elses") || !strings.Contains(message, "k8s:ns:a k8s:sa:b") {
		t.Errorf("%s: %s", reason, message)
	}
	if !strings.Contains(message, "adopt it with the annotation") {
		t.Errorf("what to do is missing: %s", message)
	}
	for name, other := range map[string]spire.Entry{
		"left by another object":             {ID: "pm1.main.a.old.2", ParentID: "spiffe://jia.app/node"},
		"of another cluster's paymesh":       {ID: "pm1.other.a.b.2", ParentID: "spiffe://jia.app/node"},
		"an alias, which no object can name": {ID: "somebody-elses", ParentID: "spiffe://jia.app/spire/server"},
	} {
		conflict.Conflict = &spire.Held{Entry: other}
		if _, message := refusal([]spire.Result{conflict}); strings.Contains(message, "adopt") || !strings.Contains(message, "spire-server entry delete -entryID "+other.ID) {
			t.Errorf("%s: adopting it never works: %s", name, message)
		}
	}
	reason, message = refusal([]spire.Result{rejected})
	if reason != meshv1alpha1.ReasonRejected || !strings.Contains(message, "invalid DNS name") || !strings.Contains(message, rejected.ID) {
		t.Errorf("%s: %s", reason, message)
	}
}
