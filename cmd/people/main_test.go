package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAWrongStartIsExplained(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data.json")
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"an unknown flag":      {[]string{"--port", "1"}, 2, "flag provided but not defined: -port"},
		"an argument":          {[]string{"contact"}, 2, "is not a flag: people --help lists them"},
		"data that is no JSON": {[]string{"--service", "contact", "--data", path}, 2, path + ": unexpected EOF"},
		"an unknown service":   {[]string{"--service", "payment"}, 1, "want contact, family or document"},
	} {
		var out, err strings.Builder
		code := run(c.args, &out, &err)
		if said := out.String() + err.String(); code != c.code || !strings.Contains(said, c.want) {
			t.Errorf("%s: got %d, %q, want %d and %q", name, code, said, c.code, c.want)
		}
	}
}
