// Command identity measures the identity side on the real parts: an API server, a SPIRE server with foreign entries, a SPIRE
// agent and the manager's own binary, each a process; settings go in by the environment, a report comes out as JSON and as
// a table. make bench-identity runs it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/jia-app/paymesh/test/bench/identity/figures"
)

func main() {
	manager := flag.String("manager", "", "The manager's binary, built from cmd/manager.")
	out := flag.String("out", "", "The file to store the report in, as JSON.")
	flag.Parse()
	ctrl.SetLogger(logr.Discard())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *manager, *out)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, manager, out string) error {
	if manager == "" || out == "" {
		return errors.New("-manager and -out are required: make bench-identity sets them")
	}
	settings, sizes, err := settingsOf(os.LookupEnv)
	if err != nil {
		return err
	}
	report := figures.Report{Date: time.Now().UTC().Truncate(time.Second), Settings: settings}
	if report.Commit, err = commit(ctx); err != nil {
		return err
	}
	if report.Machine, err = machine(ctx); err != nil {
		return err
	}
	for _, foreign := range sizes {
		size, kubernetes, err := measure(ctx, settings, manager, foreign)
		if err != nil {
			return fmt.Errorf("with %d foreign entries: %w", foreign, err)
		}
		report.Machine.Kubernetes = kubernetes
		report.Sizes = append(report.Sizes, size)
	}
	text, err := report.JSON()
	if err != nil {
		return err
	}
	if err := os.WriteFile(out, text, 0o644); err != nil {
		return fmt.Errorf("store the report: %w", err)
	}
	return report.Print(os.Stdout)
}

// measure takes one size, in a world of its own.
func measure(ctx context.Context, settings figures.Settings, manager string, foreign int) (size figures.Size, kubernetes string, err error) {
	size.Foreign = foreign
	err = live(func(t *lifetime) error {
		w := newWorld(ctx, t, settings, manager)
		if kubernetes, err = w.version(); err != nil {
			return err
		}
		for _, phase := range []struct {
			name string
			run  func(*figures.Size) error
		}{
			{"fill the server", w.fill},
			{"make the objects", w.populate},
			{"from nothing", w.fromNothing},
			{"recovery", w.recovery},
			{"object events", w.objectEvents},
			{"pod events", w.podEvents},
			{"restart", w.restart},
			{"idle", w.idle},
			{"SVIDs", w.svids},
		} {
			start := time.Now()
			if err := phase.run(&size); err != nil {
				return fmt.Errorf("%s: %w", phase.name, err)
			}
			t.Logf("%6d foreign entries: %-16s %5.1f s", foreign, phase.name, time.Since(start).Seconds())
		}
		return nil
	})
	return size, kubernetes, err
}
