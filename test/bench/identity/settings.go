package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/procfs"

	"github.com/jia-app/paymesh/test/bench/identity/figures"
	"github.com/jia-app/paymesh/test/lab"
)

// The bare client makes entries as fast as SPIRE takes them on SQLite: more in flight or larger batches gain nothing.
const (
	batchSize       = 50
	batchesInFlight = 8
)

// agentSync is how often the lab's agents ask.
const agentSync = 200 * time.Millisecond

// settingsOf reads the settings, and the sizes to measure, from BENCH_ variables.
func settingsOf(lookup func(string) (string, bool)) (figures.Settings, []int, error) {
	e := environment{lookup: lookup}
	settings := figures.Settings{
		Identities: e.number("BENCH_IDENTITIES", 5000), Nodes: e.number("BENCH_NODES", 50),
		Samples: e.number("BENCH_SAMPLES", 400), PaceMillis: millis(e.duration("BENCH_PACE", 75*time.Millisecond)),
		SVIDs: e.number("BENCH_SVIDS", 40), Restarts: e.number("BENCH_RESTARTS", 1000),
		IdleSeconds: e.duration("BENCH_IDLE", time.Minute).Seconds(),
		BatchSize:   batchSize, BatchesInFlight: batchesInFlight,
		CacheReloadMillis: millis(e.duration("BENCH_CACHE_RELOAD", 100*time.Millisecond)), EventsBasedCache: e.truth("BENCH_EVENTS_BASED_CACHE", true),
		AgentSyncMillis: millis(agentSync),
	}
	var sizes []int
	for _, word := range strings.Split(e.text("BENCH_ENTRIES", "1000,10000,50000"), ",") {
		sizes = append(sizes, e.parse("BENCH_ENTRIES", strings.TrimSpace(word)))
	}
	if most := min(settings.Identities, settings.Identities*(settings.Nodes-1)); settings.Samples > most || settings.Restarts > settings.Identities {
		e.fail(fmt.Errorf("BENCH_SAMPLES (%d) and BENCH_RESTARTS (%d) take that many of the BENCH_IDENTITIES (%d), and a second of the BENCH_NODES (%d): want no more than there are",
			settings.Samples, settings.Restarts, settings.Identities, settings.Nodes))
	}
	return settings, sizes, e.err
}

type environment struct {
	lookup func(string) (string, bool)
	err    error
}

func (e *environment) fail(err error) { e.err = errors.Join(e.err, err) }

func (e *environment) text(name, otherwise string) string {
	value, _ := e.lookup(name)
	return cmp.Or(value, otherwise)
}

func (e *environment) parse(name, word string) int {
	n, err := strconv.Atoi(word)
	if err != nil || n < 1 {
		e.fail(fmt.Errorf("%s has %q: want a number from 1", name, word))
	}
	return n
}

func (e *environment) number(name string, otherwise int) int {
	return e.parse(name, e.text(name, strconv.Itoa(otherwise)))
}

func (e *environment) duration(name string, otherwise time.Duration) time.Duration {
	word := e.text(name, otherwise.String())
	d, err := time.ParseDuration(word)
	if err != nil || d <= 0 {
		e.fail(fmt.Errorf("%s is %q: want a duration such as 75ms", name, word))
	}
	return d
}

func (e *environment) truth(name string, otherwise bool) bool {
	word := e.text(name, strconv.FormatBool(otherwise))
	b, err := strconv.ParseBool(word)
	if err != nil {
		e.fail(fmt.Errorf("%s is %q: want true or false", name, word))
	}
	return b
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func fromMillis(m float64) time.Duration { return time.Duration(m * float64(time.Millisecond)) }

// commit names the checkout that the bench runs in, and says where it was changed since.
func commit(ctx context.Context) (string, error) {
	head, err := output(ctx, "git", "rev-parse", "--short=12", "HEAD")
	if err != nil {
		return "", err
	}
	changed, err := output(ctx, "git", "status", "--porcelain", "--", ":!docs/bench")
	if err == nil && changed != "" {
		head += " with changes"
	}
	return head, err
}

func machine(ctx context.Context) (figures.Machine, error) {
	m := figures.Machine{Cores: runtime.NumCPU(), CPU: processor(), Go: runtime.Version()}
	proc, err := procfs.NewDefaultFS()
	if err != nil {
		return m, err
	}
	load, err := proc.LoadAvg()
	if err != nil {
		return m, fmt.Errorf("read the load average: %w", err)
	}
	m.Load = load.Load1
	if m.Nice, err = niceness(); err != nil {
		return m, err
	}
	var failed error
	m.Kernel, failed = output(ctx, "uname", "-sr")
	err = live(func(t *lifetime) error {
		m.SPIRE, err = output(ctx, lab.Binary(t, "spire-server"), "--version")
		return err
	})
	return m, errors.Join(failed, err)
}

// niceness is what counts where others run: with autogroups (sched(7)), that of the session.
func niceness() (int, error) {
	group, err := os.ReadFile("/proc/self/autogroup")
	if err == nil {
		if _, nice, ok := strings.Cut(strings.TrimSpace(string(group)), " nice "); ok {
			return strconv.Atoi(nice)
		}
	}
	self, err := procfs.Self()
	if err != nil {
		return 0, err
	}
	stat, err := self.Stat()
	if err != nil {
		return 0, fmt.Errorf("read how nice this process is: %w", err)
	}
	return stat.Nice, nil
}

// processor is the name of the first core's kind; empty where the machine does not tell.
func processor() string {
	file, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	defer file.Close() //nolint:errcheck // read only
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func output(ctx context.Context, program string, args ...string) (string, error) {
	text, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, text)
	}
	return strings.TrimSpace(string(text)), nil
}
