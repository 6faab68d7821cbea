package client

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

// identity is the SVID that we present, as the Workload API gave it last, with the trust bundles to check others with.
type identity struct {
	id      spiffeid.ID
	address string
	now     func() time.Time

	mu      sync.RWMutex
	svid    *x509svid.SVID
	bundles *x509bundle.Set
	err     error // what the Workload API said last, nil where it gave an SVID
}

func newIdentity(id spiffeid.ID, address string) *identity {
	return &identity{id: id, address: address, now: time.Now, err: errors.New("it has not been asked")}
}

// watch takes what the Workload API gives, until ctx ends.
func (i *identity) watch(ctx context.Context) error {
	for ctx.Err() == nil {
		client, err := workloadapi.New(ctx, workloadapi.WithAddr(i.address), workloadapi.WithBackoffStrategy(steady{}))
		if err != nil {
			return fmt.Errorf("the address of the Workload API, %q: %w", i.address, err)
		}
		err = client.WatchX509Context(ctx, i) // returns before ctx ends only where it was told that the request is invalid
		i.OnX509ContextWatchError(err)
		_ = client.Close()
		wait(ctx, workloadAPIRetryDelay)
	}
	return nil
}

// OnX509ContextUpdate takes the SVID with our ID.
func (i *identity) OnX509ContextUpdate(update *workloadapi.X509Context) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.svid, i.bundles = nil, update.Bundles
	i.err = fmt.Errorf("it gives other SVIDs, and none for %s: check that this ID's entry selects this pod", i.id)
	for _, svid := range update.SVIDs {
		if svid.ID == i.id {
			i.svid, i.err = svid, nil
		}
	}
}

// OnX509ContextWatchError keeps the SVID: it holds as long as it says.
func (i *identity) OnX509ContextWatchError(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if err != nil {
		i.err = err
	}
}

// ready says why there is no SVID to present.
func (i *identity) ready() error {
	_, err := i.GetX509SVID()
	return err
}

// GetX509SVID is the SVID to present.
func (i *identity) GetX509SVID() (*x509svid.SVID, error) {
	i.mu.RLock()
	defer i.mu.RUnlock()
	if i.svid == nil {
		return nil, fmt.Errorf("no SVID from the Workload API at %s yet: %w", i.address, i.err)
	}
	if end := i.svid.Certificates[0].NotAfter; i.now().After(end) {
		last := i.err
		if last == nil {
			last = errors.New("no word from it since: check the SPIRE agent of this node")
		}
		return nil, fmt.Errorf("the SVID from the Workload API at %s expired at %s, and it gave no other: %w", i.address, end.Format(time.RFC3339), last)
	}
	return i.svid, nil
}

// GetX509BundleForTrustDomain is the bundle to check a server's SVID with.
func (i *identity) GetX509BundleForTrustDomain(trustDomain spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	i.mu.RLock()
	defer i.mu.RUnlock()
	if i.bundles == nil {
		return nil, fmt.Errorf("no trust bundle from the Workload API at %s yet: %w", i.address, i.err)
	}
	return i.bundles.GetX509BundleForTrustDomain(trustDomain)
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
