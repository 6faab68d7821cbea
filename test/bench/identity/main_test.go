package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/jia-app/paymesh/test/bench/identity/figures"
)

func TestSettingsComeFromTheEnvironmentAndHaveDefaults(t *testing.T) {
	settings, sizes, err := settingsOf(func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{1000, 10000, 50000}, sizes); diff != "" || settings.Identities != 5000 || settings.Samples < 300 || settings.IdleSeconds != 60 {
		t.Errorf("got %+v and %v", settings, sizes)
	}
	set := map[string]string{"BENCH_ENTRIES": "500, 700", "BENCH_SAMPLES": "20", "BENCH_PACE": "1s", "BENCH_EVENTS_BASED_CACHE": "false"}
	settings, sizes, err = settingsOf(lookup(set))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{500, 700}, sizes); diff != "" || settings.Samples != 20 || settings.PaceMillis != 1000 || settings.EventsBasedCache {
		t.Errorf("got %+v and %v", settings, sizes)
	}
}

func TestSettingsThatCannotWorkAreRefusedByName(t *testing.T) {
	for name, value := range map[string]string{
		"BENCH_ENTRIES": "1000,many", "BENCH_IDENTITIES": "0", "BENCH_PACE": "75", "BENCH_IDLE": "-1s",
		"BENCH_EVENTS_BASED_CACHE": "perhaps", "BENCH_RESTARTS": "5001", "BENCH_NODES": "1",
	} {
		if _, _, err := settingsOf(lookup(map[string]string{name: value})); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s=%s: got %v", name, value, err)
		}
	}
}

func lookup(set map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		value, ok := set[name]
		return value, ok
	}
}

func TestWhatTheBenchAskedForItselfIsNotTheManagers(t *testing.T) {
	served, err := parse(`# TYPE spire_server_rpc_entry_v1_entry_get_entry counter
spire_server_rpc_entry_v1_entry_get_entry{status="OK"} 7
spire_server_rpc_entry_v1_entry_get_entry{status="NotFound"} 5
# TYPE spire_server_rpc_entry_v1_entry_get_entry_elapsed_time summary
spire_server_rpc_entry_v1_entry_get_entry_elapsed_time_sum{status="OK"} 99
spire_server_rpc_entry_v1_entry_get_entry_elapsed_time_count{status="OK"} 7
# TYPE spire_server_rpc_entry_v1_entry_batch_create_entry counter
spire_server_rpc_entry_v1_entry_batch_create_entry{status="OK"} 3
# TYPE spire_server_rpc_bundle_v1_bundle_get_bundle counter
spire_server_rpc_bundle_v1_bundle_get_bundle{status="OK"} 2
# TYPE spire_server_uptime gauge
spire_server_uptime 4
`)
	if err != nil {
		t.Fatal(err)
	}
	before := reading{at: time.Unix(0, 0), server: map[string]int{"GetEntry": 1}}
	after := reading{
		at: time.Unix(2, 0), server: served.serverRPCs(), own: map[string]int{"GetEntry": 11},
		rpcs: map[string]int{"BatchCreateEntry": 3}, cpu: map[string]float64{"manager": 1.5},
	}
	want := figures.Cost{
		Seconds: 2, RPCs: map[string]int{"BatchCreateEntry": 3}, ServerRPCs: map[string]int{"BatchCreateEntry": 3, "bundle_v1_bundle_get_bundle": 2},
		APIRequests: map[string]int{}, CPUSeconds: map[string]float64{"manager": 1.5},
	}
	if diff := cmp.Diff(want, after.since(before)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestMetricsAddUpOverTheLabelsThatNobodyAsksFor(t *testing.T) {
	p, err := parse(`# TYPE calls counter
calls{method="a",code="OK"} 1
calls{method="a",code="Internal"} 2
calls{method="b",code="OK"} 4
# TYPE depth gauge
depth 8
`)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]float64{"a": 3, "b": 4}, p.by("calls", "method")); diff != "" || p.sum("calls") != 7 || p.sum("depth") != 8 || p.sum("none") != 0 {
		t.Errorf("sums %v, %v, %v:\n%s", p.sum("calls"), p.sum("depth"), p.sum("none"), diff)
	}
}

func TestWhatTheLabStartedEndsInTurnAndAFailureIsAnError(t *testing.T) {
	var order []string
	var failed bool
	err := live(func(l *lifetime) error {
		l.Cleanup(func() { order, failed = append(order, "first"), l.Failed() })
		l.Cleanup(func() { order = append(order, "second") })
		l.Fatalf("no %s", "luck")
		return nil
	})
	if err == nil || err.Error() != "no luck" || !failed || strings.Join(order, " ") != "second first" {
		t.Errorf("got %v, failed %v, cleaned up %v", err, failed, order)
	}
	reason := errors.New("bad")
	if err := live(func(*lifetime) error { return reason }); !errors.Is(err, reason) {
		t.Errorf("got %v", err)
	}
	defer func() {
		if recover() != "a mistake" {
			t.Error("a panic that is not the lab's was lost")
		}
	}()
	_ = live(func(*lifetime) error { panic("a mistake") })
}
