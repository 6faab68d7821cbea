// Package services has the other services that a process calls: the configuration goes in, a client for each comes out,
// and how each of them is.
package services

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/jia-app/paymesh/payment/config"
	"github.com/jia-app/paymesh/payment/contactv1"
	"github.com/jia-app/paymesh/payment/discovery"
	"github.com/jia-app/paymesh/payment/documentv1"
	"github.com/jia-app/paymesh/payment/familyv1"
	"github.com/jia-app/paymesh/payment/mtls"
	"github.com/jia-app/paymesh/payment/pool"
)

// Options say which services there are and how they are reached.
type Options struct {
	// Services are those of external_services; one without an address is not used.
	Services config.ExternalServices
	// Discovery is service_mesh.discovery, and CircuitBreaker circuit_breaker.
	Discovery      config.Discovery
	CircuitBreaker config.CircuitBreaker
	// Source is the process's identity. nil, connections are in plaintext: to the sidecar on loopback, or in development.
	Source mtls.Source
	// Resolver asks DNS; nil, it is the system's. Package dnstest has the other end for tests.
	Resolver *net.Resolver
	// Registerer takes the metrics of calls, circuit breakers and health.
	Registerer prometheus.Registerer
	Log        *slog.Logger
	// Dial are more options of each connection, as tracing has them.
	Dial []grpc.DialOption
	// Interval is how often each service is asked how it is, and DNS where it is; zero, every 10 seconds.
	Interval time.Duration
}

// Manager has a connection to each service.
type Manager struct {
	options                   Options
	pool                      *pool.Pool
	admin                     *http.Client
	contact, family, document *peer // nil where it is not used
}

// New makes the connections. It waits for no service: the first call connects.
func New(o Options) (*Manager, error) {
	connections, err := pool.New(pool.Options{
		Source: o.Source, Discovery: discovery.New(o.Discovery, discovery.Options{Resolver: o.Resolver, Interval: o.Interval, Log: o.Log}), CircuitBreaker: o.CircuitBreaker,
		Registerer: o.Registerer, Log: o.Log, Dial: o.Dial,
	})
	if err != nil {
		return nil, err
	}
	m := &Manager{options: o, pool: connections, admin: &http.Client{Timeout: checkTimeout, Transport: &http.Transport{}}}
	for _, use := range []struct {
		service config.ExternalService
		as      **peer
	}{{o.Services.ContactService, &m.contact}, {o.Services.FamilyService, &m.family}, {o.Services.DocumentService, &m.document}} {
		if use.service.Address == "" {
			continue
		}
		if *use.as, err = m.connect(use.service); err != nil {
			return nil, errors.Join(err, m.Close())
		}
	}
	return m, nil
}

func (m *Manager) connect(service config.ExternalService) (*peer, error) {
	conn, err := m.pool.Connect(service)
	if err != nil {
		return nil, err
	}
	p := &peer{conn: conn, log: m.options.Log}
	if err := m.options.Registerer.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "external_service_healthy", Help: "1 where the service said that it serves, or answered at all, when it was asked last.", ConstLabels: prometheus.Labels{"target": service.Name},
	}, p.gauge)); err != nil {
		return nil, fmt.Errorf("register the metric of %s's health: %w", service.Name, err)
	}
	return p, nil
}

// Contact is the contact service's client.
func (m *Manager) Contact() (contactv1.ContactServiceClient, error) {
	return clientOf(m.contact, "contact_service", contactv1.NewContactServiceClient)
}

// Family is the family service's client.
func (m *Manager) Family() (familyv1.FamilyServiceClient, error) {
	return clientOf(m.family, "family_service", familyv1.NewFamilyServiceClient)
}

// Document is the document service's client.
func (m *Manager) Document() (documentv1.DocumentServiceClient, error) {
	return clientOf(m.document, "document_service", documentv1.NewDocumentServiceClient)
}

func clientOf[T any](p *peer, key string, client func(grpc.ClientConnInterface) T) (T, error) {
	if p == nil {
		var none T
		return none, fmt.Errorf("external_services.%s.address is empty: set it where the service is used", key)
	}
	return client(p.conn), nil
}

func (m *Manager) peers() []*peer {
	var used []*peer
	for _, p := range []*peer{m.contact, m.family, m.document} {
		if p != nil {
			used = append(used, p)
		}
	}
	return used
}

// Run asks each service how it is, again and again, until ctx ends. What changes is logged.
func (m *Manager) Run(ctx context.Context) {
	var running sync.WaitGroup
	for _, p := range m.peers() {
		running.Go(func() { p.watch(ctx, m.interval()) })
	}
	running.Wait()
}

// Close ends all connections, after Run has ended.
func (m *Manager) Close() error {
	m.admin.CloseIdleConnections()
	return m.pool.Close()
}
