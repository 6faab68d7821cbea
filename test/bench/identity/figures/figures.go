// Package figures is what the bench of the identity side measures: samples and counts go in; a report as JSON, a table, and
// which targets were met come out. It measures nothing itself.
package figures

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"
)

// Report is one run.
type Report struct {
	Date     time.Time `json:"date"`
	Commit   string    `json:"commit"`
	Machine  Machine   `json:"machine"`
	Settings Settings  `json:"settings"`
	// Sizes are the runs, by the foreign entries that the server had.
	Sizes []Size `json:"sizes"`
}

// Machine is what it ran on.
type Machine struct {
	Cores  int    `json:"cores"`
	CPU    string `json:"cpu"`
	Kernel string `json:"kernel"`
	// Load is the load average of the minute before, Nice the niceness of all that the bench ran: below 0, it was served
	// before what else ran.
	Load       float64 `json:"load"`
	Nice       int     `json:"nice"`
	Go         string  `json:"go"`
	Kubernetes string  `json:"kubernetes"`
	SPIRE      string  `json:"spire"`
}

// Settings are what was asked for.
type Settings struct {
	// Identities are those that come from nothing, on Nodes nodes, each with a pod.
	Identities int `json:"identities"`
	Nodes      int `json:"nodes"`
	// Samples is how many events of each kind there are, one each PaceMillis.
	Samples    int     `json:"samples"`
	PaceMillis float64 `json:"paceMillis"`
	// SVIDs is how many identities are followed to their certificate.
	SVIDs       int     `json:"svids"`
	Restarts    int     `json:"restarts"`
	IdleSeconds float64 `json:"idleSeconds"`
	// BatchSize and BatchesInFlight are how the bare client creates entries.
	BatchSize       int `json:"batchSize"`
	BatchesInFlight int `json:"batchesInFlight"`
	// The next are SPIRE's: how often its cache reads, whether events or all entries, and how often an agent asks.
	CacheReloadMillis float64 `json:"cacheReloadMillis"`
	EventsBasedCache  bool    `json:"eventsBasedCache"`
	AgentSyncMillis   float64 `json:"agentSyncMillis"`
}

// Size is what was measured with a number of foreign entries in the server.
type Size struct {
	// Foreign is how many entries of somebody else's the server has.
	Foreign int `json:"foreign"`
	// Fill is how the bare client made these, from an empty server.
	Fill Rate `json:"fill"`
	// BareSingle is how long the bare client waits for the creation of a single entry.
	BareSingle Latency `json:"bareSingle"`
	// Patches is how fast the API server takes one patch of each identity, by a client that does nothing else: no manager that
	// puts a finalizer on each can be faster.
	Patches Rate `json:"patches"`
	// FromNothing is a manager that starts where the objects are there and were never reconciled.
	FromNothing Start `json:"fromNothing"`
	// Recovery is a manager that starts where everything was registered, and the server has lost it.
	Recovery Start `json:"recovery"`
	// Object are ServiceIdentities that are created for a pod that runs, Pod are pods bound to a node that is new for their identity.
	Object Events `json:"object"`
	Pod    Events `json:"pod"`
	// Restart are pods that are deleted and created again where they were.
	Restart Restart `json:"restart"`
	Idle    Idle    `json:"idle"`
	SVID    SVID    `json:"svid"`
}

// Rate is how fast entries came.
type Rate struct {
	Entries   int     `json:"entries"`
	Seconds   float64 `json:"seconds"`
	PerSecond float64 `json:"perSecond"`
}

// NewRate makes one.
func NewRate(entries int, took time.Duration) Rate {
	return Rate{Entries: entries, Seconds: Round(took.Seconds()), PerSecond: Round(float64(entries) / took.Seconds())}
}

// Start is how a manager that starts makes all of its entries, beside the bare client that made the same ones before, on the same server.
type Start struct {
	Bare Rate `json:"bare"`
	// Manager counts from the start of its process.
	Manager Rate `json:"manager"`
	// Ratio is the manager's rate over the bare client's.
	Ratio float64 `json:"ratio"`
	// FirstWriteSeconds is when the first entry was there, and WritingRatio as Ratio, from then on.
	FirstWriteSeconds float64 `json:"firstWriteSeconds"`
	WritingRatio      float64 `json:"writingRatio"`
	// SettledSeconds is when the manager had nothing more to do: the statuses were written too.
	SettledSeconds float64 `json:"settledSeconds"`
	// Cost is that of the manager until the entries were there.
	Cost Cost `json:"cost"`
}

// NewStart compares.
func NewStart(bare, manager Rate, firstWrite, settled time.Duration, cost Cost) Start {
	s := Start{
		Bare: bare, Manager: manager, Ratio: Round(manager.PerSecond / bare.PerSecond), Cost: cost,
		FirstWriteSeconds: Round(firstWrite.Seconds()), SettledSeconds: Round(settled.Seconds()),
	}
	if writing := manager.Seconds - firstWrite.Seconds(); writing > 0 {
		s.WritingRatio = Round(float64(manager.Entries) / writing / bare.PerSecond)
	}
	return s
}

