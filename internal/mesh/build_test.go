package mesh_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/corpus"
	"github.com/jia-app/paymesh/internal/mesh"
)

// output is what a golden file holds of a build.
type output struct {
	Mesh     mesh.Mesh      `json:"mesh"`
	Problems []mesh.Problem `json:"problems,omitempty"`
}

// nextStep is how a message tells what to do.
var nextStep = regexp.MustCompile(`kubectl (annotate|describe) |delete (that one|this \w+)|choose (another|one of)|leave .*out|shorten it|` +
	`write (there, in spec, \w+: \[\{|\{"keys"|[\w' ]+ there)|create (it|another)|correct |add it|remove it|make (it|the)|replace it at the issuer`)

func TestBuildMakesTheGoldenMeshOfEveryCase(t *testing.T) {
	corpus.Each(t, func(t *testing.T, c corpus.Case) {
		m, problems := mesh.Build(c.Objects)
		c.Golden(t, "mesh.yaml", output{Mesh: m, Problems: problems})
	})
}

func TestBuildMakesTheSameBytesOfTheSameObjectsInAnyOrder(t *testing.T) {
	corpus.Each(t, func(t *testing.T, c corpus.Case) {
		want := text(t, c.Objects)
		for seed := range uint64(20) {
			if diff := cmp.Diff(want, text(t, c.Shuffled(seed))); diff != "" {
				t.Fatalf("seed %d (-in order +shuffled):\n%s", seed, diff)
			}
		}
	})
}

func TestEveryIdentityIsEitherInTheMeshOrHasAProblemThatSaysWhatToDo(t *testing.T) {
	corpus.Each(t, func(t *testing.T, c corpus.Case) {
		m, problems := mesh.Build(c.Objects)
		told := map[string]bool{}
		for _, problem := range problems {
			if problem.Kind == mesh.KindServiceIdentity {
				told[problem.Object.String()] = true
			}
		}
		for i := range c.Objects.Identities {
			object := &c.Objects.Identities[i]
			_, accepted := m.Identity(mesh.KeyOf(object))
			going := object.DeletionTimestamp != nil
			if accepted == told[mesh.KeyOf(object).String()] && !going {
				t.Errorf("%s: accepted %v, told why not %v", mesh.KeyOf(object), accepted, !accepted)
			}
		}
	})
}

func TestEveryProblemNamesACauseAFieldAndTheNextStep(t *testing.T) {
	corpus.Each(t, func(t *testing.T, c corpus.Case) {
		_, problems := mesh.Build(c.Objects)
		for _, problem := range problems {
			// The step after Syncing is the manager's.
			if nextStep.FindString(problem.Message) == "" && problem.Reason != meshv1alpha1.ReasonSyncing {
				t.Errorf("%s: no next step", problem)
			}
			if problem.Kind == "" || problem.Object.Name == "" || problem.Condition == "" || problem.Reason == "" || !strings.HasPrefix(problem.Field, "spec.") {
				t.Errorf("%+v is not whole", problem)
			}
		}
	})
}

func TestNoTwoIdentitiesOfAMeshShareASPIFFEIDAndNoneIsReserved(t *testing.T) {
	corpus.Each(t, func(t *testing.T, c corpus.Case) {
		m, _ := mesh.Build(c.Objects)
		owner := map[string]string{}
		for _, identity := range m.Identities {
			id := identity.ID.String()
			if other, taken := owner[id]; taken {
				t.Errorf("%s belongs to %s and %s", id, other, identity.Key)
			}
			owner[id] = identity.Key.String()
			for _, reserved := range []string{"/spire", "/paymesh"} {
				if path := identity.ID.Path(); path == reserved || strings.HasPrefix(path, reserved+"/") {
					t.Errorf("%s has the reserved path %s", identity.Key, path)
				}
			}
			if path := identity.ID.Path(); strings.HasPrefix(path, "/ns/") && !strings.HasPrefix(path+"/", "/ns/"+identity.Key.Namespace+"/") {
				t.Errorf("%s has a path of another namespace: %s", identity.Key, path)
			}
		}
	})
}

func TestNewClusterIDRefusesNamesThatNoEntryIDCanHold(t *testing.T) {
	for name, test := range map[string]struct{ trustDomain, cluster, message string }{
		"upper case trust domain": {"JIA.app", "main", "trust domain"},
		"empty trust domain":      {"", "main", "trust domain"},
		"long trust domain":       {strings.Repeat("a", 256), "main", "trust domain"},
		"dot in the cluster name": {"jia.app", "eu.main", "cluster name"},
		"empty cluster name":      {"jia.app", "", "cluster name"},
		"long cluster name":       {"jia.app", strings.Repeat("a", 64), "cluster name"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := mesh.NewClusterID(test.trustDomain, test.cluster)
			if err == nil || !strings.Contains(err.Error(), test.message) {
				t.Errorf("got error %v, want one about the %s", err, test.message)
			}
		})
	}
}

func text(t *testing.T, objects mesh.Objects) string {
	t.Helper()
	m, problems := mesh.Build(objects)
	out, err := yaml.Marshal(output{Mesh: m, Problems: problems})
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
