package controllers

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/spire"
	"github.com/jia-app/paymesh/internal/spire/retention"
)

func TestTheCensusCountsWhatIsTrueOfTheEntriesOfAllIdentities(t *testing.T) {
	metrics := prometheus.NewPedanticRegistry()
	ownerNamed := func(name string) spire.Owner { return identityOwner(types.NamespacedName{Namespace: "ns", Name: name}) }
	surplus := retention.NewSurplus(time.Minute, clocktesting.NewFakeClock(time.Unix(0, 0)))
	census := NewCensus(metrics, surplus)
	surplus.Due(ownerNamed("a"), []string{"old"})
	want := []spire.Entry{{ID: "1"}, {ID: "2"}, {ID: "3"}}
	census.count(ownerNamed("a"), outcome{decided: true, want: want, nodes: make([]mesh.Node, 3), missing: want[1:], failed: []spire.Result{
		{ID: "2", Code: spire.CodeAlreadyExists, Conflict: &spire.Held{}}, {ID: "3", Code: "Internal"},
	}})
	census.count(ownerNamed("b"), outcome{decided: true, want: want, nodes: make([]mesh.Node, 3)})
	census.count(ownerNamed("b"), outcome{}) // nothing is known of it just now: what was known holds
	census.count(ownerNamed("gone"), outcome{decided: true, want: want, nodes: make([]mesh.Node, 3)})
	census.forget(ownerNamed("gone"))
	const help = "# HELP paymesh_identity_entries Entries of the ServiceIdentities: registered, missing (wanted, and not in SPIRE as rendered), refused (of these, by SPIRE), surplus (needed no more, and kept for the grace time).\n"
	if err := testutil.GatherAndCompare(metrics, strings.NewReader(help+`# TYPE paymesh_identity_entries gauge
paymesh_identity_entries{state="missing"} 2
paymesh_identity_entries{state="refused"} 2
paymesh_identity_entries{state="registered"} 4
paymesh_identity_entries{state="surplus"} 1
# HELP paymesh_identity_conflicts Entries of the ServiceIdentities that cannot be made since one of somebody else's is in the way.
# TYPE paymesh_identity_conflicts gauge
paymesh_identity_conflicts 1
`)); err != nil {
		t.Error(err)
	}
}
