package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/jia-app/paymesh/hack/cluster/internal/state"
)

const (
	// pollInterval is how often something that cannot be watched is looked at while the node starts.
	pollInterval = 40 * time.Millisecond
	// attemptTimeout bounds one look, generously: a busy machine answers late.
	attemptTimeout = 10 * time.Second
)

// component is one program of the node with its arguments.
type component struct {
	name string
	args []string
}

// process is a component that was started.
type process struct {
	name    string
	pid     int
	started time.Time
	ended   chan struct{}      // closed once it has ended
	status  syscall.WaitStatus // valid then
	endedAt time.Time          // valid then
}

// supervisor starts processes and, as pid 1, reaps all that end in the node: its own, and the orphans that containerd
// and its shims leave to it. Nobody else may wait for a process (exec.Cmd.Wait would race for the status).
type supervisor struct {
	folder state.Folder
	env    []string

	mu        sync.Mutex
	waiting   map[int]*process // by pid
	processes []*process       // the components, in the order of their start
}

func newSupervisor(f state.Folder, env []string) *supervisor {
	return &supervisor{folder: f, env: env, waiting: map[int]*process{}}
}

// reap collects ended processes until ctx ends.
func (s *supervisor) reap(ctx context.Context) {
	children := make(chan os.Signal, 1) // one pending signal stands for any number of children
	signal.Notify(children, unix.SIGCHLD)
	defer signal.Stop(children)
	for {
		s.collect()
		select {
		case <-ctx.Done():
			return
		case <-children:
		}
	}
}

func (s *supervisor) collect() {
	for {
		var status syscall.WaitStatus
		// The lock keeps a process from being collected before launch has noted it.
		s.mu.Lock()
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		p := s.waiting[pid]
		if err == nil && pid > 0 && p != nil {
			delete(s.waiting, pid)
			p.status, p.endedAt = status, time.Now()
			close(p.ended)
		}
		s.mu.Unlock()
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
	}
}

// launch starts a process. Its output must be a file: a pipe would need somebody to wait.
func (s *supervisor) launch(name, path string, args []string, stdin, output *os.File) (*process, error) {
	//nolint:noctx // a context would need somebody to wait
	cmd := exec.Command(path, args...)
	cmd.Env = s.env
	cmd.Dir = "/"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, output, output
	if stdin == nil {
		cmd.Stdin = nil
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{name: name, pid: cmd.Process.Pid, started: time.Now(), ended: make(chan struct{})}
	s.waiting[p.pid] = p
	return p, cmd.Process.Release()
}

// start starts a component with a log file of its own.
func (s *supervisor) start(c component) (*process, error) {
	log, err := os.OpenFile(s.folder.Log(c.name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", c.name, err)
	}
	defer func() { _ = log.Close() }()
	p, err := s.launch(c.name, s.program(c.name), c.args, nil, log)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.processes = append(s.processes, p)
	return p, nil
}

func (s *supervisor) program(name string) string { return s.folder.Bin() + "/" + name }

// run runs a command to its end. stdin may be nil.
func (s *supervisor) run(ctx context.Context, stdin *os.File, name string, args ...string) error {
	output, err := os.CreateTemp("", name+".*.out")
	if err != nil {
		return fmt.Errorf("run %s: %w", name, err)
	}
	defer func() { _ = output.Close(); _ = os.Remove(output.Name()) }()
	p, err := s.launch(name, s.program(name), args, stdin, output)
	if err != nil {
		return err
	}
	select {
	case <-p.ended:
	case <-ctx.Done():
		_ = unix.Kill(p.pid, unix.SIGKILL)
		return fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), ctx.Err())
	}
	if p.status.ExitStatus() == 0 {
		return nil
	}
	text, err := os.ReadFile(output.Name())
	return errors.Join(fmt.Errorf("%s %s: %s: %s", name, strings.Join(args, " "), describe(p.status), strings.TrimSpace(string(text))), err)
}

// await polls probe until it succeeds, p ends, or ctx ends. p may be nil.
func (s *supervisor) await(ctx context.Context, p *process, what string, probe func(context.Context) error) error {
	var ended <-chan struct{}
	if p != nil {
		ended = p.ended
	}
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
		err := probe(attempt)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-ended:
			return fmt.Errorf("%s has ended (%s); the end of its log %s:\n%s", p.name, describe(p.status), s.folder.Log(p.name), tail(s.folder.Log(p.name)))
		case <-ctx.Done():
			return fmt.Errorf("%s: given up (see the logs in %s): %w", what, s.folder.Logs(), err)
		case <-tick.C:
		}
	}
}

// components lists the components' states, in the order of their start.
func (s *supervisor) components() []ComponentStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]ComponentStatus, 0, len(s.processes))
	for _, p := range s.processes {
		c := ComponentStatus{Name: p.name, PID: p.pid, Since: p.started, Log: s.folder.Log(p.name)}
		select {
		case <-p.ended:
			c.Ended, c.Since = describe(p.status), p.endedAt
		default:
		}
		all = append(all, c)
	}
	return all
}

// stop asks the components to end, the youngest first, and waits for them no longer than grace: what is left is
// killed with the node.
func (s *supervisor) stop(grace time.Duration) {
	s.mu.Lock()
	processes := slices.Clone(s.processes)
	s.mu.Unlock()
	for _, p := range slices.Backward(processes) {
		select {
		case <-p.ended: // its pid may be another's by now
		default:
			_ = unix.Kill(p.pid, unix.SIGTERM)
		}
	}
	timeout := time.After(grace)
	for _, p := range processes {
		select {
		case <-p.ended:
		case <-timeout:
			return
		}
	}
}

func describe(status syscall.WaitStatus) string {
	if status.Signaled() {
		return "killed by " + unix.SignalName(status.Signal())
	}
	return fmt.Sprintf("exit status %d", status.ExitStatus())
}

// tail returns the last lines of a log.
func tail(path string) string {
	const most = 2000 // bytes, about ten lines
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err == nil && info.Size() > most {
		if _, err := f.Seek(-most, io.SeekEnd); err != nil {
			return err.Error()
		}
	}
	text, err := io.ReadAll(f)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text))
}
