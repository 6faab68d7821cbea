package spire_test

import (
	"context"
	"slices"
	"testing"
	"time"

	k8stypes "k8s.io/apimachinery/pkg/types"

	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/spire"
)

// selectors are what a kubelet's agent would attest of a pod.
func selectors(namespace, account string, more ...string) []string {
	return append([]string{"k8s:ns:" + namespace, "k8s:sa:" + account}, more...)
}

func TestAPodOnANodeGetsTheSVIDOfItsIdentityThroughTheNodesAlias(t *testing.T) {
	r, _ := running(t, server, cluster.Name, time.Minute)
	here, elsewhere := nodeOf(t, cluster, node.Name, node.UID), nodeOf(t, cluster, "elsewhere", "00000000-0000-0000-0000-000000000000")
	onNode, other := identity(cluster, "payment-service", here), identity(cluster, "contact-service", elsewhere)
	narrow := identity(cluster, "narrow", here)
	narrow.PodLabels = map[string]string{"app.kubernetes.io/name": "narrow", "empty": ""}
	begin := time.Now()
	apply(t, r, spire.Diff(spire.Entries(mesh.Mesh{
		Cluster: cluster, Nodes: []mesh.Node{here, elsewhere}, Identities: []mesh.Identity{onNode, other, narrow},
	}), nil))

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	svids, err := agent.SVIDs(ctx, selectors("payments", "payment-service", "k8s:pod-uid:1", "k8s:node-name:"+node.Name)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("SVID %s after the entries were written", time.Since(begin).Round(time.Millisecond))
	if len(svids) != 1 || svids[0].ID != onNode.ID.String() {
		t.Fatalf("got %+v, want one with the ID %s", svids, onNode.ID)
	}
	leaf := svids[0].Leaf
	if !slices.Equal(leaf.DNSNames, onNode.DNSNames) || leaf.Subject.CommonName != onNode.DNSNames[0] {
		t.Errorf("DNS names %v and common name %q, want %v and the first of them", leaf.DNSNames, leaf.Subject.CommonName, onNode.DNSNames)
	}
	if left := time.Until(leaf.NotAfter); left > onNode.X509SVIDTTL.Duration || left < onNode.X509SVIDTTL.Duration-time.Minute {
		t.Errorf("valid for %s, want %s", left, onNode.X509SVIDTTL)
	}
	if svids[0].Hint != onNode.Hint {
		t.Errorf("hint %q", svids[0].Hint)
	}
	labels := []string{"k8s:pod-label:app.kubernetes.io/name:narrow", "k8s:pod-label:empty:", "k8s:pod-label:more:x"}
	if svids, err := agent.SVIDs(ctx, selectors("payments", "narrow", labels...)...); err != nil || len(svids) != 1 || svids[0].ID != narrow.ID.String() {
		t.Errorf("the pod with the labels got %+v (%v)", svids, err)
	}
	for name, pod := range map[string][]string{
		"of another namespace":           selectors("people", "payment-service"),
		"of another account":             selectors("payments", "default"),
		"of an identity not on the node": selectors("payments", "contact-service"),
		"without a label":                selectors("payments", "narrow", labels[1:]...),
	} {
		t.Run("nothing for a pod "+name, func(t *testing.T) {
			t.Parallel() // each waits its time
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			if svids, err := agent.SVIDs(ctx, pod...); err == nil {
				t.Errorf("got %+v", svids)
			}
		})
	}
}

func TestAPodGetsTheSVIDOfAnIdentityForTheWholeClusterAndKeepsItWhileThePlacementChanges(t *testing.T) {
	r, _ := running(t, server, cluster.Name, time.Minute)
	here := nodeOf(t, cluster, node.Name, node.UID)
	wide, onNode := identity(cluster, "everywhere"), identity(cluster, "everywhere", here)
	wide.ClusterWide = true
	apply(t, r, spire.Diff(spire.Entries(mesh.Mesh{Cluster: cluster, Identities: []mesh.Identity{wide}}), nil))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := agent.Watch(ctx, selectors("payments", "everywhere")...)
	if err != nil {
		t.Fatal(err)
	}
	next := func() string {
		t.Helper()
		svids, err := stream()
		if err != nil {
			t.Fatal(err)
		}
		for _, svid := range svids {
			if svid.ID != wide.ID.String() {
				t.Errorf("got an SVID of %s", svid.ID)
			}
		}
		if len(svids) == 0 {
			return ""
		}
		return svids[0].Leaf.SerialNumber.String()
	}
	for next() == "" { // the agent has not heard of it yet
	}
	apply(t, r, spire.Diff(spire.Entries(mesh.Mesh{Cluster: cluster, Nodes: []mesh.Node{here}, Identities: []mesh.Identity{onNode}}), nil))
	if next() == "" {
		t.Fatal("the pod lost its identity when the entry of the node came")
	}
	apply(t, r, spire.Plan{Delete: []string{spire.Own(cluster, wide)[0].ID}})
	if next() == "" {
		t.Fatal("the pod lost its identity when the entry of the cluster went")
	}
}

func TestAPodWithTwoIdentitiesGetsBothSVIDs(t *testing.T) {
	r, _ := running(t, server, cluster.Name, time.Minute)
	here := nodeOf(t, cluster, node.Name, node.UID)
	first, second := identity(cluster, "two", here), identity(cluster, "two-more", here)
	second.ServiceAccountName, second.Hint = first.ServiceAccountName, "external" // with the same hint SPIRE gives only one
	apply(t, r, spire.Diff(spire.Entries(mesh.Mesh{Cluster: cluster, Nodes: []mesh.Node{here}, Identities: []mesh.Identity{first, second}}), nil))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := agent.Watch(ctx, selectors("payments", "two")...)
	if err != nil {
		t.Fatal(err)
	}
	for ids := []string(nil); len(ids) < 2; {
		svids, err := stream()
		if err != nil {
			t.Fatalf("got %v, and then %v", ids, err)
		}
		ids = nil
		for _, svid := range svids {
			ids = append(ids, svid.ID)
		}
		slices.Sort(ids)
		if len(ids) == 2 && !slices.Equal(ids, []string{first.ID.String(), second.ID.String()}) {
			t.Errorf("got %v", ids)
		}
	}
}

func TestAnUpdateReachesThePodWithoutAGap(t *testing.T) {
	r, _ := running(t, server, cluster.Name, time.Minute)
	here := nodeOf(t, cluster, node.Name, node.UID)
	service := identity(cluster, "updated", here)
	write := func() {
		want := spire.Entries(mesh.Mesh{Cluster: cluster, Identities: []mesh.Identity{service}})
		apply(t, r, spire.Diff(want, r.Of(owner("updated"))))
	}
	write()
	alias := spire.Entries(mesh.Mesh{Cluster: cluster, Nodes: []mesh.Node{here}})
	apply(t, r, spire.Diff(alias, r.Of(spire.Owner{Kind: spire.OwnerNode, NodeUID: here.UID})))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := agent.Watch(ctx, selectors("payments", "updated")...)
	if err != nil {
		t.Fatal(err)
	}
	service.DNSNames = []string{"new.example.com"}
	for seen, written := 0, false; ; seen++ {
		svids, err := stream()
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case len(svids) == 0 && written:
			t.Fatal("the pod lost its identity")
		case len(svids) == 0:
			continue // the agent has not heard of it yet
		case slices.Equal(svids[0].Leaf.DNSNames, service.DNSNames):
			return
		case !written:
			write()
			written = true
		}
		if seen > 10 {
			t.Fatalf("after %d SVIDs the DNS names are %v", seen, svids[0].Leaf.DNSNames)
		}
	}
}

func TestTheManagersPodGetsTheOperatorsSVIDByTheBootstrapsEntries(t *testing.T) {
	account := k8stypes.NamespacedName{Namespace: "paymesh-system", Name: "paymesh-manager"}
	apply(t, admin(t, server), spire.Diff(spire.Bootstrap(cluster, account), nil))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	svids, err := agent.SVIDs(ctx, selectors(account.Namespace, account.Name)...)
	if err != nil || len(svids) != 1 || svids[0].ID != cluster.OperatorID().String() {
		t.Errorf("got %+v (%v), want %s", svids, err, cluster.OperatorID())
	}
}
