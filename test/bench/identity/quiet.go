package main

import (
	"context"
	"time"

	"github.com/jia-app/paymesh/test/bench/identity/figures"
)

// restart deletes pods and creates them again, on the same node and under the same service account: what a rolling restart
// is to SPIRE's entries.
func (w *world) restart(size *figures.Size) error {
	subjects := w.subjects[len(w.subjects)-w.settings.Restarts:] // podEvents took the first ones
	before, err := w.read()
	if err != nil {
		return err
	}
	start := time.Now()
	if err := each(w.ctx, apiWriters, subjects, func(ctx context.Context, s subject) error {
		if err := w.deletePod(ctx, s); err != nil {
			return err
		}
		return w.createPod(ctx, s, s.Name, s.node)
	}); err != nil {
		return err
	}
	made := time.Now()
	settled, err := w.settle()
	if err != nil {
		return err
	}
	after, err := w.read()
	if err != nil {
		return err
	}
	cost := after.since(before)
	size.Restart = figures.Restart{
		Pods: len(subjects), Seconds: figures.Round(settled.Sub(start).Seconds()), APISeconds: figures.Round(made.Sub(start).Seconds()),
		Writes: max(cost.Writes(), cost.ServerWrites()), Cost: cost,
	}
	return nil
}

// idle watches a manager that has nothing to do.
func (w *world) idle(size *figures.Size) error {
	before, err := w.read()
	if err != nil {
		return err
	}
	wait(w.ctx, time.Duration(w.settings.IdleSeconds*float64(time.Second)))
	after, err := w.read()
	if err != nil {
		return err
	}
	size.Idle = figures.NewIdle(after.since(before), managerProcess, spireProcess)
	size.Idle.RSSBytes, size.Idle.PeakBytes, err = memory(w.manager)
	return err
}
