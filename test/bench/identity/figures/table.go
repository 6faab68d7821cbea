package figures

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// The targets.
const (
	eventMillis  = 50  // p99 of event to entry
	flatRatio    = 1.5 // of the largest size's p99 over the smallest's: what is called flat
	nothingRatio = 0.9
	podRPCs      = 1
	idleRPCs     = 1   // a second
	idlePercent  = 1.0 // of a core
)

// Verdict is a target beside the figure.
type Verdict struct {
	Target, Figure string
	Met            bool
}

// Word is met or missed.
func (v Verdict) Word() string {
	if v.Met {
		return "met"
	}
	return "MISSED"
}

// Verdicts holds a report against the targets. The times are at the largest size, counted from before the request to the
// API server; idle, restart and the rates are the worst of all sizes.
func (r Report) Verdicts() []Verdict {
	if len(r.Sizes) == 0 {
		return nil
	}
	first, last := r.Sizes[0], r.Sizes[len(r.Sizes)-1]
	var all []Verdict
	for _, event := range []struct {
		name        string
		first, last Latency
	}{{"object", first.Object.FromRequest, last.Object.FromRequest}, {"pod", first.Pod.FromRequest, last.Pod.FromRequest}} {
		all = append(all,
			Verdict{
				Target: fmt.Sprintf("%s event to entry, p99 at %d foreign entries: < %d ms", event.name, last.Foreign, eventMillis),
				Figure: fmt.Sprintf("%.1f ms", event.last.P99), Met: event.last.P99 < eventMillis,
			},
			Verdict{
				Target: fmt.Sprintf("%s event to entry, p99 flat from %d to %d: at most %.1f times", event.name, first.Foreign, last.Foreign, flatRatio),
				Figure: fmt.Sprintf("%.2f times", event.last.P99/event.first.P99), Met: event.last.P99 <= flatRatio*event.first.P99,
			})
	}
	worst := r.worst()
	return append(all,
		Verdict{fmt.Sprintf("calls to SPIRE for a pod event: at most %d", podRPCs), fmt.Sprintf("%.2f", worst.Pod.RPCs), worst.Pod.RPCs <= podRPCs},
		Verdict{fmt.Sprintf("from nothing: at least %.0f %% of the bare client's rate", 100*nothingRatio), fmt.Sprintf("%.0f %%", 100*worst.FromNothing.Ratio), worst.FromNothing.Ratio >= nothingRatio},
		Verdict{fmt.Sprintf("after SPIRE lost its entries: at least %.0f %% of the bare client's rate", 100*nothingRatio), fmt.Sprintf("%.0f %%", 100*worst.Recovery.Ratio), worst.Recovery.Ratio >= nothingRatio},
		Verdict{fmt.Sprintf("%d pods restarted: 0 writes to SPIRE", worst.Restart.Pods), fmt.Sprint(worst.Restart.Writes), worst.Restart.Writes == 0},
		Verdict{fmt.Sprintf("idle: at most %d call to SPIRE a second", idleRPCs), fmt.Sprintf("%.2f", worst.Idle.RPCsPerSecond), worst.Idle.RPCsPerSecond <= idleRPCs},
		Verdict{fmt.Sprintf("idle: less than %.0f %% of a core", idlePercent), fmt.Sprintf("%.2f %%", worst.Idle.CPUPercent), worst.Idle.CPUPercent < idlePercent},
	)
}

// worst has, of the figures that hold for every size, the worst of all sizes.
func (r Report) worst() Size {
	worst := r.Sizes[0]
	for _, s := range r.Sizes[1:] {
		worst.Pod.RPCs = max(worst.Pod.RPCs, s.Pod.RPCs)
		worst.FromNothing.Ratio = min(worst.FromNothing.Ratio, s.FromNothing.Ratio)
		worst.Recovery.Ratio = min(worst.Recovery.Ratio, s.Recovery.Ratio)
		worst.Restart.Writes = max(worst.Restart.Writes, s.Restart.Writes)
		worst.Idle.RPCsPerSecond = max(worst.Idle.RPCsPerSecond, s.Idle.RPCsPerSecond)
		worst.Idle.CPUPercent = max(worst.Idle.CPUPercent, s.Idle.CPUPercent)
	}
	return worst
}

