package policy

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/jia-app/paymesh/payment/logtest"
)

var till = spiffeid.RequireFromString("spiffe://jia.app/till")

const (
	nobody = "rules: []\n"
	reads  = "rules:\n- {name: till, spiffe_id: spiffe://jia.app/till, methods: [p.S/Get]}\n"
)

// volume is a ConfigMap as the kubelet mounts it: the file is a link to ..data/policy.yaml, and ..data one to a folder.
type volume struct {
	t    *testing.T
	dir  string
	next int
}

func (v *volume) path() string { return filepath.Join(v.dir, "policy.yaml") }

// swap replaces the content as the kubelet does: a new folder, a new link, which is renamed, and the old folder goes.
func (v *volume) swap(files map[string]string) {
	v.t.Helper()
	v.next++
	folder, old := filepath.Join(v.dir, fmt.Sprintf("..%d", v.next)), filepath.Join(v.dir, fmt.Sprintf("..%d", v.next-1))
	check := func(err error) {
		if err != nil {
			v.t.Fatal(err)
		}
	}
	check(os.Mkdir(folder, 0o700))
	for name, text := range files {
		check(os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600))
	}
	check(os.Symlink(filepath.Base(folder), filepath.Join(v.dir, "..data_tmp")))
	check(os.Rename(filepath.Join(v.dir, "..data_tmp"), filepath.Join(v.dir, "..data")))
	if _, err := os.Lstat(v.path()); err != nil {
		check(os.Symlink("..data/policy.yaml", v.path()))
	}
	check(os.RemoveAll(old))
}

func open(t *testing.T, path string) (*File, *logtest.Log) {
	t.Helper()
	log := &logtest.Log{}
	f, err := Open(Options{Path: path, Log: slog.New(slog.NewTextHandler(log, nil)), Registerer: prometheus.NewRegistry(), Interval: 5 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return f, log
}

func (f *File) expect(t *testing.T, want bool, changes, refusals, outdated float64) {
	t.Helper()
	if got := f.Decide(till, "/p.S/Get").Allowed; got != want {
		t.Errorf("the caller may call: %t, want %t", got, want)
	}
	got := [3]float64{testutil.ToFloat64(f.changes.WithLabelValues(loaded)), testutil.ToFloat64(f.changes.WithLabelValues(refused)), testutil.ToFloat64(f.outdated)}
	if got != [3]float64{changes, refusals, outdated} {
		t.Errorf("loaded, refused, outdated: %v, want %v", got, [3]float64{changes, refusals, outdated})
	}
}

func TestAPolicyThatWasLastGoodStaysInForce(t *testing.T) {
	v := &volume{t: t, dir: t.TempDir()}
	v.swap(map[string]string{"policy.yaml": reads})
	f, log := open(t, v.path())
	f.expect(t, true, 1, 0, 0)
	steps := []struct {
		name                        string
		files                       map[string]string
		want                        bool
		loaded, refused, isOutdated float64
		line                        string
	}{
		{"the same", map[string]string{"policy.yaml": reads}, true, 1, 0, 0, ""},
		{"broken", map[string]string{"policy.yaml": "rules: ["}, true, 1, 1, 1, "yaml:"},
		{"empty", map[string]string{"policy.yaml": ""}, true, 1, 2, 1, "rules: is required"},
		{"the same again", map[string]string{"policy.yaml": reads}, true, 1, 2, 0, "is again the one that is in force"},
		{"nobody", map[string]string{"policy.yaml": nobody}, false, 2, 2, 0, "nobody may call"},
		{"missing", map[string]string{"config.yaml": ""}, false, 2, 3, 1, "no such file"},
		{"good again", map[string]string{"policy.yaml": reads + "\n"}, true, 3, 3, 0, "rules=1"},
	}
	for _, step := range steps {
		v.swap(step.files)
		for range 3 { // it is told once
			f.look()
		}
		t.Log(step.name)
		f.expect(t, step.want, step.loaded, step.refused, step.isOutdated)
		if step.line != "" && log.Count(step.line) == 0 {
			t.Errorf("the log has no %q", step.line)
		}
	}
	if n := log.Count("stays in force"); n != 3 {
		t.Errorf("%d failures are told, want 3", n)
	}
}

func TestASwapTakesEffectWithoutARestart(t *testing.T) {
	v := &volume{t: t, dir: t.TempDir()}
	v.swap(map[string]string{"policy.yaml": nobody})
	f, _ := open(t, v.path())
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	watching.Go(func() { f.Watch(ctx) })
	for _, step := range []struct {
		text string
		want bool
	}{{reads, true}, {nobody, false}, {reads, true}} {
		v.swap(map[string]string{"policy.yaml": step.text})
		logtest.Eventually(t, func() bool { return f.Decide(till, "/p.S/Get").Allowed == step.want })
	}
	cancel()
	watching.Wait()
}

func TestAtTheStartThereMustBeAPolicy(t *testing.T) {
	dir := t.TempDir()
	broken := filepath.Join(dir, "broken.yaml")
	if err := os.WriteFile(broken, []byte("rules: [{name: a}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "none.yaml"): "auth.policy_file: read the policy: open " + filepath.Join(dir, "none.yaml") + ": no such file",
		dir:                             "is a directory",
		broken:                          "auth.policy_file: " + broken + ": rules[0].spiffe_id",
	} {
		if _, err := Open(Options{Path: path, Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", path, err, want)
		}
	}
}
