package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/jia-app/paymesh/internal/spire"
)

// slow is a server that takes a second for each call, and notes what it was asked.
type slow struct {
	mu    sync.Mutex
	calls [][]string
	// answer says how many entries of a call it answers about, and with what error.
	answer func(ids []string) (int, error)
}

func (s *slow) apply(ctx context.Context, plan spire.Plan) ([]spire.Result, error) {
	ids := plan.IDs()
	s.mu.Lock()
	s.calls = append(s.calls, ids)
	s.mu.Unlock()
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	n, err := len(ids), error(nil)
	if s.answer != nil {
		n, err = s.answer(ids)
	}
	var results []spire.Result
	for _, id := range ids[:n] {
		results = append(results, spire.Result{ID: id})
	}
	return results, err
}

func (s *slow) sizes() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	var sizes []int
	for _, call := range s.calls {
		sizes = append(sizes, len(call))
	}
	return sizes
}

func batching(s *slow) *Batcher {
	b := NewBatcher(&Client{})
	b.apply = s.apply
	return b
}

func creates(ids ...string) spire.Plan {
	var plan spire.Plan
	for _, id := range ids {
		plan.Create = append(plan.Create, spire.Entry{ID: id})
	}
	return plan
}

func idsOf(results []spire.Result) []string {
	var ids []string
	for _, result := range results {
		ids = append(ids, result.ID)
	}
	return ids
}

func TestAPlanOfSeveralCallsKeepsNobodyElseWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slow{}
		b := batching(s)
		var ids []string
		for i := range batchSize + 1 {
			ids = append(ids, fmt.Sprintf("of-many-%d", i))
		}
		for range batchesInFlight {
			go func() { _, _ = b.Apply(t.Context(), creates(ids...)) }()
		}
		synctest.Wait()
		start := time.Now()
		if _, err := b.Apply(t.Context(), creates("single")); err != nil || time.Since(start) != time.Second {
			t.Errorf("a single entry took %s (%v), and its call 1s", time.Since(start), err)
		}
	})
}

func TestPlansThatComeWhileCallsAreUnderWayShareTheNextAndEachGetsItsOwnResults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slow{}
		b := batching(s)
		var running sync.WaitGroup
		for i := range 122 {
			running.Go(func() {
				plan := creates(fmt.Sprintf("c%d", i))
				plan.Update, plan.Delete = []spire.Entry{{ID: fmt.Sprintf("u%d", i)}}, []string{fmt.Sprintf("d%d", i)}
				results, err := b.Apply(t.Context(), plan)
				if diff := cmp.Diff(plan.IDs(), idsOf(results)); err != nil || diff != "" {
					t.Errorf("error %v, results (-want +got):\n%s", err, diff)
				}
			})
			if i < batchesInFlight {
				synctest.Wait() // these find nothing under way, and do not wait for company
			}
		}
		running.Wait()
		// 16 plans of three entries are the most that 50 have room for.
		if diff := cmp.Diff([]int{3, 3, 24, 48, 48, 48, 48, 48, 48, 48}, slices.Sorted(slices.Values(s.sizes()))); diff != "" {
			t.Errorf("entries by call (-want +got):\n%s", diff)
		}
	})
}

func TestAPlanThatComesAloneIsSentAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, start := batching(&slow{}), time.Now()
		if _, err := b.Apply(t.Context(), creates("a")); err != nil || time.Since(start) != time.Second {
			t.Errorf("error %v after %s, of which the call has one", err, time.Since(start))
		}
	})
}

func TestWhatTheServerDidNotAnswerAboutIsAnErrorForThosePlansAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		away := errors.New("the server went away")
		s := &slow{answer: func(ids []string) (int, error) {
			if len(ids) < 2 {
				return len(ids), nil
			}
			return 1, away
		}}
		b := batching(s)
		var running sync.WaitGroup
		for i := range batchesInFlight { // keep it busy
			running.Go(func() { _, _ = b.Apply(t.Context(), creates(fmt.Sprintf("busy%d", i))) })
		}
		synctest.Wait()
		for _, want := range []error{nil, away, away} {
			running.Go(func() {
				if _, err := b.Apply(t.Context(), creates(fmt.Sprintf("%p", &want))); !errors.Is(err, want) {
					t.Errorf("got %v, want %v", err, want)
				}
			})
			synctest.Wait() // in this order
		}
		running.Wait()
	})
}

func TestTwoPlansThatWriteTheSameEntryDoNotShareACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slow{}
		b := batching(s)
		var running sync.WaitGroup
		for _, ids := range [][]string{{"x"}, {"y"}, {"a", "alias"}, {"b", "alias"}, {"c"}, {"twice", "twice"}} {
			running.Go(func() {
				if _, err := b.Apply(t.Context(), creates(ids...)); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		running.Wait()
		for _, call := range s.calls {
			if slices.Contains(call, "a") && slices.Contains(call, "b") {
				t.Errorf("the calls were %v", s.calls)
			}
		}
	})
}

func TestACallGoesOnUntilTheLastOfItsCallersGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slow{}
		b := batching(s)
		var running sync.WaitGroup
		for i := range batchesInFlight {
			running.Go(func() { _, _ = b.Apply(t.Context(), creates(fmt.Sprintf("busy%d", i))) })
		}
		synctest.Wait()
		hasty, cancel := context.WithCancel(t.Context())
		for id, ctx := range map[string]context.Context{"hasty": hasty, "patient": t.Context()} {
			running.Go(func() {
				if results, err := b.Apply(ctx, creates(id)); err != nil || len(results) != 1 {
					t.Errorf("%s: got %v and %v", id, results, err)
				}
			})
		}
		synctest.Wait()
		time.Sleep(1500 * time.Millisecond) //nolint:forbidigo // the bubble's time: in the middle of the call that the two share
		cancel()
		running.Wait()

		all, cancel := context.WithCancel(t.Context())
		running.Go(func() {
			if _, err := b.Apply(all, creates("alone")); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
		})
		synctest.Wait()
		cancel()
		running.Wait()
	})
}

func TestACallThatBreaksOffKeepsNobodyWaiting(t *testing.T) {
	b := NewBatcher(&Client{})
	b.apply = func(context.Context, spire.Plan) ([]spire.Result, error) { panic("a mistake") }
	for range batchesInFlight + 1 { // each gives its slot back
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was lost")
				}
			}()
			_, _ = b.Apply(t.Context(), creates("a"))
		}()
	}
}
