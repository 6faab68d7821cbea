package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/jia-app/paymesh/hack/cluster/internal/cgroup"
	"github.com/jia-app/paymesh/hack/cluster/internal/machine"
	"github.com/jia-app/paymesh/hack/cluster/internal/node"
	"github.com/jia-app/paymesh/hack/cluster/internal/proc"
	"github.com/jia-app/paymesh/hack/cluster/internal/state"
)

const (
	// followInterval is how often `up` looks whether the node has got further.
	followInterval = 50 * time.Millisecond
	// defaultTimeout is long enough for a machine that compiles something meanwhile.
	defaultTimeout = 3 * time.Minute
	// followGrace is for the node to say itself why it did not come up in time.
	followGrace = 10 * time.Second
)

func up(ctx context.Context, o options, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("up", flag.ContinueOnError)
	var wanted list
	flags.Var(&wanted, "forward", "lead a port of this machine's loopback into the cluster: `PORT:HOST:PORT`")
	flags.DurationVar(&o.timeout, "timeout", defaultTimeout, "how long the start may take; more on a very slow machine")
	if err := flags.Parse(args); err != nil {
		return flag.ErrHelp
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout+followGrace, errors.New("the node neither comes up nor says why"))
	defer cancel()
	forwards, err := parseForwards(wanted)
	if err != nil {
		return err
	}
	if err := checkSystem(ctx); err != nil {
		return err
	}
	unlock, err := o.folder.Lock(true)
	if err != nil {
		return err
	}
	defer unlock()
	record, err := o.folder.Read()
	if err != nil {
		return err
	}
	if record != nil && record.Node.Alive() {
		return already(ctx, o.folder, *record, forwards, out)
	}
	if record != nil {
		fmt.Fprintf(out, "cluster %s: removing what an earlier run left\n", o.folder.Name)
		if err := clean(ctx, o.folder, *record, false); err != nil {
			return err
		}
	}
	if err := start(ctx, o, out); err != nil {
		return err
	}
	return addForwards(ctx, o.folder, forwards, out)
}

// already is the second `up`: it changes nothing, but tells the truth about a cluster that does not work.
func already(ctx context.Context, f state.Folder, r state.Record, forwards []node.Forward, out io.Writer) error {
	// The `up` that started it may have been killed before it was done.
	if err := follow(ctx, f, r, io.Discard, func() error { return forwardAPI(ctx, f, r) }); err != nil {
		return unwell(f, err.Error())
	}
	s, err := node.Ask(ctx, f, true)
	if err != nil {
		return err
	}
	if len(s.Problems) > 0 {
		return unwell(f, strings.Join(s.Problems, "; "))
	}
	fmt.Fprintf(out, "cluster %s is up already, since %s, and works\n", f.Name, r.Created.Local().Format(time.DateTime))
	printPlaces(out, f)
	return addForwards(ctx, f, forwards, out)
}

func unwell(f state.Folder, why string) error {
	return fmt.Errorf("cluster %s runs, but not well: %s (`down`, then `up` makes a new one)", f.Name, why)
}

// start brings a cluster up in an empty folder. If it fails, the logs stay and everything else goes.
func start(ctx context.Context, o options, out io.Writer) (err error) {
	f := o.folder
	programs, err := findPrograms(o.binDir, os.Getenv)
	if err != nil {
		return errors.Join(err, f.Remove())
	}
	if programs["cluster"], err = os.Executable(); err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if err := f.Create(); err != nil {
		return err
	}
	record := state.Record{Name: f.Name, Cgroup: cgroupName(f), Created: time.Now()}
	if err := f.Write(record); err != nil {
		return err
	}
	defer func() {
		if err == nil {
			return
		}
		// The caller's context may be what ended.
		cleaning, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
		defer cancel()
		if r, readErr := f.Read(); readErr == nil && r != nil {
			err = errors.Join(err, clean(cleaning, f, *r, true))
		}
		err = fmt.Errorf("cluster %s did not come up; the logs are in %s: %w", f.Name, f.Logs(), err)
	}()
	if err := prepareMachine(ctx, f, record.Cgroup); err != nil {
		return err
	}
	listener, err := listen(0)
	if err != nil {
		return err
	}
	defer func() { _ = listener.Close() }()
	record.APIPort = listener.Addr().(*net.TCPAddr).Port
	spec := node.Spec{Name: f.Name, Dir: f.Dir, Cgroup: record.Cgroup, Programs: programs, StartTimeout: o.timeout}
	if err := node.Prepare(spec, record.APIPort, record.Created); err != nil {
		return err
	}
	if err := launch(f, spec, &record); err != nil {
		return err
	}
	if err := follow(ctx, f, record, out, func() error { return node.AddForward(ctx, f, apiForward(record), listener) }); err != nil {
		return err
	}
	fmt.Fprintf(out, "cluster %s is up, %.1f s after the start\n", f.Name, time.Since(record.Created).Seconds())
	printPlaces(out, f)
	return nil
}

