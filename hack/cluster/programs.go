package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/jia-app/paymesh/hack/cluster/internal/node"
)

//go:embed system-packages.sh
var systemPackages string

// checkSystem says what the machine itself must have and does not.
func checkSystem(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "sh", "-s", "--", "--check")
	cmd.Stdin = strings.NewReader(systemPackages)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return errors.New(strings.TrimSpace(string(out)))
	}
	return nil
}

// findPrograms finds every program of a node in the environment, as hack/tools/tools.sh does, or in binDir. env is
// os.Getenv.
func findPrograms(binDir string, env func(string) string) (map[string]string, error) {
	found := map[string]string{}
	var missing []string
	for _, name := range node.Programs {
		path := override(name, env)
		if path == "" && binDir != "" {
			path = filepath.Join(binDir, name)
		}
		if !executable(path) {
			missing = append(missing, name)
			continue
		}
		absolute, err := filepath.Abs(path)
		if err != nil {
			return nil, fmt.Errorf("program %s: %w", name, err)
		}
		found[name] = absolute
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("no program for %s in %q: build them with hack/tools/tools.sh %s, and give --bin-dir \"$(hack/tools/tools.sh --dir)\"",
			strings.Join(missing, ", "), binDir, strings.Join(missing, " "))
	}
	if path := override("runc", env); executable(path) {
		found["runc"] = path
	}
	return found, nil
}

func override(name string, env func(string) string) string {
	variable := strings.ToUpper(strings.ReplaceAll(name, "-", "_")) + "_BIN"
	if path := env(variable); path != "" {
		return path
	}
	if assets := env("KUBEBUILDER_ASSETS"); assets != "" && slices.Contains([]string{"etcd", "kube-apiserver", "kubectl"}, name) {
		return filepath.Join(assets, name)
	}
	return ""
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}
