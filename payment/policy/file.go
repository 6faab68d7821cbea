package policy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/jia-app/paymesh/payment/config"
)

// Interval is how often the file is read: so long a rule that was taken out of it may still let a call in. It is read whole,
// and not watched by inotify: a ConfigMap is replaced by renaming a link beside it, a volume may be of any file system, and
// a node has 128 inotify instances for a user.
const Interval = time.Second

// The results of a look at a changed file, as a label.
const (
	loaded  = "loaded"
	refused = "refused"
)

// Options say which file to watch.
type Options struct {
	// Path is the policy file.
	Path string
	Log  *slog.Logger
	// Registerer gets the metrics of the file.
	Registerer prometheus.Registerer
	// Interval is how often the file is read; Interval where it is zero.
	Interval time.Duration
}

// File is a policy file. What it said when it was last good is in force.
type File struct {
	options  Options
	rules    atomic.Pointer[Rules]
	changes  *prometheus.CounterVec
	outdated prometheus.Gauge

	text    []byte // of what is in force
	failure string // of the file as it is now; empty where it is in force
}

// Open reads the file. One that is missing or broken is an error: there is no policy before it. Watch keeps it current.
func Open(o Options) (*File, error) {
	if o.Interval == 0 {
		o.Interval = Interval
	}
	f := &File{
		options:  o,
		changes:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "auth_policy_changes_total", Help: "Changes of the policy file that were seen: loaded, or refused as broken."}, []string{"result"}),
		outdated: prometheus.NewGauge(prometheus.GaugeOpts{Name: "auth_policy_outdated", Help: "1 while the policy file is missing or broken, and the policy before it is in force."}),
	}
	if err := errors.Join(o.Registerer.Register(f.changes), o.Registerer.Register(f.outdated)); err != nil {
		return nil, fmt.Errorf("register the metrics of the policy: %w", err)
	}
	f.changes.WithLabelValues(refused)
	text, rules, err := f.read()
	if err != nil {
		return nil, fmt.Errorf("auth.policy_file: %w", err)
	}
	f.load(text, rules)
	return f, nil
}

// Decide judges a call by what is in force.
func (f *File) Decide(caller spiffeid.ID, fullMethod string) Verdict {
	return f.rules.Load().Decide(caller, fullMethod)
}

// Watch follows the file until ctx ends.
func (f *File) Watch(ctx context.Context) {
	tick := time.NewTicker(f.options.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f.look()
		}
	}
}

func (f *File) look() {
	text, rules, err := f.read()
	switch {
	case err != nil && err.Error() == f.failure: // it was told
	case err != nil:
		f.failure = err.Error()
		f.changes.WithLabelValues(refused).Inc()
		f.outdated.Set(1)
		f.options.Log.Error("the policy file cannot be used: the policy before it stays in force", "file", f.options.Path, "error", f.failure)
	case !bytes.Equal(text, f.text):
		f.load(text, rules)
	case f.failure != "":
		f.failure = ""
		f.outdated.Set(0)
		f.options.Log.Info("the policy file is again the one that is in force", "file", f.options.Path)
	}
}

func (f *File) load(text []byte, rules Rules) {
	f.rules.Store(&rules)
	f.text, f.failure = text, ""
	f.changes.WithLabelValues(loaded).Inc()
	f.outdated.Set(0)
	if len(rules) == 0 {
		f.options.Log.Warn("the policy is in force: it has no rules, so nobody may call", "file", f.options.Path)
		return
	}
	f.options.Log.Info("the policy is in force", "file", f.options.Path, "rules", len(rules))
}

// read returns the file's text and its rules; of a text that is in force already, none.
func (f *File) read() ([]byte, Rules, error) {
	file, err := os.Open(f.options.Path)
	if err != nil {
		return nil, nil, fmt.Errorf("read the policy: %w", err)
	}
	defer file.Close() //nolint:errcheck // nothing was written
	text, err := io.ReadAll(io.LimitReader(file, config.MaxPolicy+1))
	if err != nil {
		return nil, nil, fmt.Errorf("read the policy: %w", err)
	}
	if f.text != nil && bytes.Equal(text, f.text) {
		return text, nil, nil
	}
	parsed, err := config.ParsePolicy(f.options.Path, text)
	return text, parsed.Rules, err
}