// rows are the figures of a size, in the order of the table.
var rows = []struct {
	name string
	cell func(Size) string
}{
	{"bare client: entries a second, filling the server", func(s Size) string { return fmt.Sprintf("%.0f", s.Fill.PerSecond) }},
	{"bare client: one entry, p50 / p99 ms", func(s Size) string { return latency(s.BareSingle) }},
	{"object event to entry, p50 / p99 ms", func(s Size) string { return latency(s.Object.FromRequest) }},
	{"  from the API server's answer", func(s Size) string { return latency(s.Object.FromAnswer) }},
	{"  calls to SPIRE an event", func(s Size) string { return fmt.Sprintf("%.2f", s.Object.RPCs) }},
	{"pod event to entry, p50 / p99 ms", func(s Size) string { return latency(s.Pod.FromRequest) }},
	{"  from the API server's answer", func(s Size) string { return latency(s.Pod.FromAnswer) }},
	{"  calls to SPIRE an event", func(s Size) string { return fmt.Sprintf("%.2f", s.Pod.RPCs) }},
	{"API server: patches a second, one an identity and nothing else", func(s Size) string { return fmt.Sprintf("%.0f", s.Patches.PerSecond) }},
	{"from nothing: entries a second, bare client / manager", func(s Size) string { return rates(s.FromNothing) }},
	{"  share of the bare client's rate, all / from the first write", func(s Size) string { return shares(s.FromNothing) }},
	{"  calls to SPIRE / requests to the API server, an identity", func(s Size) string { return perEntry(s.FromNothing) }},
	{"after SPIRE lost its entries: entries a second, bare client / manager", func(s Size) string { return rates(s.Recovery) }},
	{"  share of the bare client's rate, all / from the first write", func(s Size) string { return shares(s.Recovery) }},
	{"  calls to SPIRE / requests to the API server, an identity", func(s Size) string { return perEntry(s.Recovery) }},
	{"pods restarted / writes to SPIRE / seconds", func(s Size) string {
		return fmt.Sprintf("%d / %d / %.1f", s.Restart.Pods, s.Restart.Writes, s.Restart.Seconds)
	}},
	{"idle: calls to SPIRE a second", func(s Size) string { return fmt.Sprintf("%.2f", s.Idle.RPCsPerSecond) }},
	{"idle: manager's / spire-server's share of a core", func(s Size) string {
		return fmt.Sprintf("%.2f %% / %.2f %%", s.Idle.CPUPercent, s.Idle.SPIRECPUPercent)
	}},
	{"manager's memory, idle / most, MiB", func(s Size) string {
		return fmt.Sprintf("%.0f / %.0f", float64(s.Idle.RSSBytes)/(1<<20), float64(s.Idle.PeakBytes)/(1<<20))
	}},
	{"identity created to SVID, p50 / p99 ms", func(s Size) string { return latency(s.SVID.Created) }},
	{"pod restarted to SVID, p50 / p99 ms", func(s Size) string { return latency(s.SVID.Restarted) }},
	{"cores that others used meanwhile: object / pod events, from nothing, recovery", func(s Size) string {
		return fmt.Sprintf("%.1f / %.1f, %.1f, %.1f", s.Object.Cost.Others(), s.Pod.Cost.Others(), s.FromNothing.Cost.Others(), s.Recovery.Cost.Others())
	}},
}

// Print writes the table and the verdicts.
func (r Report) Print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	names := []string{"foreign entries in the server"}
	for _, s := range r.Sizes {
		names = append(names, fmt.Sprint(s.Foreign))
	}
	fmt.Fprintln(w, strings.Join(names, "\t"))
	for _, row := range rows {
		cells := []string{row.name}
		for _, s := range r.Sizes {
			cells = append(cells, row.cell(s))
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	fmt.Fprintln(w, "\ntarget\tfigure\t")
	for _, v := range r.Verdicts() {
		fmt.Fprintf(w, "%s\t%s\t%s\n", v.Target, v.Figure, v.Word())
	}
	fmt.Fprintf(w, "\n%s, commit %s, %d cores (%s), load %.1f before, niceness %d, Kubernetes %s, SPIRE %s\n",
		r.Date.Format("2006-01-02 15:04 MST"), r.Commit, r.Machine.Cores, r.Machine.CPU, r.Machine.Load, r.Machine.Nice, r.Machine.Kubernetes, r.Machine.SPIRE)
	return w.Flush()
}

func latency(l Latency) string { return fmt.Sprintf("%.1f / %.1f", l.P50, l.P99) }

func rates(s Start) string { return fmt.Sprintf("%.0f / %.0f", s.Bare.PerSecond, s.Manager.PerSecond) }

func shares(s Start) string {
	return fmt.Sprintf("%.0f %% / %.0f %%", 100*s.Ratio, 100*s.WritingRatio)
}

func perEntry(s Start) string {
	n := float64(max(s.Manager.Entries, 1))
	return fmt.Sprintf("%.2f / %.2f", float64(Total(s.Cost.RPCs))/n, float64(Total(s.Cost.APIRequests))/n)
}
