package server

import (
	"context"
	"encoding/json"
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
		state := s.state(r.Context())
		code := http.StatusOK
		if state != "SERVING" {
			code = http.StatusServiceUnavailable
		}
		s.answer(w, code, map[string]string{"status": state})
	})
	mux.Handle("GET /health/services", s.services)
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{}))
	return mux
}

func (s *Server) state(ctx context.Context) string {
	limited, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err := s.store.Ping(limited); err != nil {
		return "STORE_UNAVAILABLE"
	}
	answer, err := s.health.Check(limited, &healthv1.HealthCheckRequest{})
	if err != nil {
		return "UNKNOWN"
	}
	return answer.GetStatus().String()
}

func (s *Server) answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		s.log.Debug("a page was not read to its end", "error", err.Error())
	}
}
