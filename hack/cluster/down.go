package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/jia-app/paymesh/hack/cluster/internal/cgroup"
	"github.com/jia-app/paymesh/hack/cluster/internal/proc"
	"github.com/jia-app/paymesh/hack/cluster/internal/state"
)

const (
	// stopGrace is a little longer than the node gives its components.
	stopGrace = 2 * time.Second
	// cleanTimeout is for the kernel to let go of killed processes and their cgroups.
	cleanTimeout = 20 * time.Second
)

func down(ctx context.Context, o options, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("down", flag.ContinueOnError)
	keepLogs := flags.Bool("keep-logs", false, "leave the logs where they are; the next up or down removes them")
	if err := flags.Parse(args); err != nil {
		return flag.ErrHelp
	}
	f := o.folder
	unlock, err := f.Lock(false)
	if errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintf(out, "cluster %s is not there\n", f.Name)
		// Somebody may have removed its folder by hand: the machine's settings are still to be put back.
		return theMachine().Leave(ctx, f.Dir)
	}
	if err != nil {
		return err
	}
	defer unlock()
	record, err := f.Read()
	if err != nil {
		return err
	}
	if record == nil {
		if err := os.Remove(f.Dir); err != nil {
			return fmt.Errorf("%s holds no cluster; nothing was done: %w", f.Dir, err)
		}
		fmt.Fprintf(out, "cluster %s is not there\n", f.Name)
		return nil
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, cleanTimeout)
	defer cancel()
	if err := clean(ctx, f, *record, *keepLogs); err != nil {
		return err
	}
	fmt.Fprintf(out, "cluster %s is gone, in %.1f s\n", f.Name, time.Since(began).Seconds())
	if *keepLogs {
		fmt.Fprintf(out, "  logs: %s\n", f.Logs())
		return nil
	}
	return f.Remove()
}

// clean ends a cluster, in whatever state it is, and removes everything of it but the empty state folder. What cannot
// be removed keeps the record, so that it can be repeated.
func clean(ctx context.Context, f state.Folder, r state.Record, keepLogs bool) error {
	if err := r.Node.Stop(ctx, stopGrace); err != nil {
		return fmt.Errorf("end cluster %s: %w", f.Name, err)
	}
	if r.Cgroup != "" {
		if err := cgroup.Remove(ctx, r.Cgroup); err != nil {
			return fmt.Errorf("end cluster %s: %w", f.Name, err)
		}
	}
	if err := theMachine().Leave(ctx, f.Dir); err != nil {
		return fmt.Errorf("end cluster %s: %w", f.Name, err)
	}
	if keepLogs {
		r.Node = proc.ID{}
		if err := f.Write(r); err != nil {
			return err
		}
	}
	return f.Empty(keepLogs)
}
