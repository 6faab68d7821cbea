// Package server serves what proxies get, and knows what they hold: config goes in by object, ADS over mTLS comes out,
// and what each connected proxy accepted or rejected.
package server

import (
	"context"
	"net/netip"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/xds"
)

// Source gives the server's own certificate and the roots to check others by; a workloadapi.X509Source is one.
type Source interface {
	x509svid.Source
	x509bundle.Source
}

// Options say what a Server is and where.
type Options struct {
	// Address is where it listens, as host:port.
	Address    string
	Source     Source
	Cluster    mesh.ClusterID
	Log        logr.Logger
	Registerer prometheus.Registerer
}

// Server serves xDS to the proxies of every object that Set has named. Each replica of the manager runs one.
type Server struct {
	options Options
}

// Proxy is a proxy that is connected now.
type Proxy struct {
	// Pod is the name of its pod, in the namespace of its object.
	Pod string
	// Synced means that it has accepted exactly the listeners, routes and clusters that are wanted.
	Synced bool
	// NACK is what it rejects of what is wanted; nil where it rejects nothing.
	NACK *NACK
}

// NACK is a rejection.
type NACK struct {
	// TypeURL is the type of the resources, Message the proxy's text, which often names none of them.
	TypeURL, Message string
	// Resources are the names of the rejected ones, sorted.
	Resources []string
}

// New makes a server that listens once it is started.
func New(o Options) *Server { return &Server{options: o} }

// NeedLeaderElection says that every replica serves.
func (s *Server) NeedLeaderElection() bool { return false }

// Start serves until ctx is done.
func (s *Server) Start(ctx context.Context) error { <-ctx.Done(); return nil }

// Set says what the proxies of an object get, and the SPIFFE ID that they must have.
func (s *Server) Set(key mesh.ProxyKey, id spiffeid.ID, r xds.Resources) error { return nil }

// Remove forgets an object.
func (s *Server) Remove(key mesh.ProxyKey) {}

// SetEndpoints says where a port of a service is reached.
func (s *Server) SetEndpoints(key mesh.EndpointKey, addresses []netip.AddrPort) {}

// Proxies are the proxies of an object that are connected to this server, sorted by pod.
func (s *Server) Proxies(key mesh.ProxyKey) []Proxy { return nil }

// Notify has f called when what Proxies says of an object may have changed.
func (s *Server) Notify(f func(mesh.ProxyKey)) {}
