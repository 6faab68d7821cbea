package server

import (
	"context"
	"sync"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/time/rate"
)

// The bounds are for one SPIFFE ID, so that a workload gone wild harms no other. All pods of a service share an ID, and
// all of them come at once after a replica of the manager went: that has to pass, for the 1,000 replicas that a
// MeshService may have and those that take their place.
const (
	maxStreams    = 2000
	streamBurst   = 2000
	streamsPerSec = 100
	// maxEntering streams are read from that are not bound yet; the others stand in line. It takes a stream milliseconds,
	// and one of an object that is not known here as long as unboundPatience.
	maxEntering = 32
	// maxNameBytes bounds what is kept of names and versions: for 1,000 proxies with 50 dependencies each.
	maxNameBytes = 48 << 20
	// nameBytes is what a name costs beside its text.
	nameBytes = 100
)

// limits bound the streams of each SPIFFE ID, at once and in a row, and what is kept for them.
type limits struct {
	mu   sync.Mutex
	byID map[spiffeid.ID]*allowance
}

type allowance struct {
	open int
	rate *rate.Limiter
	// entering has one for each stream that is read from and not bound.
	entering chan struct{}
	// names is what names cost that are kept.
	names int
}

func newLimits() *limits { return &limits{byID: map[spiffeid.ID]*allowance{}} }

// take gives the allowance of another stream, or nil where none may be opened; give has to follow.
func (l *limits) take(id spiffeid.ID) *allowance {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.byID[id]
	if a == nil {
		a = &allowance{rate: rate.NewLimiter(streamsPerSec, streamBurst), entering: make(chan struct{}, maxEntering)}
		l.byID[id] = a
	}
	if a.open >= maxStreams || !a.rate.Allow() {
		return nil
	}
	a.open++
	return a
}

func (l *limits) give(id spiffeid.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.byID[id]
	a.open--
	// What has not been used for a while is forgotten when the last stream goes, or with the next one that does.
	if a.open == 0 && a.rate.Tokens() >= streamBurst-1 {
		delete(l.byID, id)
	}
}

// charge says whether names may cost that much more; less is always possible.
func (l *limits) charge(a *allowance, more int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if more > 0 && a.names+more > maxNameBytes {
		return false
	}
	a.names += more
	return true
}

// enter waits in line for being read from; leave has to follow where it returns nil.
func (a *allowance) enter(ctx context.Context) error {
	select {
	case a.entering <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (a *allowance) leave() { <-a.entering }
