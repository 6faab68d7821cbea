package main

import (
	"context"
	"fmt"
	"time"

	spiretypes "github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/jia-app/paymesh/test/bench/identity/figures"
	"github.com/jia-app/paymesh/test/lab"
)

const (
	// patience is how long anything may take that the bench waits for.
	patience = 10 * time.Minute
	// glance is how often the bench looks at what takes seconds.
	glance = 100 * time.Millisecond
	// quiet is how many looks in a row have to find nothing to do.
	quiet = 3
	// patchers is how many patches are under way.
	patchers = 64
	// singles is how many entries are made one by one.
	singles = 200
)

// single takes the time that SPIRE takes to make one entry, with nothing else to do; the entries go again.
func (w *world) single() (figures.Latency, error) {
	var samples []time.Duration
	var ids []string
	for _, entry := range foreign(singles) {
		entry.Id, entry.SpiffeId.Path = "single-"+entry.Id, "/single"+entry.SpiffeId.Path
		took, err := w.bare.create(w.ctx, []*spiretypes.Entry{entry})
		if err != nil {
			return figures.Latency{}, err
		}
		samples, ids = append(samples, took), append(ids, entry.Id)
	}
	return figures.NewLatency(samples), w.bare.remove(w.ctx, ids)
}

// fromNothing starts a manager where it has never run.
func (w *world) fromNothing(size *figures.Size) (err error) {
	if size.Patches, err = w.patches(); err != nil {
		return err
	}
	size.FromNothing, err = w.start()
	return err
}

// patches has a client put an annotation on each identity, as many at a time as the manager reconciles.
func (w *world) patches() (figures.Rate, error) {
	patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata": {"annotations": {"bench": "was here"}}}`))
	start := time.Now()
	err := each(w.ctx, patchers, w.subjects, func(ctx context.Context, s subject) error {
		if err := w.live.Patch(ctx, identityOf(s), patch); err != nil {
			return fmt.Errorf("patch ServiceIdentity %s: %w", s.ObjectKey, err)
		}
		return nil
	})
	return figures.NewRate(len(w.subjects), time.Since(start)), err
}

// recovery starts a manager again, which finds every object registered and none of the entries.
func (w *world) recovery(size *figures.Size) (err error) {
	w.manager.Stop()
	w.manager = nil
	if err := w.bare.remove(w.ctx, idsOf(w.wanted)); err != nil {
		return err
	}
	size.Recovery, err = w.start()
	return err
}

// start has the bare client make all entries and take them away again, and then the manager.
func (w *world) start() (figures.Start, error) {
	took, err := w.bare.create(w.ctx, asProtos(w.wanted))
	if err != nil {
		return figures.Start{}, err
	}
	bare, ids := figures.NewRate(len(w.wanted), took), idsOf(w.wanted)
	if err := w.bare.remove(w.ctx, ids); err != nil {
		return figures.Start{}, err
	}
	_, mark, err := w.bare.since(w.ctx, "")
	if err != nil {
		return figures.Start{}, err
	}
	before, err := w.read()
	if err != nil {
		return figures.Start{}, err
	}
	w.manager = lab.StartManager(w.t, lab.ManagerOptions{Binary: w.binary, APIServer: w.api, SPIREServer: w.spire, Agent: w.agent})
	first, all, err := w.await(mark, ids)
	if err != nil {
		return figures.Start{}, fmt.Errorf("wait for the manager's entries: %w", err)
	}
	after, err := w.read()
	if err != nil {
		return figures.Start{}, err
	}
	settled, err := w.settle()
	if err != nil {
		return figures.Start{}, err
	}
	return figures.NewStart(bare, figures.NewRate(len(ids), all), first, settled.Sub(w.manager.Started), after.since(before)), nil
}

// await waits until the server has made entries with these IDs after the mark, and says when the first of them and when
// all were there, from the start of the manager.
func (w *world) await(mark string, ids []string) (first, all time.Duration, err error) {
	left := map[string]bool{}
	for _, id := range ids {
		left[id] = true
	}
	err = poll(w.ctx, glance, func() (bool, error) {
		var made []string
		var err error
		made, mark, err = w.bare.since(w.ctx, mark)
		now := time.Since(w.manager.Started)
		for _, id := range made {
			delete(left, id)
		}
		if len(left) < len(ids) && first == 0 {
			first = now
		}
		all = now
		return len(left) == 0, err
	})
	return first, all, err
}

// settle waits until the manager has nothing to do, and says since when.
func (w *world) settle() (since time.Time, err error) {
	found := 0
	err = poll(w.ctx, glance, func() (bool, error) {
		now := time.Now()
		metrics, err := managerMetrics(w.ctx, w.manager)
		if err != nil {
			return false, err
		}
		if metrics.sum("workqueue_depth")+metrics.sum("controller_runtime_active_workers") > 0 {
			found = 0
			return false, nil
		}
		if found++; found == 1 {
			since = now
		}
		return found >= quiet, nil
	})
	if err != nil {
		err = fmt.Errorf("wait until the manager has nothing to do: %w", err)
	}
	return since, err
}

// poll looks at something again and again, until it is so or cannot be looked at.
func poll(ctx context.Context, every time.Duration, look func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if done, err := look(); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
