package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func file(t *testing.T, name, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func digest(t *testing.T, s Spec) string {
	t.Helper()
	s.Tag, s.User = "x:1", DefaultUser
	built, err := Build(s)
	if err != nil {
		t.Fatal(err)
	}
	hash, err := built.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return hash.String()
}

func TestTheSameContentGivesTheSameDigest(t *testing.T) {
	a, b := file(t, "a", "content", 0o755), file(t, "other", "content", 0o700)
	if err := os.Chtimes(b, time.Unix(1, 0), time.Unix(2, 0)); err != nil {
		t.Fatal(err)
	}
	lib := file(t, "lib", "lib", 0o644)
	first := digest(t, Spec{Files: []File{{a, "/bin/a"}, {lib, "/lib/x"}}})
	if again := digest(t, Spec{Files: []File{{lib, "/lib/x"}, {b, "/bin/a"}}}); again != first {
		t.Error("another name, time, umask or order of the sources changes the digest")
	}
	if other := digest(t, Spec{Files: []File{{file(t, "a", "Content", 0o755), "/bin/a"}, {lib, "/lib/x"}}}); other == first {
		t.Error("other content does not change the digest")
	}
}

func TestTheLayerHoldsFilesTheirFoldersAndTmp(t *testing.T) {
	var layer bytes.Buffer
	if err := writeLayer(&layer, []File{{file(t, "p", "#!", 0o711), "/usr/bin/p"}, {file(t, "d", "data", 0o640), "/d"}}); err != nil {
		t.Fatal(err)
	}
	type entry struct {
		Name string
		Mode int64
	}
	var got []entry
	for r := tar.NewReader(&layer); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, entry{header.Name, header.Mode})
	}
	want := []entry{{"d", 0o644}, {"tmp/", 0o1777}, {"usr/", 0o755}, {"usr/bin/", 0o755}, {"usr/bin/p", 0o755}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestAProgramBringsItsLibraries(t *testing.T) {
	const dynamic = "/bin/sh"
	needs, err := needed(dynamic)
	if err != nil || len(needs) < 2 {
		t.Skipf("%s is linked statically here: %v, %v", dynamic, needs, err)
	}
	files, err := withLibraries([]File{{dynamic, "/sh"}})
	if err != nil {
		t.Fatal(err)
	}
	targets := map[string]bool{}
	for _, f := range files {
		targets[f.Target] = true
	}
	for _, library := range needs {
		if !targets[library] {
			t.Errorf("%s is missing", library)
		}
	}
}

func TestBuildSaysWhatIsWrong(t *testing.T) {
	program := file(t, "p", "#!", 0o755)
	for want, s := range map[string]Spec{
		"at least one file":     {User: DefaultUser},
		"UID":                   {User: "root", Files: []File{{program, "/p"}}},
		"no such file":          {User: DefaultUser, Files: []File{{program + ".not", "/p"}}},
		"both want to be":       {User: DefaultUser, Files: []File{{program, "/p"}, {file(t, "q", "#!", 0o755), "/p"}}},
		"is not a regular file": {User: DefaultUser, Files: []File{{os.DevNull, "/p"}}},
	} {
		if _, err := Build(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}

func TestParseFile(t *testing.T) {
	for arg, want := range map[string]File{
		"bin/manager":        {"bin/manager", "/manager"},
		"bin/manager:/opt/m": {"bin/manager", "/opt/m"},
		"a:b":                {}, "": {}, ":/x": {}, "a:/": {}, "a:/x/../y": {}, "a:": {},
	} {
		got, err := ParseFile(arg)
		if diff := cmp.Diff(want, got); diff != "" || (err == nil) == (want == File{}) {
			t.Errorf("%q: %v %s", arg, err, diff)
		}
	}
}
