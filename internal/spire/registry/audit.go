package registry

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jia-app/paymesh/internal/spire"
	"github.com/jia-app/paymesh/internal/spire/client"
)

const (
	// firstProbe is how long after the server went away it is asked again, and later how often.
	firstProbe, nextProbe = time.Second, 2 * time.Second
	// idleProbe is how often a server is asked that nobody writes to, where the audit asks it less often: that it went away
	// is to be in the status within 5 seconds.
	idleProbe = 4 * time.Second
	// steady is how long the server has to answer before it counts as back for good. One that answers the probe and
	// then fails again (it reads, and refuses to write) is probed less and less often, down to once in longestHold.
	steady, longestHold = 5 * time.Second, 30 * time.Second
	// maxReadsPerInterval is per AuditInterval, pages and bundles: at the default of 30 s, a little less than one a second.
	maxReadsPerInterval = 28
)

// Start reads everything that the server holds, then audits it until ctx ends. It is a controller-runtime Runnable.
func (r *Registry) Start(ctx context.Context) error {
	r.retry(ctx, firstProbe, r.readAll)
	outage := outages{hold: firstProbe}
	for hurry := false; ctx.Err() == nil; {
		err := r.pass(ctx, hurry)
		hurry = err != nil
		if hurry && ctx.Err() == nil {
			r.recover(ctx, err, &outage)
		}
	}
	return nil
}

// outages remembers how steadily the server answers.
type outages struct {
	back time.Time     // when it answered again last
	hold time.Duration // how long to leave it alone when it fails
}

// recover waits until the server answers again.
func (r *Registry) recover(ctx context.Context, err error, o *outages) {
	r.setState(false, err)
	o.hold = min(2*o.hold, longestHold)
	if r.options.Clock.Since(o.back) >= steady {
		o.hold = firstProbe
	}
	r.sleep(ctx, o.hold)
	r.retry(ctx, nextProbe, r.probe)
	o.back = r.options.Clock.Now()
}

// retry tries until it succeeds or ctx ends, and keeps the state true.
func (r *Registry) retry(ctx context.Context, delay time.Duration, attempt func(context.Context) error) {
	for ctx.Err() == nil {
		err := attempt(ctx)
		if ctx.Err() != nil {
			return
		}
		r.setState(err == nil, err)
		if err == nil {
			return
		}
		r.sleep(ctx, delay)
	}
}

// readAll reads everything that the server holds, and remembers what of it is ours. Nothing is written before it ends.
func (r *Registry) readAll(ctx context.Context) error {
	if err := r.ReadBundles(ctx); err != nil {
		return err
	}
	all, pages := newMemory(), 0
	for token, more := "", true; more; pages++ {
		page, err := r.api.List(ctx, client.Query{Token: token})
		if err != nil {
			return err
		}
		for _, entry := range page.Entries {
			if owner, ours := spire.ParseEntryID(r.cluster.Name, entry.ID); ours {
				all.put(owner, entry, 0)
				all.saw(entry.ID, 0)
			}
		}
		token, more = page.Next, page.Next != ""
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.memory, r.pages = all, pages
	return nil
}

// probe finds out whether the server answers again, and what became of the entries about which it did not.
func (r *Registry) probe(ctx context.Context) error {
	if _, err := r.api.List(ctx, client.Query{RevisionsOnly: true, Size: 1}); err != nil {
		return err
	}
	return r.settle(ctx)
}

// settle looks at the entries whose fate is unknown.
func (r *Registry) settle(ctx context.Context) error {
	r.mu.Lock()
	var doubtful []string
	for id := range r.writes.doubtful {
		doubtful = append(doubtful, id)
	}
	r.mu.Unlock()
	return r.look(ctx, doubtful)
}

// pass reads the IDs and revisions of all entries, page by page, and looks at those that are not as they were left. It
// takes a little less than half of the audit interval, so that what happens to an entry just after its page was read is
// seen within the other half; in a hurry, it takes no longer than the server does.
func (r *Registry) pass(ctx context.Context, hurry bool) error {
	gap := r.options.AuditInterval / time.Duration(min(2*(r.pages+1)+1, maxReadsPerInterval))
	if hurry {
		gap = 0
	}
	r.mu.Lock()
	r.passes++
	clear(r.writes.ended)
	r.mu.Unlock()
	if err := r.pause(ctx, gap); err != nil {
		return err
	}
	if err := r.ReadBundles(ctx); err != nil {
		return err
	}
	pages := 0
	for token, more := "", true; more; pages++ {
		if err := r.pause(ctx, gap); err != nil {
			return err
		}
		page, err := r.api.List(ctx, client.Query{RevisionsOnly: true, Token: token})
		if err != nil {
			return err
		}
		if err := r.look(ctx, r.suspects(page.Entries)); err != nil {
			return err
		}
		token, more = page.Next, page.Next != ""
	}
	r.pages = pages
	r.metrics.audits.Inc()
	return r.look(ctx, r.unseen())
}

// suspects are the entries of a page that differ from what is remembered. It may be our own writes that came between.
func (r *Registry) suspects(page []spire.Held) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var suspects []string
	for _, entry := range page {
		if _, ours := spire.ParseEntryID(r.cluster.Name, entry.ID); !ours {
			continue
		}
		have, ok := r.memory.entries[entry.ID]
		if ok && have.Revision == entry.Revision && have.CreatedAt == entry.CreatedAt && slices.Equal(have.FederatesWith, entry.FederatesWith) {
			r.memory.saw(entry.ID, r.passes)
		} else {
			suspects = append(suspects, entry.ID)
		}
	}
	return suspects
}

