package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// storeTimeout is for /health: a probe must not wait for a disk that hangs.
const storeTimeout = 2 * time.Second

// pages are /health (may this process be sent calls), /health/services (how those are that it calls, and its sidecar) and
// /metrics. A service that is down keeps the process healthy: restarting it would mend nothing.
func (s *Server) pages() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, r *http.Request) {
		state, reason := s.state(r.Context())
		code, page := http.StatusOK, map[string]string{"status": state}
		if state != healthv1.HealthCheckResponse_SERVING.String() {
			code = http.StatusServiceUnavailable
		}
		if reason != nil {
			page["reason"] = reason.Error()
		}
		s.answer(w, code, page)
	})
	mux.Handle("GET /health/services", s.services)
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{}))
	return mux
}

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
	answer, err := s.health.Check(limited, &healthv1.HealthCheckRequest{})
	switch {
	case err != nil:
		return "UNKNOWN", nil
	case !s.serving.Load() && answer.GetStatus() == healthv1.HealthCheckResponse_SERVING:
		return "STARTING", nil
	}
	return answer.GetStatus().String(), nil
}

func (s *Server) answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		s.log.Debug("a page was not read to its end", "error", err.Error())
	}
}
