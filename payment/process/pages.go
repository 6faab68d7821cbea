package process

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// Serving is the state of a process that may be sent calls.
const Serving = "SERVING"

// Pages are /health (may this process be sent calls; state says so, and where it is known, why not), /health/services (how
// those are that it calls, and its sidecar) and /metrics. A service that is down keeps the process healthy: restarting it
// would mend nothing.
func (p *Process) Pages(state func(context.Context) (string, error), services http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, r *http.Request) {
		state, reason := state(r.Context())
		code, page := http.StatusOK, map[string]string{"status": state}
		if state != Serving {
			code = http.StatusServiceUnavailable
		}
		if reason != nil {
			page["reason"] = reason.Error()
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		if err := json.NewEncoder(w).Encode(page); err != nil {
			p.log.Debug("a page was not read to its end", "error", err.Error())
		}
	})
	mux.Handle("GET /health/services", services)
	mux.Handle("GET /metrics", promhttp.HandlerFor(p.Registry, promhttp.HandlerOpts{}))
	return mux
}

// State is what gRPC's health service says of the whole process.
func (p *Process) State(ctx context.Context) (string, error) {
	answer, err := p.Health.Check(ctx, &healthv1.HealthCheckRequest{})
	if err != nil {
		return "UNKNOWN", nil //nolint:nilerr // that is the state
	}
	return answer.GetStatus().String(), nil
}
