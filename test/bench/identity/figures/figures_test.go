package figures

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestPercentilesAreSamplesByTheNearestRank(t *testing.T) {
	upTo := func(n int) []time.Duration {
		samples := make([]time.Duration, n)
		for i := range samples {
			samples[(i*7)%n] = time.Duration(i+1) * time.Millisecond // in no order
		}
		return samples
	}
	for name, c := range map[string]struct {
		samples []time.Duration
		want    Latency
	}{
		"none":          {nil, Latency{}},
		"one":           {upTo(1), Latency{Samples: 1, P50: 1, P90: 1, P99: 1, Max: 1}},
		"two":           {upTo(2), Latency{Samples: 2, P50: 1, P90: 2, P99: 2, Max: 2}},
		"a hundred":     {upTo(100), Latency{Samples: 100, P50: 50, P90: 90, P99: 99, Max: 100}},
		"four hundred":  {upTo(400), Latency{Samples: 400, P50: 200, P90: 360, P99: 396, Max: 400}},
		"three digits":  {[]time.Duration{1234567}, Latency{Samples: 1, P50: 1.235, P90: 1.235, P99: 1.235, Max: 1.235}},
		"a far outlier": {append(upTo(99), time.Minute), Latency{Samples: 100, P50: 50, P90: 90, P99: 99, Max: 60000}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, NewLatency(c.samples)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestAManagerIsComparedFromItsStartAndFromItsFirstWrite(t *testing.T) {
	s := NewStart(NewRate(1000, 2*time.Second), NewRate(1000, 5*time.Second), time.Second, 6*time.Second, Cost{})
	if s.Bare.PerSecond != 500 || s.Manager.PerSecond != 200 || s.Ratio != 0.4 || s.WritingRatio != 0.5 || s.SettledSeconds != 6 {
		t.Errorf("got %+v", s)
	}
}

func TestWhatAnEventCostsLeavesOutTheAudit(t *testing.T) {
	cost := Cost{RPCs: map[string]int{"BatchCreateEntry": 3, "GetEntry": 1, "ListEntries": 40}}
	if got := NewEvents(make([]time.Duration, 4), make([]time.Duration, 4), cost); got.RPCs != 1 {
		t.Errorf("%v calls an event", got.RPCs)
	}
	if cost.Writes() != 3 || cost.ServerWrites() != 0 || Total(cost.RPCs) != 44 {
		t.Errorf("writes %d and %d of %d", cost.Writes(), cost.ServerWrites(), Total(cost.RPCs))
	}
}

func TestIdleIsARateOfCallsAndAShareOfACore(t *testing.T) {
	got := NewIdle(Cost{Seconds: 50, RPCs: map[string]int{"ListEntries": 40, "GetEntry": 5}, CPUSeconds: map[string]float64{"m": 0.25, "s": 1}}, "m", "s")
	if got.RPCsPerSecond != 0.9 || got.CPUPercent != 0.5 || got.SPIRECPUPercent != 2 {
		t.Errorf("got %+v", got)
	}
}

func TestTheStoredReportReadsAndIsWrittenAgainAsItWas(t *testing.T) {
	text, err := os.ReadFile("../../../../docs/bench/identity.json")
	if err != nil {
		t.Fatal(err)
	}
	report, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	again, err := report.JSON()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(text), string(again)); diff != "" {
		t.Errorf("(-stored +written):\n%s", diff)
	}
	if _, err := Parse([]byte(`{"colour": "red"}`)); err == nil {
		t.Error("a field that no report has is taken")
	}
}

// perfect is a report that meets every target, just so where the target allows equality.
func perfect() Report {
	size := func(foreign int, p99 float64) Size {
		s := Size{Foreign: foreign}
		s.Object.FromRequest.P99, s.Pod.FromRequest.P99, s.Pod.RPCs = p99, p99, 1
		s.FromNothing.Ratio, s.Recovery.Ratio = 0.9, 0.9
		s.Idle.RPCsPerSecond, s.Idle.CPUPercent = 1, 0.99
		return s
	}
	return Report{Sizes: []Size{size(1000, 32), size(10000, 300), size(50000, 48)}}
}

func TestATargetThatIsMissedAtAnySizeThatCountsIsMissed(t *testing.T) {
	for _, v := range perfect().Verdicts() {
		if !v.Met || v.Word() != "met" {
			t.Errorf("%s: %s is %s", v.Target, v.Figure, v.Word())
		}
	}
	for target, spoil := range map[string]func(sizes []Size){
		"object event to entry, p99 at 50000": func(s []Size) { s[0].Object.FromRequest.P99, s[2].Object.FromRequest.P99 = 40, 50 },
		"object event to entry, p99 flat":     func(s []Size) { s[0].Object.FromRequest.P99 = 31 },
		"pod event to entry, p99 at 50000":    func(s []Size) { s[0].Pod.FromRequest.P99, s[2].Pod.FromRequest.P99 = 40, 50 },
		"pod event to entry, p99 flat":        func(s []Size) { s[0].Pod.FromRequest.P99 = 31 },
		"calls to SPIRE for a pod event":      func(s []Size) { s[0].Pod.RPCs = 1.01 },
		"from nothing":                        func(s []Size) { s[1].FromNothing.Ratio = 0.89 },
		"after SPIRE lost":                    func(s []Size) { s[2].Recovery.Ratio = 0.89 },
		"pods restarted":                      func(s []Size) { s[0].Restart.Writes = 1 },
		"idle: at most 1 call":                func(s []Size) { s[1].Idle.RPCsPerSecond = 1.01 },
		"idle: less than":                     func(s []Size) { s[0].Idle.CPUPercent = 1 },
	} {
		t.Run(target, func(t *testing.T) {
			r := perfect()
			spoil(r.Sizes)
			for _, v := range r.Verdicts() {
				if missed := strings.Contains(v.Target, target); v.Met == missed || (v.Word() == "MISSED") != missed {
					t.Errorf("%s: %s is %s", v.Target, v.Figure, v.Word())
				}
			}
		})
	}
	if (Report{}).Verdicts() != nil {
		t.Error("an empty report has verdicts")
	}
}

func TestTheTableHasAColumnForEachSizeAndEveryVerdict(t *testing.T) {
	r := perfect()
	r.Date, r.Commit = time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC), "abc"
	r.Sizes[1].Object.FromRequest = Latency{P50: 12.34, P99: 45.67}
	r.Sizes[2].Idle.RPCsPerSecond = 7
	var out strings.Builder
	if err := r.Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1000 ", "10000 ", "50000\n", "12.3 / 45.7", "7.00", "MISSED", "2026-01-02 03:04 UTC, commit abc"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if missed := strings.Count(out.String(), "MISSED"); missed != 1 {
		t.Errorf("%d targets are missed in\n%s", missed, out.String())
	}
}
