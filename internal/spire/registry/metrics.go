package registry

import "github.com/prometheus/client_golang/prometheus"

// drift is how an entry differed from what was remembered.
type drift string

const (
	driftMissing    drift = "missing"
	driftChanged    drift = "changed"
	driftUnexpected drift = "unexpected"
)

type metrics struct {
	drift    *prometheus.CounterVec
	repaired prometheus.Counter
	audits   prometheus.Counter
}

// newMetrics makes the metrics of a registry; a second registry with the same registerer is a mistake of the program.
func newMetrics(registerer prometheus.Registerer, entries func() int, state func() State) metrics {
	m := metrics{
		drift: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "paymesh_spire_drift_total",
			Help: "Entries of this cluster in the SPIRE server that were found missing, changed or unexpected.",
		}, []string{"kind"}),
		repaired: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "paymesh_spire_drift_repaired_total",
			Help: "Entries that were found missing, changed or unexpected, and have been put right.",
		}),
		audits: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "paymesh_spire_audits_total",
			Help: "How often all entries of the SPIRE server have been read through.",
		}),
	}
	for _, kind := range []drift{driftMissing, driftChanged, driftUnexpected} {
		m.drift.WithLabelValues(string(kind)) // so that each is zero before it happens
	}
	if registerer == nil {
		return m
	}
	registerer.MustRegister(m.drift, m.repaired, m.audits,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "paymesh_spire_entries",
			Help: "Entries of this cluster that the SPIRE server was last seen to hold.",
		}, func() float64 { return float64(entries()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "paymesh_spire_up",
			Help: "1 where the SPIRE server answers and all of its entries have been read, else 0.",
		}, func() float64 {
			if s := state(); !s.Synced || s.Err != nil {
				return 0
			}
			return 1
		}))
	return m
}