func apiForward(r state.Record) node.Forward {
	return node.Forward{Port: r.APIPort, Target: node.APIAddress}
}

// forwardAPI opens the API server's port where it is not open.
func forwardAPI(ctx context.Context, f state.Folder, r state.Record) error {
	s, err := node.Ask(ctx, f, false)
	if err != nil || find(s.Forwards, apiForward(r)) != nil {
		return err
	}
	return addForwards(ctx, f, []node.Forward{apiForward(r)}, io.Discard)
}

// cgroupName holds the folder as well: two users may each have a cluster of the same name.
func cgroupName(f state.Folder) string {
	return fmt.Sprintf("paymesh-%s-%.6x", f.Name, sha256.Sum256([]byte(f.Dir)))
}

func theMachine() machine.Machine {
	return machine.Machine{Dir: machine.DefaultDir, Sysctl: "/proc/sys"}
}

// prepareMachine does what must be done outside of the namespaces.
func prepareMachine(ctx context.Context, f state.Folder, cgroupName string) error {
	m := theMachine()
	if err := m.Enter(f.Dir); err != nil {
		return err
	}
	if err := m.LoadModule(ctx, "br_netfilter", node.BridgeFilter); err != nil {
		return err
	}
	enabled, err := cgroup.Create(cgroupName)
	if err != nil {
		return err
	}
	var undo []machine.Setting
	for _, controller := range enabled {
		undo = append(undo, machine.Setting{Path: cgroup.ControlFile(), Value: "-" + controller})
	}
	return m.AddUndo(undo...)
}

// launch starts the node's process and records it before it does anything.
func launch(f state.Folder, spec node.Spec, record *state.Record) error {
	pid, release, err := node.Start(spec)
	if err != nil {
		return err
	}
	if record.Node, err = proc.Identify(pid); err != nil {
		return err
	}
	if err := f.Write(*record); err != nil {
		return err
	}
	return release()
}

// follow prints the steps of the start as they are done, and returns once the node is up or has failed. connected is
// called as soon as the node answers.
func follow(ctx context.Context, f state.Folder, r state.Record, out io.Writer, connected func() error) error {
	tick := time.NewTicker(followInterval)
	defer tick.Stop()
	printed := 0
	for {
		s, err := node.Ask(ctx, f, false)
		if err != nil && !r.Node.Alive() {
			return fmt.Errorf("the node has ended: %s", lastLines(f.Log("node")))
		}
		if err == nil {
			if connected != nil {
				if err := connected(); err != nil {
					return err
				}
				connected = nil
			}
			for ; printed < len(s.Steps); printed++ {
				fmt.Fprintf(out, "%6.1f s  %s\n", s.Steps[printed].At.Seconds(), s.Steps[printed].Name)
			}
			switch s.Phase {
			case node.PhaseUp:
				return nil
			case node.PhaseFailed:
				return errors.New(s.Error)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("interrupted: %w", context.Cause(ctx))
		case <-tick.C:
		}
	}
}

func lastLines(path string) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}

func printPlaces(out io.Writer, f state.Folder) {
	fmt.Fprintf(out, "  logs: %s\n  export KUBECONFIG=%s\n", f.Logs(), f.Kubeconfig())
}
