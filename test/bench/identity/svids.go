package main

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/jia-app/paymesh/test/bench/identity/figures"
)

// svidPace keeps the identities that are followed to their certificate apart.
const svidPace = 250 * time.Millisecond

// svids follows identities on the agent's node to the certificate that the agent gives to their pods, and then their pods
// through a restart.
func (w *world) svids(size *figures.Size) error {
	subjects := w.newcomers(svidsNamespace, w.settings.SVIDs, func(int) subject { return subject{node: w.agentNode} })
	if err := w.podsOf(subjects); err != nil {
		return err
	}
	created, err := w.paced(subjects, w.untilSVID)
	if err != nil {
		return err
	}
	restarted, err := w.paced(subjects, w.untilSVIDAgain)
	size.SVID = figures.SVID{Created: figures.NewLatency(created), Restarted: figures.NewLatency(restarted)}
	return err
}

func (w *world) paced(subjects []subject, f func(context.Context, subject) (time.Duration, error)) ([]time.Duration, error) {
	samples := make([]time.Duration, len(subjects))
	running, ctx := errgroup.WithContext(w.ctx)
	for i, s := range subjects {
		running.Go(func() (err error) {
			limited, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			samples[i], err = f(limited, s)
			return err
		})
		wait(ctx, svidPace)
	}
	return samples, running.Wait()
}

// untilSVID creates an identity whose pod waits for it on an open stream.
func (w *world) untilSVID(ctx context.Context, s subject) (time.Duration, error) {
	next, err := w.agent.Watch(ctx, selectors(s)...)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	if err := w.createIdentity(ctx, s); err != nil {
		return 0, err
	}
	for {
		if svids, err := next(); err != nil || len(svids) > 0 {
			return time.Since(start), err
		}
	}
}

// untilSVIDAgain has the pod come back, and ask the agent anew.
func (w *world) untilSVIDAgain(ctx context.Context, s subject) (time.Duration, error) {
	if err := w.deletePod(ctx, s); err != nil {
		return 0, err
	}
	if err := w.createPod(ctx, s, s.Name, s.node); err != nil {
		return 0, err
	}
	start := time.Now()
	_, err := w.agent.SVIDs(ctx, selectors(s)...)
	return time.Since(start), err
}

func selectors(s subject) []string { return []string{"k8s:ns:" + s.Namespace, "k8s:sa:" + s.Name} }
