package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestOpenTakesOnlyNamesThatHostsAndCgroupsCanHave(t *testing.T) {
	for name, ok := range map[string]bool{
		"paymesh": true, "a": true, "e2e-2": true, strings.Repeat("a", 32): true,
		"": false, "-a": false, "a-": false, "A": false, "a.b": false, "../x": false, "a b": false, "a\n": false, strings.Repeat("a", 33): false,
	} {
		_, err := Open(name, t.TempDir())
		if (err == nil) != ok {
			t.Errorf("Open(%q): %v, want ok=%v", name, err, ok)
		}
	}
}

func TestOpenRefusesAFolderThatIsTooDeepForASocket(t *testing.T) {
	_, err := Open("x", "/"+strings.Repeat("d", 100))
	if err == nil || !strings.Contains(err.Error(), "--state-dir") {
		t.Errorf("got %v, want an error that names --state-dir", err)
	}
}

func TestOpenUsesTheStateHomeOfTheUser(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", "/somewhere")
	f, err := Open("x", "")
	if err != nil {
		t.Fatal(err)
	}
	if want := "/somewhere/paymesh/clusters/x"; f.Dir != want {
		t.Errorf("got %s, want %s", f.Dir, want)
	}
}

func TestOpenGivesAFolderOneNameBeforeAndAfterItIsThere(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "real"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		f, err := Open("x", filepath.Join(dir, "link", "deep", "x"))
		if err != nil {
			t.Fatal(err)
		}
		if want := filepath.Join(dir, "real", "deep", "x"); f.Dir != want {
			t.Errorf("got %s, want %s", f.Dir, want)
		}
		if err := os.MkdirAll(f.Dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRecordSurvives(t *testing.T) {
	f := open(t)
	if r, err := f.Read(); r != nil || err != nil {
		t.Fatalf("an empty folder has record %v, %v", r, err)
	}
	want := Record{Name: "x", Cgroup: "c", APIPort: 7, Created: time.Unix(1, 0).UTC()}
	if err := f.Write(want); err != nil {
		t.Fatal(err)
	}
	got, err := f.Read()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&want, got); diff != "" {
		t.Error(diff)
	}
}

func TestCreateRefusesAFolderWithOtherFiles(t *testing.T) {
	f := open(t)
	if err := os.WriteFile(filepath.Join(f.Dir, "thesis.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.Create(); err == nil {
		t.Error("no error")
	}
}

func TestEmptyTouchesNothingWithoutARecord(t *testing.T) {
	f := open(t)
	file := filepath.Join(f.Dir, "thesis.txt")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.Empty(false); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}

func TestEmptyLeavesTheLogsOnRequestAndNothingOtherwise(t *testing.T) {
	f := open(t)
	if err := f.Create(); err != nil {
		t.Fatal(err)
	}
	if err := f.Write(Record{Name: "x"}); err != nil {
		t.Fatal(err)
	}
	if err := f.Empty(true); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"cluster.json", "log"}, list(t, f.Dir)); diff != "" {
		t.Error(diff)
	}
	if err := f.Empty(false); err != nil {
		t.Fatal(err)
	}
	if left := list(t, f.Dir); left != nil {
		t.Errorf("left: %v", left)
	}
}

func TestRemoveTakesTheFoldersAboveOnlyWhereTheyAreEmpty(t *testing.T) {
	home := t.TempDir()
	t.Setenv("XDG_STATE_HOME", home)
	folders := make([]Folder, 0, 2)
	for _, name := range []string{"a", "b"} {
		f, err := Open(name, "")
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Create(); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(f.Dir); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(f.Dir, 0o700); err != nil {
			t.Fatal(err)
		}
		folders = append(folders, f)
	}
	for i, want := range [][]string{{"b"}, nil} {
		if err := folders[i].Remove(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, list(t, filepath.Join(home, "paymesh", "clusters"))); diff != "" {
			t.Error(diff)
		}
	}
	if left := list(t, home); left != nil {
		t.Errorf("left: %v", left)
	}
}

func TestLockKeepsTheSecondOutAndFollowsAFolderThatWasRemoved(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "x")
	unlock, err := LockDir(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	second := make(chan error)
	go func() {
		unlock, err := LockDir(dir, true)
		if err == nil {
			_, err = os.Stat(dir) // the lock is worth something only if its folder is there
			unlock()
		}
		second <- err
	}()
	select {
	case err := <-second:
		t.Fatalf("the second came in: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	unlock()
	if err := <-second; err != nil {
		t.Error(err)
	}
}

func TestLockWithoutCreateSaysThatThereIsNothing(t *testing.T) {
	if _, err := LockDir(filepath.Join(t.TempDir(), "x"), false); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want fs.ErrNotExist", err)
	}
}

func open(t *testing.T) Folder {
	t.Helper()
	f, err := Open("x", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func list(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if len(entries) == 0 {
		return nil
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
