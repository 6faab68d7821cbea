package spire_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/spire"
)

// sequence is a cluster in which things happen, and a SPIRE server that follows.
type sequence struct {
	random     *rand.Rand
	cluster    mesh.ClusterID
	identities map[string]meshv1alpha1.ServiceIdentity
	pods       map[string]corev1.Pod
	nodes      map[string]metav1.PartialObjectMetadata
	held       map[string]spire.Held
	// writes counts the entries that were written.
	writes int
}

// event does one thing that happens in clusters.
func (s *sequence) event() {
	account, node, pod := fmt.Sprint("sa-", s.random.IntN(4)), fmt.Sprint("node-", s.random.IntN(4)), fmt.Sprint("pod-", s.random.IntN(12))
	switch s.random.IntN(8) {
	case 0:
		delete(s.nodes, node)
	case 1: // also under the name of one that was there: to SPIRE it is another one
		s.nodes[node] = metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: node, UID: types.UID(fmt.Sprintf("%s-%d", node, s.random.IntN(3)))}}
	case 2:
		delete(s.identities, account)
	case 3:
		s.identities[account] = meshv1alpha1.ServiceIdentity{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: account},
			Spec:       meshv1alpha1.ServiceIdentitySpec{ServiceAccountName: account, Hint: fmt.Sprint(s.random.IntN(2))},
		}
	case 4:
		delete(s.pods, pod)
	case 5: // it ends
		if p, ok := s.pods[pod]; ok {
			p.Status.Phase = corev1.PodSucceeded
			s.pods[pod] = p
		}
	default:
		s.pods[pod] = corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: pod},
			Spec:       corev1.PodSpec{ServiceAccountName: account, NodeName: node},
		}
	}
}

// want is what SPIRE should hold of the cluster as it is, in whatever order it is read.
func (s *sequence) want() []spire.Entry {
	objects := mesh.Objects{
		Cluster: s.cluster, Namespaces: []metav1.PartialObjectMetadata{{ObjectMeta: metav1.ObjectMeta{Name: "ns"}}},
		Identities: slices.Collect(maps.Values(s.identities)), Pods: slices.Collect(maps.Values(s.pods)), Nodes: slices.Collect(maps.Values(s.nodes)),
	}
	m, _ := mesh.Build(objects)
	return spire.Entries(m)
}

// follow brings the server in line with the cluster, as far as one owner is concerned.
func (s *sequence) follow(owner spire.Owner) {
	of := func(id string) bool {
		parsed, _ := spire.ParseEntryID(s.cluster.Name, id)
		return parsed == owner
	}
	want := slices.DeleteFunc(s.want(), func(e spire.Entry) bool { return !of(e.ID) })
	var held []spire.Held
	for id, entry := range s.held {
		if of(id) {
			held = append(held, entry)
		}
	}
	plan := spire.Diff(want, held)
	s.writes += len(plan.IDs())
	for _, entry := range slices.Concat(plan.Create, plan.Update) {
		s.held[entry.ID] = spire.Held{Entry: entry, Revision: s.held[entry.ID].Revision + 1}
	}
	for _, id := range plan.Delete {
		delete(s.held, id)
	}
}

// owners are those of whatever is wanted or held, in any order.
func (s *sequence) owners() []spire.Owner {
	all := map[spire.Owner]bool{}
	for _, entry := range s.want() {
		owner, _ := spire.ParseEntryID(s.cluster.Name, entry.ID)
		all[owner] = true
	}
	for id := range s.held {
		owner, _ := spire.ParseEntryID(s.cluster.Name, id)
		all[owner] = true
	}
	list := slices.Collect(maps.Keys(all))
	s.random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

func TestAnySequenceOfEventsEndsInTheEntriesOfAFreshStart(t *testing.T) {
	cluster, err := mesh.NewClusterID("jia.app", "main")
	if err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(200) {
		s := &sequence{
			random: rand.New(rand.NewPCG(seed, 0)), cluster: cluster, identities: map[string]meshv1alpha1.ServiceIdentity{},
			pods: map[string]corev1.Pod{}, nodes: map[string]metav1.PartialObjectMetadata{}, held: map[string]spire.Held{},
		}
		for range 60 {
			s.event()
			for _, owner := range s.owners() {
				if s.random.IntN(3) == 0 { // the others come later, with other events in between
					s.follow(owner)
				}
			}
		}
		for _, owner := range s.owners() {
			s.follow(owner)
		}
		var got []spire.Entry
		for _, id := range slices.Sorted(maps.Keys(s.held)) {
			got = append(got, s.held[id].Entry)
		}
		if diff := cmp.Diff(s.want(), got); diff != "" {
			t.Fatalf("seed %d (-fresh +after the sequence):\n%s", seed, diff)
		}
		before := s.writes
		for _, owner := range s.owners() {
			s.follow(owner)
		}
		if s.writes != before {
			t.Errorf("seed %d: %d writes though nothing happened", seed, s.writes-before)
		}
		if before == 0 {
			t.Errorf("seed %d: nothing was ever written", seed)
		}
	}
}
