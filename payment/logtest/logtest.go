// Package logtest is for tests: it keeps what is logged, and waits for what is to come.
package logtest

import (
	"log/slog"
	"strings"
	"sync"
	"time"
)

// Log is a writer that several may write to while others read.
type Log struct {
	mu   sync.Mutex
	text strings.Builder
}

// Write keeps a line.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// String is all that has been written.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Count is how often a text has been written.
func (l *Log) Count(text string) int { return strings.Count(l.String(), text) }

// Logger writes to the log.
func (l *Log) Logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

const (
	patience = 20 * time.Second
	interval = time.Millisecond
)

// T is what of a testing.TB is needed here: the testing package is linked into tests alone.
type T interface {
	Helper()
	Fatalf(format string, args ...any)
}

// Eventually asks until it is so, and fails the test after 20 s, for what should take milliseconds.
func Eventually(t T, check func() bool) {
	t.Helper()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for end := time.Now().Add(patience); time.Now().Before(end); <-tick.C {
		if check() {
			return
		}
	}
	t.Fatalf("not within %s", patience)
}
