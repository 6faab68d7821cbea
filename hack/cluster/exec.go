package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"github.com/jia-app/paymesh/hack/cluster/internal/node"
	"github.com/jia-app/paymesh/hack/cluster/internal/state"
)

// execute becomes the command, so that the terminal, the signals and the exit code are its own.
func execute(ctx context.Context, o options, args []string, _ io.Writer) error {
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return errors.New("name a command: cluster exec -- kubectl get nodes")
	}
	cmd, err := inside(ctx, o.folder, args...)
	if err != nil {
		return err
	}
	err = syscall.Exec(cmd.Path, cmd.Args, os.Environ())
	return fmt.Errorf("run %s: %w", cmd.Path, err)
}

// inside prepares a command in the node's namespaces, with the cluster's programs before the machine's.
func inside(ctx context.Context, f state.Folder, args ...string) (*exec.Cmd, error) {
	r, err := running(f)
	if err != nil {
		return nil, err
	}
	enter := []string{"--target", fmt.Sprint(r.Node.PID), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--", "env"}
	enter = append(enter, node.Environment(f)...)
	return exec.CommandContext(ctx, "nsenter", append(enter, args...)...), nil
}
