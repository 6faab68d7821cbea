package services

import (
	"cmp"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/jia-app/paymesh/payment/discovery"
	"github.com/jia-app/paymesh/payment/pool"
)

const (
	checkInterval = 10 * time.Second
	// checkTimeout is for one question: whoever looks at the page waits for it.
	checkTimeout = 2 * time.Second
	// freshFor keeps whoever reloads the page from asking services more often.
	freshFor = time.Second
	// quietFor is for a service that answers and does not say how it is: its sidecar writes each refusal down. It is asked
	// earlier where calls begin to fail, or succeed again.
	quietFor = 5 * time.Minute
)

// Health is what is known of a service.
type Health struct {
	Name    string `json:"-"`
	Address string `json:"address"`
	// SPIFFEID is who must answer; empty where the sidecar sees to it.
	SPIFFEID string `json:"spiffe_id,omitempty"`
	// Healthy says that it serves, or at least answers, and that calls are not ended at once.
	Healthy bool `json:"healthy"`
	// Detail says why not, or that it answers and does not say more.
	Detail string `json:"detail,omitempty"`
	// Connection is gRPC's state; behind a sidecar it is the connection to that.
	Connection string `json:"connection"`
	// CircuitBreaker is closed, half-open or open; empty where there is none.
	CircuitBreaker string `json:"circuit_breaker,omitempty"`
	// Asked is when the service was asked last.
	Asked time.Time `json:"asked"`
}

// Health asks all services that were not asked within the last second, and returns what is known of each.
func (m *Manager) Health(ctx context.Context) []Health {
	peers := m.peers()
	all := make([]Health, len(peers))
	var asking sync.WaitGroup
	for i, p := range peers {
		asking.Go(func() { all[i] = p.health(ctx, freshFor) })
	}
	asking.Wait()
	return all
}

// ServeHTTP is the page /health/services. It answers 200 whatever it tells: this process is not down because another is.
func (m *Manager) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	page := struct {
		Healthy  bool              `json:"healthy"`
		Services map[string]Health `json:"services"`
		Sidecar  any               `json:"sidecar,omitempty"`
	}{Healthy: true, Services: map[string]Health{}}
	for _, health := range m.Health(r.Context()) {
		page.Services[health.Name] = health
		page.Healthy = page.Healthy && health.Healthy
	}
	if address := m.options.Discovery.EnvoyAddress; address != "" {
		sidecar, err := discovery.AskSidecar(r.Context(), m.admin, address)
		page.Sidecar = sidecar
		if err != nil {
			page.Sidecar = map[string]string{"error": err.Error()}
		}
		page.Healthy = page.Healthy && sidecar.State == "LIVE"
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(page); err != nil {
		m.options.Log.Debug("a page was not read to its end", "error", err.Error())
	}
}

func (m *Manager) interval() time.Duration { return cmp.Or(m.options.Interval, checkInterval) }

// peer is one service.
type peer struct {
	conn *pool.Conn
	log  *slog.Logger

	mu    sync.Mutex // one asks, and the others take its answer
	asked time.Time
	told  bool
	err   error

	seen  sync.Mutex // never held while one asks
	value float64
}

func (p *peer) watch(ctx context.Context, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		p.health(ctx, interval/2) // so that a tick is never too early
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// health asks the service, unless the last answer is fresh.
func (p *peer) health(ctx context.Context, fresh time.Duration) Health {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil && !p.told && !p.conn.Failing() {
		fresh = max(fresh, quietFor)
	}
	if p.asked.IsZero() || time.Since(p.asked) >= fresh {
		p.ask(ctx)
	}
	service := p.conn.Service()
	h := Health{
		Name: service.Name, Address: service.Address, SPIFFEID: service.SPIFFEID, Asked: p.asked,
		Connection: p.conn.GetState().String(), CircuitBreaker: p.conn.Breaker(),
	}
	h.Healthy = !p.asked.IsZero() && p.err == nil && h.CircuitBreaker != "open"
	switch {
	case p.asked.IsZero():
		h.Detail = "it was not asked yet"
	case p.err != nil:
		h.Detail = p.err.Error()
	case !h.Healthy:
		h.Detail = "calls failed too often: they are ended at once for a while"
	case !p.told:
		h.Detail = "it answers, and does not say more: let this caller call grpc.health.v1.Health/Check"
	}
	return h
}

func (p *peer) ask(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	told, err := p.conn.Check(limited)
	if ctx.Err() != nil {
		return // who asks is gone: that says nothing of the service
	}
	changed := p.asked.IsZero() || (err == nil) != (p.err == nil)
	p.asked, p.told, p.err = time.Now(), told, err
	p.seen.Lock()
	p.value = 0
	if err == nil {
		p.value = 1
	}
	p.seen.Unlock()
	switch name := p.conn.Service().Name; {
	case changed && err != nil:
		p.log.Warn("health", "service", name, "healthy", false, "error", err.Error())
	case changed:
		p.log.Info("health", "service", name, "healthy", true, "told", told)
	}
}

func (p *peer) gauge() float64 {
	p.seen.Lock()
	defer p.seen.Unlock()
	return p.value
}
