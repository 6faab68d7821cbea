package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// tasks is a graph of things to do, each as soon as those that it needs are done.
type tasks struct {
	ctx    context.Context //nolint:containedctx // it lives no longer than run
	cancel context.CancelCauseFunc
	done   map[string]chan struct{}
	todo   []task

	mu       sync.Mutex
	failures []error
}

type task struct {
	name  string
	do    func(context.Context) error
	needs []string
}

func newTasks(ctx context.Context) *tasks {
	ctx, cancel := context.WithCancelCause(ctx)
	return &tasks{ctx: ctx, cancel: cancel, done: map[string]chan struct{}{}}
}

// add adds a task. Those that it needs must have been added before.
func (t *tasks) add(name string, do func(context.Context) error, needs ...string) {
	for _, need := range needs {
		if t.done[need] == nil {
			panic(fmt.Sprintf("task %s needs %s, which was not added before", name, need))
		}
	}
	t.done[name] = make(chan struct{})
	t.todo = append(t.todo, task{name, do, needs})
}

// fail keeps a failure and cancels the other tasks. That these fail in their turn says nothing; but when the time for
// all is over, each that was under way says what it was waiting for.
func (t *tasks) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx.Err() == nil || errors.Is(t.ctx.Err(), context.DeadlineExceeded) {
		t.failures = append(t.failures, err)
	}
	t.cancel(err)
}

// run does all tasks, reports each that is done, and returns the failure that ended it.
func (t *tasks) run(report func(name string)) error {
	var all sync.WaitGroup
	for _, task := range t.todo {
		all.Go(func() {
			for _, need := range task.needs {
				select {
				case <-t.done[need]:
				case <-t.ctx.Done():
					return
				}
			}
			if err := task.do(t.ctx); err != nil {
				t.fail(fmt.Errorf("%s: %w", task.name, err))
				return
			}
			report(task.name)
			close(t.done[task.name])
		})
	}
	all.Wait()
	if t.ctx.Err() != nil && len(t.failures) == 0 {
		return context.Cause(t.ctx)
	}
	t.cancel(nil)
	return errors.Join(t.failures...)
}
