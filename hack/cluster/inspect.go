package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/jia-app/paymesh/hack/cluster/internal/node"
	"github.com/jia-app/paymesh/hack/cluster/internal/state"
)

// running returns the record of a cluster whose node runs.
func running(f state.Folder) (*state.Record, error) {
	r, err := f.Read()
	if err != nil {
		return nil, err
	}
	if r == nil {
		return nil, fmt.Errorf("cluster %s is not there: bring it up with `cluster --name %s up`", f.Name, f.Name)
	}
	if !r.Node.Alive() {
		return nil, fmt.Errorf("cluster %s does not run (its logs are in %s): `up` makes a new one, `down` removes what is left", f.Name, f.Logs())
	}
	return r, nil
}

func status(ctx context.Context, o options, _ []string, out io.Writer) error {
	f := o.folder
	r, err := running(f)
	if err != nil {
		return err
	}
	s, err := node.Ask(ctx, f, true)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "cluster %s is %s, for %s (process %d)\n", f.Name, s.Phase, time.Since(r.Created).Round(time.Second), r.Node.PID)
	printPlaces(out, f)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "COMPONENT\tSTATE\tSINCE\tLOG")
	for _, c := range s.Components {
		condition := "runs"
		if c.Ended != "" {
			condition = "ENDED: " + c.Ended
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", c.Name, condition, c.Since.Local().Format(time.TimeOnly), c.Log)
	}
	fmt.Fprintln(table, "FORWARD")
	for _, forward := range s.Forwards {
		fmt.Fprintln(table, forward)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if s.Phase == node.PhaseFailed {
		return errors.New(s.Error)
	}
	if len(s.Problems) > 0 {
		return errors.New(strings.Join(s.Problems, "\ncluster: "))
	}
	return nil
}

func kubeconfig(_ context.Context, o options, _ []string, out io.Writer) error {
	if _, err := running(o.folder); err != nil {
		return err
	}
	fmt.Fprintln(out, o.folder.Kubeconfig())
	return nil
}

// logs works for a cluster that has ended as well: that is when they are wanted most.
func logs(_ context.Context, o options, args []string, out io.Writer) error {
	f := o.folder
	if len(args) == 0 {
		files, err := filepath.Glob(filepath.Join(f.Logs(), "*.log"))
		if err != nil {
			return err
		}
		if len(files) == 0 {
			return fmt.Errorf("cluster %s has no logs in %s", f.Name, f.Logs())
		}
		fmt.Fprintln(out, strings.Join(files, "\n"))
		fmt.Fprintln(out, filepath.Join(f.Logs(), "pods"))
		return nil
	}
	for _, component := range args {
		log, err := os.Open(f.Log(filepath.Base(component)))
		if err != nil {
			return fmt.Errorf("log of %s (`cluster logs` lists them): %w", component, err)
		}
		_, err = io.Copy(out, log)
		if err := errors.Join(err, log.Close()); err != nil {
			return fmt.Errorf("log of %s: %w", component, err)
		}
	}
	return nil
}
