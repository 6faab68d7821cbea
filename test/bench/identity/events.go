package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/jia-app/paymesh/test/bench/identity/figures"
)

// lookEvery is how often the bench asks for the entry that an event is to bring, by its ID: a time that it measures is too
// long by up to this and the answer to the question, never too short.
const lookEvery = 2 * time.Millisecond

// happening is an event and the entry that is to come of it.
type happening struct {
	cause func(context.Context) error
	entry string
}

// objectEvents are ServiceIdentities that are created where a pod of their service account runs.
func (w *world) objectEvents(size *figures.Size) (err error) {
	subjects := w.newcomers(eventsNamespace, w.settings.Samples, func(i int) subject {
		return subject{node: w.nodes[i%len(w.nodes)]}
	})
	if err := w.podsOf(subjects); err != nil {
		return err
	}
	var events []happening
	for _, s := range subjects {
		events = append(events, happening{func(ctx context.Context) error { return w.createIdentity(ctx, s) }, w.entriesOf(s, s.node)[0].ID})
	}
	size.Object, err = w.follow(events)
	return err
}

// podEvents are pods of identities that have entries, each bound to a node where its identity had none.
func (w *world) podEvents(size *figures.Size) (err error) {
	var events []happening
	for i, s := range w.subjects[:w.settings.Samples] {
		node := w.nodes[(i+1)%len(w.nodes)]
		events = append(events, happening{
			func(ctx context.Context) error { return w.createPod(ctx, s, s.Name+"-elsewhere", node) }, w.entriesOf(s, node)[0].ID,
		})
	}
	size.Pod, err = w.follow(events)
	return err
}

// newcomers are subjects that the manager has not met, each placed by place.
func (w *world) newcomers(namespace string, n int, place func(int) subject) []subject {
	subjects := make([]subject, n)
	for i := range subjects {
		subjects[i] = place(i)
		subjects[i].ObjectKey = client.ObjectKey{Namespace: namespace, Name: fmt.Sprintf("new-%d", i)}
	}
	return subjects
}

// podsOf makes the pods of subjects, and has the manager take notice.
func (w *world) podsOf(subjects []subject) error {
	if err := each(w.ctx, apiWriters, subjects, func(ctx context.Context, s subject) error { return w.createPod(ctx, s, s.Name, s.node) }); err != nil {
		return err
	}
	_, err := w.settle()
	return err
}

// follow has the events happen one after the other, at a pace that does not wait for their entries, so that one which
// takes long does not spare the others. The pace is uneven, so that it never keeps step with what SPIRE does periodically.
func (w *world) follow(events []happening) (figures.Events, error) {
	before, err := w.read()
	if err != nil {
		return figures.Events{}, err
	}
	fromRequest, fromAnswer := make([]time.Duration, len(events)), make([]time.Duration, len(events))
	pace := fromMillis(w.settings.PaceMillis)
	chance := rand.New(rand.NewPCG(1, 2))
	running, ctx := errgroup.WithContext(w.ctx)
	for i, event := range events {
		running.Go(func() (err error) {
			fromRequest[i], fromAnswer[i], err = w.observe(ctx, event)
			return err
		})
		wait(ctx, pace/2+time.Duration(chance.Int64N(int64(pace))))
	}
	if err := running.Wait(); err != nil {
		return figures.Events{}, err
	}
	if _, err := w.settle(); err != nil {
		return figures.Events{}, err
	}
	after, err := w.read()
	if err != nil {
		return figures.Events{}, err
	}
	return figures.NewEvents(fromRequest, fromAnswer, after.since(before)), nil
}

// observe has an event happen, and waits for its entry.
func (w *world) observe(ctx context.Context, event happening) (fromRequest, fromAnswer time.Duration, err error) {
	request := time.Now()
	if err := event.cause(ctx); err != nil {
		return 0, 0, err
	}
	answer := time.Now()
	err = poll(ctx, lookEvery, func() (bool, error) { return w.bare.holds(ctx, event.entry) })
	if err != nil {
		err = fmt.Errorf("wait for the entry %s: %w", event.entry, err)
	}
	return time.Since(request), time.Since(answer), err
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
