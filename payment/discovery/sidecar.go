package discovery

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// maxAdminPage bounds what is read of the sidecar: a proxy knows what its service depends on, not the cluster.
const maxAdminPage = 4 << 20

// Sidecar is what an Envoy says of itself at its admin endpoint.
type Sidecar struct {
	// State is LIVE where it serves; PRE_INITIALIZING, INITIALIZING or DRAINING before and after.
	State string `json:"state"`
	// Clusters are those that it learned by xDS, by name.
	Clusters map[string]Cluster `json:"clusters,omitempty"`
}

// Cluster counts the endpoints of one.
type Cluster struct {
	Endpoints int `json:"endpoints"`
	// Usable are those that outlier detection has not ejected.
	Usable int `json:"usable"`
}

// AskSidecar asks the Envoy whose admin endpoint is at address (host:port).
func AskSidecar(ctx context.Context, client *http.Client, address string) (Sidecar, error) {
	ready, err := adminPage(ctx, client, address, "/ready")
	if err != nil {
		return Sidecar{}, err
	}
	text, err := adminPage(ctx, client, address, "/clusters?format=json")
	if err != nil {
		return Sidecar{}, err
	}
	// envoy.admin.v3.Clusters, of which these fields are all that is needed.
	var page struct {
		Statuses []struct {
			Name  string `json:"name"`
			ByAPI bool   `json:"added_via_api"`
			Hosts []struct {
				Health struct {
					Ejected bool `json:"failed_outlier_check"`
				} `json:"health_status"`
			} `json:"host_statuses"`
		} `json:"cluster_statuses"`
	}
	if err := json.Unmarshal([]byte(text), &page); err != nil {
		return Sidecar{}, fmt.Errorf("read the clusters of the sidecar at %s: %w", address, err)
	}
	sidecar := Sidecar{State: strings.TrimSpace(ready), Clusters: map[string]Cluster{}}
	for _, status := range page.Statuses {
		if !status.ByAPI {
			continue
		}
		cluster := Cluster{Endpoints: len(status.Hosts)}
		for _, host := range status.Hosts {
			if !host.Health.Ejected {
				cluster.Usable++
			}
		}
		sidecar.Clusters[status.Name] = cluster
	}
	return sidecar, nil
}

func adminPage(ctx context.Context, client *http.Client, address, path string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, http.NoBody)
	if err != nil {
		return "", fmt.Errorf("ask the sidecar at %s: %w", address, err)
	}
	answer, err := client.Do(request)
	if err != nil {
		return "", fmt.Errorf("ask the sidecar at %s: %w", address, err)
	}
	defer answer.Body.Close() //nolint:errcheck // it was read
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAdminPage+1))
	if err != nil {
		return "", fmt.Errorf("read %s of the sidecar at %s: %w", path, address, err)
	}
	if len(text) > maxAdminPage {
		return "", fmt.Errorf("%s of the sidecar at %s has more than %d bytes", path, address, maxAdminPage)
	}
	// /ready answers 503 with the state where it is not LIVE.
	if answer.StatusCode != http.StatusOK && (path != "/ready" || answer.StatusCode != http.StatusServiceUnavailable) {
		return "", fmt.Errorf("%s of the sidecar at %s answers %s", path, address, answer.Status)
	}
	return string(text), nil
}
