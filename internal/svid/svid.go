// Package svid keeps the manager's own X.509-SVID: the address of a Workload API goes in, what to present and what to check
// others by comes out.
package svid

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

// workloadAPIRetryDelay is how long to wait before the Workload API is asked again: it refuses a workload whose entry has
// not reached the agent yet, and tells nobody when it has. (go-spiffe's own delay grows to 30 s.)
const workloadAPIRetryDelay = time.Second

// Source is the SVID to present, as the Workload API gave it last, with the trust bundles to check others with. It may be
// used before it is started: then, and as long as there is no SVID, it says why. It is a go-spiffe x509svid.Source and
// x509bundle.Source.
type Source struct {
	id      spiffeid.ID
	address string
	now     func() time.Time

	mu      sync.RWMutex
	svid    *x509svid.SVID
	bundles *x509bundle.Set
	err     error // what the Workload API said last, nil where it gave an SVID
}

// New makes a source of the SVID with this SPIFFE ID, from the Workload API at an address such as
// unix:///run/spire/agent/api.sock. It needs Start.
func New(id spiffeid.ID, address string) *Source {
	return &Source{id: id, address: address, now: time.Now, err: errors.New("it has not been asked")}
}

// ID is the SPIFFE ID of the SVID.
func (s *Source) ID() spiffeid.ID { return s.id }

// NeedLeaderElection is false: a manager that only waits to lead already has its SVID when it does.
func (s *Source) NeedLeaderElection() bool { return false }

// Start takes what the Workload API gives, until ctx ends. It is a controller-runtime Runnable.
func (s *Source) Start(ctx context.Context) error {
	for ctx.Err() == nil {
		client, err := workloadapi.New(ctx, workloadapi.WithAddr(s.address), workloadapi.WithBackoffStrategy(steady{}))
		if err != nil {
			return fmt.Errorf("the address of the Workload API, %q: %w", s.address, err)
		}
		err = client.WatchX509Context(ctx, s) // returns before ctx ends only where it was told that the request is invalid
		s.OnX509ContextWatchError(err)
		_ = client.Close()
		wait(ctx, workloadAPIRetryDelay)
	}
	return nil
}

// OnX509ContextUpdate takes the SVID with our ID.
func (s *Source) OnX509ContextUpdate(update *workloadapi.X509Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.svid, s.bundles = nil, update.Bundles
	s.err = fmt.Errorf("it gives other SVIDs, and none for %s: check that this ID's entry selects this pod", s.id)
	for _, svid := range update.SVIDs {
		if svid.ID == s.id {
			s.svid, s.err = svid, nil
		}
	}
}

// OnX509ContextWatchError keeps the SVID: it holds as long as it says.
func (s *Source) OnX509ContextWatchError(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.err = err
	}
}

// Ready says why there is no SVID to present.
func (s *Source) Ready() error {
	_, err := s.GetX509SVID()
	return err
}

// GetX509SVID is the SVID to present.
func (s *Source) GetX509SVID() (*x509svid.SVID, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.svid == nil {
		return nil, fmt.Errorf("no SVID from the Workload API at %s yet: %w", s.address, s.err)
	}
	if end := s.svid.Certificates[0].NotAfter; s.now().After(end) {
		last := s.err
		if last == nil {
			last = errors.New("no word from it since: check the SPIRE agent of this node")
		}
		return nil, fmt.Errorf("the SVID from the Workload API at %s expired at %s, and it gave no other: %w", s.address, end.Format(time.RFC3339), last)
	}
	return s.svid, nil
}

// GetX509BundleForTrustDomain is the bundle to check a server's SVID with.
func (s *Source) GetX509BundleForTrustDomain(trustDomain spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.bundles == nil {
		return nil, fmt.Errorf("no trust bundle from the Workload API at %s yet: %w", s.address, s.err)
	}
	return s.bundles.GetX509BundleForTrustDomain(trustDomain)
}

// steady waits the same time before each attempt.
type steady struct{}

func (steady) NewBackoff() workloadapi.Backoff { return steady{} }
func (steady) Next() time.Duration             { return workloadAPIRetryDelay }
func (steady) Reset()                          {}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
