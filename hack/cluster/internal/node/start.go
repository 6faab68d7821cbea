package node

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/jia-app/paymesh/hack/cluster/internal/cgroup"
	"github.com/jia-app/paymesh/hack/cluster/internal/state"
)

// The program runs itself again with these words as its first argument.
const (
	// EnterCommand is pid 1 of the new namespaces, still with the machine's file system and cgroups.
	EnterCommand = "__enter"
	// RunCommand is the same process in the cgroup namespace as well: the node.
	RunCommand = "__node"
	// PauseCommand is the process that holds a pod's namespaces.
	PauseCommand = "__pause"
)

// Start makes the node's process, detached from this one, in new namespaces. It does nothing before release is
// called, so that its pid can be recorded first: if this process dies before that, the node ends by itself.
func Start(s Spec) (pid int, release func() error, err error) {
	f := s.folder()
	gate, open, err := os.Pipe()
	if err != nil {
		return 0, nil, fmt.Errorf("start the node: %w", err)
	}
	defer func() { _ = gate.Close() }()
	log, err := os.OpenFile(f.Log("node"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return 0, nil, errors.Join(fmt.Errorf("start the node: %w", err), open.Close())
	}
	defer func() { _ = log.Close() }()

	//nolint:noctx // it outlives this command
	cmd := exec.Command(s.Programs[self], EnterCommand, s.Name, s.Dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = gate, log, log
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
	}
	if err := cmd.Start(); err != nil {
		return 0, nil, errors.Join(fmt.Errorf("start the node in new namespaces (this needs root): %w", err), open.Close())
	}
	release = func() error {
		_, err := open.Write([]byte("go"))
		return errors.Join(err, open.Close())
	}
	// Whoever waits for it must not keep it as a zombie that looks alive.
	go func() { _ = cmd.Wait() }()
	return cmd.Process.Pid, release, nil
}

// Enter is the first half of the node's process: it waits for the word to go, joins the cluster's cgroups, makes them
// the roots of a cgroup namespace, and becomes the second half.
func Enter(name, dir string) error {
	if word, err := io.ReadAll(os.Stdin); err != nil || string(word) != "go" {
		return fmt.Errorf("the command that started the node of cluster %s ended too early", name)
	}
	s, err := loadSpec(state.Folder{Name: name, Dir: dir})
	if err != nil {
		return err
	}
	if err := cgroup.Join(s.Cgroup); err != nil {
		return err
	}
	// unshare changes this thread only; exec ends all others and keeps it.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("new cgroup namespace: %w", err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	if err := unix.Dup2(int(null.Fd()), 0); err != nil {
		return fmt.Errorf("close standard input: %w", err)
	}
	err = unix.Exec(s.Programs[self], []string{s.Programs[self], RunCommand, name, dir}, os.Environ())
	return fmt.Errorf("run %s again: %w", s.Programs[self], err)
}
