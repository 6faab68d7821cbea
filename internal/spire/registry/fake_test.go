package registry_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/jia-app/paymesh/internal/spire"
	"github.com/jia-app/paymesh/internal/spire/client"
)

var errAway = errors.New("the server is away")

// fake is a SPIRE server in memory, with its answers as client.Client gives them. What it really says is held by
// test/integration/spire.
type fake struct {
	mu    sync.Mutex
	rows  []row
	next  int
	clock int64
	// away fails everything; lost fails writes after they were done.
	away, lost bool
	// pageSize replaces that of queries that have none.
	pageSize int
	// lag makes every call take some of this time before and after it is done.
	lag   time.Duration
	calls map[string]int
	// bundles are the trust domains of which there is one.
	bundles []string
}

type row struct {
	number int
	entry  spire.Held
}

func newFake(entries ...spire.Entry) *fake {
	f := &fake{calls: map[string]int{}, pageSize: client.PageSize}
	for _, entry := range entries {
		f.create(entry)
	}
	return f
}

// by runs something that somebody else does to the server.
func (f *fake) by(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fake) create(entry spire.Entry) spire.Held {
	f.next++
	f.clock++
	held := spire.Held{Entry: entry, CreatedAt: f.clock}
	f.rows = append(f.rows, row{f.next, held})
	return held
}

func (f *fake) delete(id string) {
	f.rows = slices.DeleteFunc(f.rows, func(r row) bool { return r.entry.ID == id })
}

func (f *fake) find(id string) *spire.Held {
	for i := range f.rows {
		if f.rows[i].entry.ID == id {
			return &f.rows[i].entry
		}
	}
	return nil
}

func (f *fake) edit(id string, change func(*spire.Held)) {
	held := f.find(id)
	change(held)
	held.Revision++
}

// call does something as a call would: some time passes before and after, and it may fail on either way.
func (f *fake) call(ctx context.Context, name string, do func()) error {
	for _, step := range []func(){do, func() {}} {
		if f.lag > 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(rand.N(f.lag)):
			}
		}
		f.mu.Lock()
		if f.away {
			f.mu.Unlock()
			return errAway
		}
		step()
		f.mu.Unlock()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls[name]++
	if f.lost && name == "Apply" {
		return errAway
	}
	return nil
}

func (f *fake) List(ctx context.Context, q client.Query) (page client.Page, err error) {
	err = f.call(ctx, "List", func() {
		size := f.pageSize
		if q.Size > 0 {
			size = int(q.Size)
		}
		from, _ := strconv.Atoi(q.Token)
		for _, r := range f.rows {
			if q.SPIFFEID != "" && r.entry.SPIFFEID != q.SPIFFEID || r.number <= from || len(page.Entries) == size {
				continue
			}
			entry := r.entry
			if q.RevisionsOnly {
				entry = spire.Held{Entry: spire.Entry{ID: entry.ID, FederatesWith: entry.FederatesWith}, Revision: entry.Revision, CreatedAt: entry.CreatedAt}
			}
			page.Entries = append(page.Entries, entry)
			page.Next = strconv.Itoa(r.number) // also of the last page, as SPIRE has it
		}
	})
	return page, err
}

func (f *fake) Get(ctx context.Context, id string) (entry spire.Held, found bool, err error) {
	err = f.call(ctx, "Get", func() {
		if held := f.find(id); held != nil {
			entry, found = *held, true
		}
	})
	return entry, found, err
}

func (f *fake) Apply(ctx context.Context, plan spire.Plan) (results []spire.Result, err error) {
	err = f.call(ctx, "Apply", func() {
		ok := func(op spire.Op, entry spire.Held) {
			results = append(results, spire.Result{ID: entry.ID, Op: op, Entry: &entry})
		}
		for _, entry := range plan.Create {
			held := f.find(entry.ID)
			switch {
			case held == nil:
				ok(spire.OpCreate, f.create(entry))
			case held.Equal(entry):
				ok(spire.OpCreate, *held)
			default:
				f.edit(entry.ID, func(h *spire.Held) { h.Entry = entry })
				ok(spire.OpCreate, *held)
			}
		}
		for _, entry := range plan.Update {
			if held := f.find(entry.ID); held != nil {
				f.edit(entry.ID, func(h *spire.Held) { h.Entry = entry })
				ok(spire.OpUpdate, *held)
			} else {
				results = append(results, spire.Result{ID: entry.ID, Op: spire.OpUpdate, Code: spire.CodeNotFound})
			}
		}
		for _, id := range plan.Delete {
			f.delete(id)
			results = append(results, spire.Result{ID: id, Op: spire.OpDelete})
		}
	})
	if err != nil {
		results = nil
	}
	return results, err
}

func (f *fake) Bundles(ctx context.Context) (trustDomains []string, err error) {
	err = f.call(ctx, "Bundles", func() { trustDomains = slices.Clone(f.bundles) })
	return trustDomains, err
}

func (f *fake) count(name string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[name]
}
