package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/procfs"

	"github.com/jia-app/paymesh/test/bench/identity/figures"
	"github.com/jia-app/paymesh/test/lab"
)

// The processes whose work is told apart, by the name that the kernel has for them.
const (
	managerProcess = "manager"
	spireProcess   = "spire-server"
	benchProcess   = "bench"
)

// page is a page of metrics.
type page map[string]*dto.MetricFamily

func parse(text string) (page, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("read a page of metrics: %w", err)
	}
	return families, nil
}

// by adds up the values of a metric by one of its labels; a histogram counts what it observed.
func (p page) by(metric, label string) map[string]float64 {
	sums := map[string]float64{}
	for _, m := range p[metric].GetMetric() {
		key := ""
		for _, l := range m.GetLabel() {
			if l.GetName() == label {
				key = l.GetValue()
			}
		}
		sums[key] += m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetUntyped().GetValue() + float64(m.GetHistogram().GetSampleCount())
	}
	return sums
}

func (p page) sum(metric string) float64 {
	total := 0.0
	for _, value := range p.by(metric, "") {
		total += value
	}
	return total
}

// rpcPrefix is that of SPIRE's counters of its calls: spire_server_rpc_entry_v1_entry_get_entry.
const rpcPrefix = "spire_server_rpc_"

// serverRPCs are the calls that a SPIRE server has answered, by method; those with a name of the entry API as that has it.
func (p page) serverRPCs() map[string]int {
	rpcs := map[string]int{}
	for name := range p {
		method, ok := strings.CutPrefix(name, rpcPrefix)
		if !ok || strings.HasSuffix(method, "_elapsed_time") {
			continue
		}
		if call, ok := strings.CutPrefix(method, "entry_v1_entry_"); ok {
			method = camel(call)
		}
		rpcs[method] += int(p.sum(name))
	}
	return rpcs
}

// camel turns batch_create_entry into BatchCreateEntry.
func camel(name string) string {
	var all strings.Builder
	for word := range strings.SplitSeq(name, "_") {
		if word != "" {
			all.WriteString(strings.ToUpper(word[:1]) + word[1:])
		}
	}
	return all.String()
}

// reading is what all counters stood at.
type reading struct {
	at      time.Time
	rpcs    map[string]int
	inSPIRE float64
	api     map[string]int
	server  map[string]int
	own     map[string]int
	cpu     map[string]float64
	// busy is the CPU time of the whole machine.
	busy float64
}

// read takes a reading. Where no manager runs, its counters are zero: as it will have them when it starts.
func (w *world) read() (reading, error) {
	now := reading{at: time.Now(), own: w.bare.made(), rpcs: map[string]int{}, api: map[string]int{}}
	var failed error
	if w.manager != nil {
		metrics, err := managerMetrics(w.ctx, w.manager)
		failed = err
		now.rpcs, now.api = counts(metrics.by("paymesh_spire_rpcs_total", "method")), counts(metrics.by("rest_client_requests_total", "method"))
		for _, m := range metrics["paymesh_spire_rpc_duration_seconds"].GetMetric() {
			now.inSPIRE += m.GetHistogram().GetSampleSum()
		}
	}
	metrics, err := serverMetrics(w.ctx, w.spire.Metrics)
	now.server = metrics.serverRPCs()
	var processes error
	now.cpu, now.busy, processes = processorTime()
	return now, errors.Join(failed, err, processes)
}

// since is what happened between two readings.
func (after reading) since(before reading) figures.Cost {
	server := minus(after.server, before.server)
	for method, n := range minus(after.own, before.own) {
		if server[method] -= n; server[method] == 0 {
			delete(server, method)
		}
	}
	cost := figures.Cost{
		Seconds: figures.Round(after.at.Sub(before.at).Seconds()), RPCs: minus(after.rpcs, before.rpcs), ServerRPCs: server,
		APIRequests: minus(after.api, before.api), InSPIRESeconds: figures.Round(after.inSPIRE - before.inSPIRE), CPUSeconds: map[string]float64{},
	}
	others := after.busy - before.busy
	for name, at := range after.cpu {
		cost.CPUSeconds[name] = figures.Round(at - before.cpu[name])
		others -= at - before.cpu[name]
	}
	cost.OthersCPUSeconds = max(0, figures.Round(others))
	return cost
}

func minus(after, before map[string]int) map[string]int {
	left := map[string]int{}
	for key, n := range after {
		if n != before[key] {
			left[key] = n - before[key]
		}
	}
	return left
}

func counts(values map[string]float64) map[string]int {
	whole := map[string]int{}
	for key, value := range values {
		whole[key] = int(value)
	}
	return whole
}

func managerMetrics(ctx context.Context, m *lab.Manager) (page, error) {
	text, err := m.Metrics(ctx)
	if err != nil {
		return nil, err
	}
	return parse(text)
}

func serverMetrics(ctx context.Context, url string) (page, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("read the SPIRE server's metrics: %w", err)
	}
	defer answer.Body.Close() //nolint:errcheck // read to the end
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, fmt.Errorf("read the SPIRE server's metrics: %w", err)
	}
	return parse(string(text))
}

// processorTime is the CPU time, in seconds, of this process and of those that it started, by their names, and that of
// the whole machine.
func processorTime() (times map[string]float64, busy float64, err error) {
	proc, err := procfs.NewDefaultFS()
	if err != nil {
		return nil, 0, err
	}
	machine, err := proc.Stat()
	if err != nil {
		return nil, 0, fmt.Errorf("read the machine's CPU time: %w", err)
	}
	processes, err := proc.AllProcs()
	if err != nil {
		return nil, 0, fmt.Errorf("list the processes: %w", err)
	}
	times = map[string]float64{}
	for _, process := range processes {
		stat, err := process.Stat()
		if err != nil {
			continue // it has ended since
		}
		switch os.Getpid() {
		case process.PID:
			times[benchProcess] = stat.CPUTime()
		case stat.PPID:
			times[stat.Comm] += stat.CPUTime()
		}
	}
	all := machine.CPUTotal
	return times, all.User + all.Nice + all.System + all.IRQ + all.SoftIRQ, nil
}

// memory is what the manager holds, and the most that it held.
func memory(m *lab.Manager) (now, most int64, err error) {
	process, err := procfs.NewProc(m.PID)
	if err != nil {
		return 0, 0, err
	}
	status, err := process.NewStatus()
	if err != nil {
		return 0, 0, fmt.Errorf("read the manager's memory: %w", err)
	}
	return int64(status.VmRSS), int64(status.VmHWM), nil
}
