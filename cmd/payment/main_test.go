package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAWrongStartIsExplained(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte("grpc: {port: 1}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"an unknown key":  {[]string{"--config", path}, path + ":1: grpc.port: unknown key"},
		"no file":         {[]string{"--config", path + ".none"}, "read the configuration: open " + path + ".none"},
		"an unknown flag": {[]string{"--port", "1"}, "flag provided but not defined: -port"},
		"an argument":     {[]string{path}, "is not a flag: --config FILE is the only one"},
	} {
		var out, err strings.Builder
		if code := run(c.args, &out, &err); code != 2 || !strings.Contains(err.String(), c.want) {
			t.Errorf("%s: got %d, %q, want 2 and %q", name, code, err.String(), c.want)
		}
	}
}
