// Package corpus is for tests: it loads the cases of internal/testdata, the one corpus that every pure stage is held to,
// and compares what a stage makes of a case with the golden file beside it.
package corpus

import (
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/jia-app/paymesh/internal/mesh"
)

var update = flag.Bool("update", false, "rewrite the golden files, and delete those that no stage writes")

// Stages are the golden files that a case may hold beside in.yaml, one a stage. Any other file is an orphan.
var stages = map[string]bool{"in.yaml": true, "mesh.yaml": true, "entries.yaml": true, "xds.yaml": true, "workload.yaml": true}

// Case is one input of the pure stages.
type Case struct {
	Name    string
	Objects mesh.Objects
	dir     string
}

// Each runs a test for each case.
func Each(t *testing.T, test func(t *testing.T, c Case)) {
	t.Helper()
	_, file, _, _ := runtime.Caller(0)
	root := filepath.Join(filepath.Dir(file), "..", "testdata")
	dirs, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, dir := range dirs {
		if !dir.IsDir() {
			continue
		}
		ran++
		c := Case{Name: dir.Name(), dir: filepath.Join(root, dir.Name())}
		in, err := os.ReadFile(filepath.Join(c.dir, "in.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.UnmarshalStrict(in, &c.Objects); err != nil {
			t.Fatalf("%s/in.yaml: %v", c.Name, err)
		}
		c.sweep(t)
		t.Run(c.Name, func(t *testing.T) { test(t, c) })
	}
	if ran == 0 {
		t.Fatalf("no cases in %s", root)
	}
}

// Golden compares got, as YAML, with the case's golden file of a stage.
func (c Case) Golden(t *testing.T, file string, got any) {
	t.Helper()
	if !stages[file] {
		t.Fatalf("%s is not the golden file of a stage", file)
	}
	text, err := yaml.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(c.dir, file)
	if *update {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v: make goldens writes it", err)
	}
	if diff := cmp.Diff(string(want), string(text)); diff != "" {
		t.Errorf("%s/%s is not what the code makes (-want +got); if the change is meant, make goldens rewrites it:\n%s", c.Name, file, diff)
	}
}

// Shuffled is the case's objects in another order, which must mean the same.
func (c Case) Shuffled(seed uint64) mesh.Objects {
	random := rand.New(rand.NewPCG(seed, 0))
	o := c.Objects
	o.Identities = shuffle(random, o.Identities)
	o.Namespaces = shuffle(random, o.Namespaces)
	o.Pods = shuffle(random, o.Pods)
	o.Nodes = shuffle(random, o.Nodes)
	o.KubeServices = shuffle(random, o.KubeServices)
	o.NamedAfter = shuffle(random, o.NamedAfter)
	o.Services = shuffle(random, o.Services)
	o.Gateways = shuffle(random, o.Gateways)
	o.ConfigMaps = shuffle(random, o.ConfigMaps)
	o.Bundles = shuffle(random, o.Bundles)
	o.Entries.Of = shuffle(random, o.Entries.Of)
	return o
}

// sweep finds files that no stage writes, and deletes them where golden files are rewritten.
func (c Case) sweep(t *testing.T) {
	t.Helper()
	files, err := os.ReadDir(c.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if stages[file.Name()] {
			continue
		}
		if !*update {
			t.Errorf("%s/%s belongs to no stage: make goldens deletes it", c.Name, file.Name())
		} else if err := os.Remove(filepath.Join(c.dir, file.Name())); err != nil {
			t.Fatal(err)
		}
	}
}

func shuffle[T any](random *rand.Rand, list []T) []T {
	shuffled := make([]T, len(list))
	for to, from := range random.Perm(len(list)) {
		shuffled[to] = list[from]
	}
	return shuffled
}
