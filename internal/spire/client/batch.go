package client

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/jia-app/paymesh/internal/spire"
)

// batchesInFlight is how many shared calls a Batcher has under way: while SPIRE writes one, the next fills. More of them would
// be smaller, and SQLite has one writer.
const batchesInFlight = 2

// Batcher is a client whose plans share calls. A plan that comes alone is sent at once, as by the Client; those that come
// while calls are under way go together in the next one. So a batch is as large as SPIRE is busy, and nobody waits for one
// to fill.
type Batcher struct {
	*Client
	apply func(context.Context, spire.Plan) ([]spire.Result, error)
	slots chan struct{}
	// large are the slots of plans that are more than one call.
	large chan struct{}

	mu      sync.Mutex
	waiting []*order
}

// order is a plan that waits for its results.
type order struct {
	ctx     context.Context // of the caller, who waits
	plan    spire.Plan
	size    int
	results []spire.Result
	err     error
	// taken is closed when a call has begun that has the plan, done when it has ended.
	taken, done chan struct{}
}

// NewBatcher makes a Batcher of a client.
func NewBatcher(c *Client) *Batcher {
	return &Batcher{Client: c, apply: c.Apply, slots: make(chan struct{}, batchesInFlight), large: make(chan struct{}, batchesInFlight)}
}

// Apply writes a plan as Client.Apply does, and returns the results of this plan alone. It returns once the call has ended
// that the plan shares, which goes on until the last caller's ctx ends. A plan that is more than one call has its calls to itself:
// nobody else's waits for all of them.
func (b *Batcher) Apply(ctx context.Context, plan spire.Plan) ([]spire.Result, error) {
	size := len(plan.IDs())
	if size > batchSize {
		select {
		case b.large <- struct{}{}:
			defer func() { <-b.large }()
			return b.apply(ctx, plan)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	o := &order{ctx: ctx, plan: plan, size: size, taken: make(chan struct{}), done: make(chan struct{})}
	b.mu.Lock()
	b.waiting = append(b.waiting, o)
	b.mu.Unlock()
	for {
		select {
		case <-o.taken: // by this caller or another one
			<-o.done
			return o.results, o.err
		case b.slots <- struct{}{}:
			b.sendNext()
		}
	}
}

func (b *Batcher) sendNext() {
	defer func() { <-b.slots }()
	if orders := b.take(); len(orders) > 0 {
		b.send(orders)
	}
}

// take takes the next orders, those that came first first: as many as one call holds, and no two that write the same entry.
func (b *Batcher) take() []*order {
	b.mu.Lock()
	defer b.mu.Unlock()
	entries, n := map[string]bool{}, 0
	for ; n < len(b.waiting); n++ {
		o := b.waiting[n]
		if n > 0 && len(entries)+o.size > batchSize {
			break
		}
		before := len(entries)
		for _, id := range o.plan.IDs() {
			entries[id] = true
		}
		if n > 0 && len(entries) < before+o.size {
			break
		}
		close(o.taken)
	}
	taken := b.waiting[:n:n]
	b.waiting = b.waiting[n:]
	return taken
}

// send writes what the orders want together. Where the server did not answer about all, that is an error for those alone that
// it did not answer.
func (b *Batcher) send(orders []*order) {
	var plan spire.Plan
	for _, o := range orders {
		plan.Create = append(plan.Create, o.plan.Create...)
		plan.Update = append(plan.Update, o.plan.Update...)
		plan.Delete = append(plan.Delete, o.plan.Delete...)
	}
	ctx, cancel := untilAllEnd(orders)
	defer cancel()
	var results []spire.Result
	err := errors.New("the call that the plan shared with others broke off")
	defer func() { settle(orders, results, err) }() // also where the call panics: the others must not wait for ever
	results, err = b.apply(ctx, plan)
}

// settle gives each order its own results.
func settle(orders []*order, results []spire.Result, err error) {
	of := make(map[string]*order, len(results))
	for _, o := range orders {
		for _, id := range o.plan.IDs() {
			of[id] = o
		}
	}
	for _, result := range results {
		if o := of[result.ID]; o != nil {
			o.results = append(o.results, result)
		}
	}
	for _, o := range orders {
		if len(o.results) < o.size {
			o.err = err
		}
		close(o.done)
	}
}

// untilAllEnd is a context that ends when those of all orders have: one that gives up takes nothing from the others.
func untilAllEnd(orders []*order) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(orders[0].ctx))
	var left atomic.Int64
	left.Store(int64(len(orders)))
	stops := make([]func() bool, len(orders))
	for i, o := range orders {
		stops[i] = context.AfterFunc(o.ctx, func() {
			if left.Add(-1) == 0 {
				cancel()
			}
		})
	}
	return ctx, func() {
		for _, stop := range stops {
			stop()
		}
		cancel()
	}
}
