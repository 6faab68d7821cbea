package server

import (
	"context"
	"fmt"
	"time"

	"github.com/jia-app/paymesh/payment/process"
)

// storeTimeout is for /health: a probe must not wait for a disk that hangs.
const storeTimeout = 2 * time.Second

// state says whether calls may be sent, and where it is known, why not.
func (s *Server) state(ctx context.Context) (string, error) {
	if s.identity != nil {
		if err := s.identity.Ready(); err != nil {
			return "WAITING_FOR_IDENTITY", err
		}
	}
	select {
	case <-s.opened:
	default:
		return "WAITING_FOR_STORE", fmt.Errorf("wait for the process that holds %s.lock to end", s.config.Store.Path)
	}
	limited, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err := s.store.Ping(limited); err != nil {
		return "STORE_UNAVAILABLE", nil // the log of the calls that fail says more than this page should
	}
	state, reason := s.process.State(limited)
	if state == process.Serving && !s.serving.Load() {
		return "STARTING", nil
	}
	return state, reason
}