// unseen are the entries that are remembered, were not written since the pass began, and that it did not come by.
func (r *Registry) unseen() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var unseen []string
	for id, entry := range r.memory.entries {
		if entry.pass != r.passes {
			unseen = append(unseen, id)
		}
	}
	return unseen
}

// look reads entries one by one, remembers what the server holds of them, and tells their owners where that is not what
// was remembered. Only an answer to a question about the entry itself counts, and only where none of our own writes
// came between.
func (r *Registry) look(ctx context.Context, ids []string) error {
	for _, id := range ids {
		r.mu.Lock()
		asked := r.writes.now
		r.mu.Unlock()
		entry, found, err := r.api.Get(ctx, id)
		if err != nil {
			return err
		}
		drift, doubtful := r.takeOver(id, entry, found, asked)
		if drift == "" {
			continue
		}
		if !doubtful { // else it was our own write that did it
			r.options.Logger.Info("an entry in the SPIRE server is not as it was left: its owner looks again", "entry", id, "drift", drift)
			r.mu.Lock()
			r.drifted[id] = true
			r.mu.Unlock()
			r.metrics.drift.WithLabelValues(string(drift)).Inc()
		}
		r.tell(r.owner(id))
	}
	return nil
}

// takeOver remembers what the server holds of an entry. It returns how that differs from what was remembered, if it does,
// and whether a write of ours may be why.
func (r *Registry) takeOver(id string, entry spire.Held, found bool, asked uint64) (_ drift, doubtful bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.writes.supersede(id, asked) {
		return "", false
	}
	doubtful = r.writes.doubtful[id]
	delete(r.writes.doubtful, id)
	have, known := r.memory.entries[id]
	if found {
		r.memory.put(r.owner(id), entry, r.passes)
		r.memory.saw(id, r.passes)
	} else {
		r.memory.remove(id)
	}
	switch {
	case found && !known:
		return driftUnexpected, doubtful
	case !found && known:
		return driftMissing, doubtful
	case found && !have.Equal(entry.Entry):
		return driftChanged, doubtful
	}
	return "", doubtful
}

// pause waits until the next page is due. It fails where the server went away, as a write has found or, in a long pause, a
// probe.
func (r *Registry) pause(ctx context.Context, d time.Duration) error {
	due := r.options.Clock.Now().Add(d)
	timer := r.options.Clock.NewTimer(min(d, idleProbe))
	defer timer.Stop()
	for {
		if err := r.State().Err; err != nil {
			return err
		}
		if err := r.settle(ctx); err != nil || d == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("audit the SPIRE server: %w", ctx.Err())
		case <-r.poke:
		case <-timer.C():
			left := due.Sub(r.options.Clock.Now())
			if left <= 0 {
				return nil
			}
			if err := r.probe(ctx); err != nil {
				return err
			}
			timer.Reset(min(left, idleProbe))
		}
	}
}

func (r *Registry) sleep(ctx context.Context, d time.Duration) {
	timer := r.options.Clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C():
	}
}