// Cost is what something cost.
type Cost struct {
	Seconds float64 `json:"seconds"`
	// RPCs are the manager's calls to SPIRE, by method, as it counts them; ServerRPCs are all that the server answered
	// and that the bench did not ask for, as the server counts them: also those of its agent.
	RPCs       map[string]int `json:"rpcs"`
	ServerRPCs map[string]int `json:"serverRPCs"`
	// APIRequests are the manager's requests to the API server, by verb; watches count once.
	APIRequests map[string]int `json:"apiRequests"`
	// InSPIRESeconds is how long the manager's calls to SPIRE took, together.
	InSPIRESeconds float64 `json:"inSPIRESeconds"`
	// CPUSeconds are those of each process.
	CPUSeconds map[string]float64 `json:"cpuSeconds"`
	// OthersCPUSeconds are those of whatever else ran on the machine.
	OthersCPUSeconds float64 `json:"othersCPUSeconds"`
}

// Writes counts the calls that write entries.
func (c Cost) Writes() int { return writes(c.RPCs) }

// ServerWrites counts those that the server saw.
func (c Cost) ServerWrites() int { return writes(c.ServerRPCs) }

func writes(rpcs map[string]int) int {
	return rpcs["BatchCreateEntry"] + rpcs["BatchUpdateEntry"] + rpcs["BatchDeleteEntry"]
}

// Others is how many cores others used.
func (c Cost) Others() float64 { return c.OthersCPUSeconds / c.Seconds }

// Total adds up counts.
func Total(counts map[string]int) int {
	total := 0
	for _, n := range counts {
		total += n
	}
	return total
}

// Events are samples of the time from an event to the entry.
type Events struct {
	// FromRequest counts from before the request to the API server, FromAnswer from its answer.
	FromRequest Latency `json:"fromRequest"`
	FromAnswer  Latency `json:"fromAnswer"`
	// RPCs is how many calls to SPIRE the manager made for each event; the audit's reading, which goes on all the time, is not counted.
	RPCs float64 `json:"rpcs"`
	Cost Cost    `json:"cost"`
}

// NewEvents makes one of the samples.
func NewEvents(fromRequest, fromAnswer []time.Duration, cost Cost) Events {
	calls := Total(cost.RPCs) - cost.RPCs["ListEntries"]
	return Events{
		FromRequest: NewLatency(fromRequest), FromAnswer: NewLatency(fromAnswer), Cost: cost,
		RPCs: Round(float64(calls) / float64(len(fromRequest))),
	}
}

// Restart is what the restart of many pods cost.
type Restart struct {
	Pods int `json:"pods"`
	// Seconds is until the manager had nothing more to do, and APISeconds how long the API server took for the pods alone.
	Seconds    float64 `json:"seconds"`
	APISeconds float64 `json:"apiSeconds"`
	// Writes are calls that write entries: the manager's count and the server's, whichever is higher.
	Writes int  `json:"writes"`
	Cost   Cost `json:"cost"`
}

// Idle is a while in which nothing happened.
type Idle struct {
	RPCsPerSecond   float64 `json:"rpcsPerSecond"`
	CPUPercent      float64 `json:"cpuPercent"`
	SPIRECPUPercent float64 `json:"spireCPUPercent"`
	// RSSBytes is the manager's memory at the end, PeakBytes the most it had since it started.
	RSSBytes  int64 `json:"rssBytes"`
	PeakBytes int64 `json:"peakBytes"`
	Cost      Cost  `json:"cost"`
}

// NewIdle takes the rates out of a cost.
func NewIdle(cost Cost, manager, server string) Idle {
	return Idle{
		RPCsPerSecond: Round(float64(Total(cost.RPCs)) / cost.Seconds), CPUPercent: Round(100 * cost.CPUSeconds[manager] / cost.Seconds),
		SPIRECPUPercent: Round(100 * cost.CPUSeconds[server] / cost.Seconds), Cost: cost,
	}
}

// SVID is the time to the certificate, as an agent gives it.
type SVID struct {
	// Created counts from before the ServiceIdentity is asked for, to the SVID on a stream that was open.
	Created Latency `json:"created"`
	// Restarted counts from when a pod was there again to the SVID on a stream that is opened then.
	Restarted Latency `json:"restarted"`
}

// Latency sums up samples.
type Latency struct {
	Samples int     `json:"samples"`
	P50     float64 `json:"p50Millis"`
	P90     float64 `json:"p90Millis"`
	P99     float64 `json:"p99Millis"`
	Max     float64 `json:"maxMillis"`
}

// NewLatency takes percentiles by the nearest rank: each is a sample that was measured.
func NewLatency(samples []time.Duration) Latency {
	sorted := slices.Sorted(slices.Values(samples))
	at := func(share float64) float64 {
		if len(sorted) == 0 {
			return 0
		}
		rank := int(math.Ceil(share * float64(len(sorted))))
		return Round(float64(sorted[max(rank, 1)-1]) / float64(time.Millisecond))
	}
	return Latency{Samples: len(sorted), P50: at(0.5), P90: at(0.9), P99: at(0.99), Max: at(1)}
}

// Round keeps three digits behind the point: more would only look exact.
func Round(x float64) float64 { return math.Round(x*1000) / 1000 }

// JSON is the report as it is stored.
func (r Report) JSON() ([]byte, error) {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the report: %w", err)
	}
	return append(text, '\n'), nil
}

// Parse reads a stored report. A field that it does not know is an error.
func Parse(text []byte) (Report, error) {
	var r Report
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&r); err != nil {
		return Report{}, fmt.Errorf("read the report: %w", err)
	}
	return r, nil
}
