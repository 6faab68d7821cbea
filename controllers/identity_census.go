package controllers

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/jia-app/paymesh/internal/spire"
	"github.com/jia-app/paymesh/internal/spire/retention"
)

// Census counts the entries of all identities by what was last found to be true of them, for the metrics.
type Census struct {
	mu sync.Mutex
	of map[spire.Owner]tally
}

type tally struct{ registered, missing, refused, conflicts int }

// NewCensus makes a Census that has counted nothing; registerer takes its metrics, nil for none.
func NewCensus(registerer prometheus.Registerer, surplus *retention.Surplus) *Census {
	c := &Census{of: map[spire.Owner]tally{}}
	if registerer == nil {
		return c
	}
	for state, count := range map[string]func() int{
		"registered": func() int { return c.sum().registered },
		"missing":    func() int { return c.sum().missing },
		"refused":    func() int { return c.sum().refused },
		"surplus":    surplus.Len,
	} {
		registerer.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "paymesh_identity_entries", ConstLabels: prometheus.Labels{"state": state},
			Help: "Entries of the ServiceIdentities: registered, missing (wanted, and not in SPIRE as rendered), refused (of these, by SPIRE), surplus (needed no more, and kept for the grace time).",
		}, func() float64 { return float64(count()) }))
	}
	registerer.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "paymesh_identity_conflicts",
		Help: "Entries of the ServiceIdentities that cannot be made since one of somebody else's is in the way.",
	}, func() float64 { return float64(c.sum().conflicts) }))
	return c
}

// count takes over what a reconcile found.
func (c *Census) count(owner spire.Owner, o outcome) {
	if !o.decided {
		return
	}
	registered := int(o.count().Registered)
	t := tally{registered: registered, missing: len(o.want) - registered}
	for _, result := range o.failed {
		t.refused++
		if result.Conflict != nil {
			t.conflicts++
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.of[owner] = t
}

func (c *Census) forget(owner spire.Owner) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.of, owner)
}

func (c *Census) sum() (all tally) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.of {
		all.registered += t.registered
		all.missing += t.missing
		all.refused += t.refused
		all.conflicts += t.conflicts
	}
	return all
}
