package main

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"time"
)

// lifetime is the lab.T of a program: what the lab starts ends with it.
type lifetime struct {
	mu       sync.Mutex
	cleanups []func()
	failed   bool
}

// failure is what the lab could not do.
type failure string

// live calls f, then cleans up. What the lab could not do becomes an error.
func live(f func(*lifetime) error) (err error) {
	t := &lifetime{}
	defer t.cleanUp()
	defer func() {
		switch why := recover().(type) {
		case nil:
		case failure:
			err = fmt.Errorf("%s", why)
		default:
			panic(why)
		}
		t.mu.Lock()
		t.failed = err != nil
		t.mu.Unlock()
	}()
	return f(t)
}

// Helper does nothing: there is no test whose lines to name.
func (*lifetime) Helper() {}

// Logf tells how far things are.
func (*lifetime) Logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}

// Fatalf ends live. Only the goroutine that called live may call it.
func (*lifetime) Fatalf(format string, args ...any) { panic(failure(fmt.Sprintf(format, args...))) }

// Failed reports whether live ends with an error.
func (t *lifetime) Failed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.failed
}

// Cleanup has f called when live ends, the last one first.
func (t *lifetime) Cleanup(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cleanups = append(t.cleanups, f)
}

func (t *lifetime) cleanUp() {
	for _, f := range slices.Backward(t.cleanups) {
		f()
	}
}
