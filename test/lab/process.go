package lab

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// stopTimeout is how long a process may take to end by itself.
const stopTimeout = 5 * time.Second

// process is a program that runs until it is stopped, in a process group of its own.
type process struct {
	name  string
	log   string
	cmd   *exec.Cmd
	ended chan struct{}
}

// start starts a program whose output goes to a file in dir.
func start(t T, dir, binary string, args ...string) *process {
	t.Helper()
	return startWith(t, dir, nil, binary, args...)
}

// startWith is start with more in the environment ("NAME=value").
func startWith(t T, dir string, environment []string, binary string, args ...string) *process {
	t.Helper()
	p := &process{name: filepath.Base(binary), log: filepath.Join(dir, filepath.Base(binary)+".log"), ended: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatalf("open the log of %s: %v", p.name, err)
	}
	p.cmd = exec.Command(binary, args...) //nolint:noctx // stop ends it
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Dir = log, log, dir
	p.cmd.Env = append(os.Environ(), environment...)
	// Pdeathsig ends the program also where the test is killed.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		// The signal comes when the thread ends that started the program (golang/go#27505): it stays here until then.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait()
		}
		_ = log.Close()
		close(p.ended)
	}()
	if err := <-started; err != nil {
		t.Fatalf("start %s: %v", p.name, err)
	}
	return p
}

// stop asks the program to end, and kills its group where it does not.
func (p *process) stop() {
	group := -p.cmd.Process.Pid
	_ = syscall.Kill(group, syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(stopTimeout):
	}
	_ = syscall.Kill(group, syscall.SIGKILL)
	<-p.ended
}

// await polls until the program is ready. It gives up at once where the program has ended.
func (p *process) await(t T, ready func() error) {
	t.Helper()
	ended := false
	err := poll(startTimeout, func() error {
		select {
		case <-p.ended:
			ended = true
			return nil
		default:
			return ready()
		}
	})
	if ended {
		err = fmt.Errorf("it ended: %s", p.cmd.ProcessState)
	}
	if err != nil {
		t.Fatalf("%s is not ready: %v; the end of its log %s:\n%s", p.name, err, p.log, tail(p.log))
	}
}

func tail(path string) []byte {
	const lines = 20
	text, err := os.ReadFile(path)
	if err != nil {
		return []byte(err.Error())
	}
	all := bytes.SplitAfter(text, []byte("\n"))
	return bytes.Join(all[max(0, len(all)-lines):], nil)
}
