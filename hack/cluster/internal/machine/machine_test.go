package machine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// lab is a machine of its own in a temporary folder, with two state folders.
func lab(t *testing.T) (m Machine, a, b string) {
	t.Helper()
	dir := t.TempDir()
	m = Machine{Dir: filepath.Join(dir, "run"), Sysctl: filepath.Join(dir, "sys")}
	for _, key := range Sysctls[1:] { // a kernel may lack one
		path := filepath.Join(m.Sysctl, key)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		set(t, path, "before\n")
	}
	a, b = filepath.Join(dir, "a"), filepath.Join(dir, "b")
	for _, state := range []string{a, b} {
		if err := os.Mkdir(state, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return m, a, b
}

func set(t *testing.T, path, value string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (m Machine) value(t *testing.T) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(m.Sysctl, Sysctls[2]))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(raw))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestTheLastClusterPutsTheSettingsBack(t *testing.T) {
	m, a, b := lab(t)
	must(t, m.Enter(a))
	set(t, filepath.Join(m.Sysctl, Sysctls[2]), "kubelet's")
	must(t, m.Enter(b)) // must not take the kubelet's value for the machine's
	must(t, m.Leave(t.Context(), a))
	if got := m.value(t); got != "kubelet's" {
		t.Errorf("with one cluster left the value is %q", got)
	}
	must(t, m.Leave(t.Context(), b))
	if got := m.value(t); got != "before" {
		t.Errorf("after the last cluster the value is %q", got)
	}
	if _, err := os.Stat(m.Dir); !os.IsNotExist(err) {
		t.Errorf("the record is still there: %v", err)
	}
}

func TestAClusterWhoseFolderIsGoneDoesNotKeepTheOthers(t *testing.T) {
	m, a, b := lab(t)
	must(t, m.Enter(a))
	must(t, m.Enter(b))
	set(t, filepath.Join(m.Sysctl, Sysctls[2]), "kubelet's")
	must(t, os.RemoveAll(a))
	must(t, m.Leave(t.Context(), b))
	if got := m.value(t); got != "before" {
		t.Errorf("the value is %q", got)
	}
}

func TestLeavingTwiceOrWithoutEnteringChangesNothing(t *testing.T) {
	m, a, b := lab(t)
	must(t, m.Leave(t.Context(), a))
	must(t, m.Enter(a))
	set(t, filepath.Join(m.Sysctl, Sysctls[2]), "kubelet's")
	must(t, m.Leave(t.Context(), b))
	if got := m.value(t); got != "kubelet's" {
		t.Errorf("the value is %q", got)
	}
	must(t, m.Leave(t.Context(), a))
	set(t, filepath.Join(m.Sysctl, Sysctls[2]), "somebody else's")
	must(t, m.Leave(t.Context(), a))
	if got := m.value(t); got != "somebody else's" {
		t.Errorf("the value is %q", got)
	}
}

func TestARecordOfAnEarlierBootIsForgotten(t *testing.T) {
	m, a, b := lab(t)
	must(t, os.Mkdir(m.Dir, 0o755))
	set(t, filepath.Join(m.Dir, recordFile), `{"bootID": "earlier", "members": ["`+b+`"], "sysctls": {"`+Sysctls[2]+`": "earlier"}}`)
	must(t, m.Enter(a))
	set(t, filepath.Join(m.Sysctl, Sysctls[2]), "kubelet's")
	must(t, m.Leave(t.Context(), a))
	if got := m.value(t); got != "before" {
		t.Errorf("the value is %q", got)
	}
}

func TestUndoIsWrittenByTheLast(t *testing.T) {
	m, a, _ := lab(t)
	control := filepath.Join(m.Sysctl, "control")
	set(t, control, "+cpu")
	must(t, m.Enter(a))
	must(t, m.AddUndo(Setting{Path: control, Value: "-cpu"}, Setting{Path: control + ".gone", Value: "x"}))
	must(t, m.Leave(t.Context(), a))
	if raw, err := os.ReadFile(control); err != nil || string(raw) != "-cpu" {
		t.Errorf("got %q, %v", raw, err)
	}
}
