package server

import (
	"sync"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/time/rate"
)

// The bounds are for one SPIFFE ID, so that a workload gone wild harms no other. All pods of a service share an ID, and
// all of them come at once after a replica of the manager went: that has to pass.
const (
	maxStreams    = 4000
	streamBurst   = 2000
	streamsPerSec = 100
)

// limits bound the streams of each SPIFFE ID, at once and in a row.
type limits struct {
	mu   sync.Mutex
	byID map[spiffeid.ID]*allowance
}

type allowance struct {
	open int
	rate *rate.Limiter
}

func newLimits() *limits { return &limits{byID: map[spiffeid.ID]*allowance{}} }

// take says whether another stream may be opened; give has to follow where it may.
func (l *limits) take(id spiffeid.ID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.byID[id]
	if a == nil {
		a = &allowance{rate: rate.NewLimiter(streamsPerSec, streamBurst)}
		l.byID[id] = a
	}
	if a.open >= maxStreams || !a.rate.Allow() {
		return false
	}
	a.open++
	return true
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
