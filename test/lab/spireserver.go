package lab

import (
	"bytes"
	"cmp"
	"context"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"text/template"
	"time"

	bundlev1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/bundle/v1"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// TrustDomain is that of the lab's SPIRE servers, and ClusterName what their k8s_psat attestor calls the API server's
// cluster.
const (
	TrustDomain = "jia.app"
	ClusterName = "main"
)

// SPIREOptions say what a SPIRE server needs beside itself.
type SPIREOptions struct {
	// APIServer checks the agents' tokens; nil where there will be no agents.
	APIServer *APIServer
	// AdminIDs are SPIFFE IDs that may do everything over TCP.
	AdminIDs []string
	// CacheReload is how often the server reads all of its entries for its agents; 100 ms where it is zero. SPIRE's own
	// default is 5 s: with many entries the short one keeps a core busy.
	CacheReload time.Duration
	// EventsBasedCache has it read what changed instead.
	EventsBasedCache bool
	// LogLevel is DEBUG where it is empty.
	LogLevel string
	// Telemetry has it serve its own metrics.
	Telemetry bool
}

// SPIREServer is a spire-server with its database in a file, so that it can be stopped and started again.
type SPIREServer struct {
	// Address is host:port of its TCP endpoint, and Socket the path of its admin socket. Neither changes by a restart.
	Address, Socket string
	// Metrics is where it serves its own, where it was told to.
	Metrics string
	// Entries is the entry API on the admin socket, as SPIRE has it.
	Entries entryv1.EntryClient

	options SPIREOptions
	dir     string
	binary  string
	conn    *grpc.ClientConn
	running *process
}

var serverConfig = template.Must(template.New("server.conf").Parse(`server {
  bind_address = "127.0.0.1"
  bind_port = "{{.Port}}"
  socket_path = "{{.Socket}}"
  trust_domain = "{{.TrustDomain}}"
  data_dir = "{{.Dir}}"
  log_level = "{{.LogLevel}}"
  ca_ttl = "24h"
  default_x509_svid_ttl = "1h"
  admin_ids = [{{range .AdminIDs}}"{{.}}", {{end}}]
  ratelimit { attestation = false signing = false }
  experimental {
    cache_reload_interval = "{{.CacheReload}}"
    events_based_cache = {{.EventsBasedCache}}
  }
}
{{- if .MetricsPort}}
telemetry { Prometheus { host = "127.0.0.1" port = {{.MetricsPort}} } }
{{- end}}
plugins {
  DataStore "sql" { plugin_data { database_type = "sqlite3" connection_string = "{{.Dir}}/entries.sqlite3" } }
  KeyManager "disk" { plugin_data { keys_path = "{{.Dir}}/keys.json" } }
  {{- if .KubeConfig}}
  NodeAttestor "k8s_psat" { plugin_data { clusters = { "{{.ClusterName}}" = {
    service_account_allow_list = ["{{.ServiceAccount}}"]
    kube_config_file = "{{.KubeConfig}}"
  } } } }
  {{- else}}
  NodeAttestor "join_token" { plugin_data {} }
  {{- end}}
}
`))

// StartSPIREServer starts a SPIRE server with no entries.
func StartSPIREServer(t T, options SPIREOptions) *SPIREServer {
	t.Helper()
	s := &SPIREServer{options: options, dir: dir(t, "spire-server"), binary: Binary(t, "spire-server")}
	port := FreePort(t)
	s.Address, s.Socket = fmt.Sprintf("127.0.0.1:%d", port), filepath.Join(s.dir, "api.sock")
	values := map[string]any{
		"CacheReload": cmp.Or(options.CacheReload, 100*time.Millisecond), "EventsBasedCache": options.EventsBasedCache,
		"LogLevel": cmp.Or(options.LogLevel, "DEBUG"),
		"Port":     port, "Socket": s.Socket, "TrustDomain": TrustDomain, "Dir": s.dir, "AdminIDs": options.AdminIDs,
		"ClusterName": ClusterName, "ServiceAccount": agentNamespace + ":" + agentServiceAccount,
	}
	if options.APIServer != nil {
		values["KubeConfig"] = options.APIServer.KubeConfig
	}
	if options.Telemetry {
		metricsPort := FreePort(t)
		values["MetricsPort"], s.Metrics = metricsPort, fmt.Sprintf("http://127.0.0.1:%d/metrics", metricsPort)
	}
	writeConfig(t, filepath.Join(s.dir, "server.conf"), serverConfig, values)
	s.conn = dialUnix(t, s.Socket)
	s.Entries = entryv1.NewEntryClient(s.conn)
	t.Cleanup(s.Stop)
	s.Start(t)
	return s
}

// Start starts the server again, on the data that it had.
func (s *SPIREServer) Start(t T) {
	t.Helper()
	s.running = start(t, s.dir, s.binary, "run", "-config", filepath.Join(s.dir, "server.conf"))
	s.running.await(t, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		answer, err := grpc_health_v1.NewHealthClient(s.conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
		if err == nil && answer.Status != grpc_health_v1.HealthCheckResponse_SERVING {
			err = fmt.Errorf("its health is %s", answer.Status)
		}
		return err
	})
}

// Stop ends the server. Its data stays.
func (s *SPIREServer) Stop() {
	if s.running != nil {
		s.running.stop()
		s.running = nil
	}
}

// Bundle is the trust bundle, as PEM.
func (s *SPIREServer) Bundle(t T) []byte {
	t.Helper()
	bundle, err := bundlev1.NewBundleClient(s.conn).GetBundle(context.Background(), &bundlev1.GetBundleRequest{})
	if err != nil {
		t.Fatalf("read the trust bundle: %v", err)
	}
	var text bytes.Buffer
	for _, authority := range bundle.X509Authorities {
		_ = pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: authority.Asn1})
	}
	return text.Bytes()
}

// dialUnix makes a client that does not wait long before it tries again, as clients of a server that is starting do.
func dialUnix(t T, socket string) *grpc.ClientConn {
	t.Helper()
	again := backoff.DefaultConfig
	again.BaseDelay, again.MaxDelay = pollInterval, pollInterval
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: again, MinConnectTimeout: time.Second}))
	if err != nil {
		t.Fatalf("make a client of %s: %v", socket, err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func writeConfig(t T, path string, text *template.Template, values any) {
	t.Helper()
	var config bytes.Buffer
	if err := text.Execute(&config, values); err != nil {
		t.Fatalf("make %s: %v", path, err)
	}
	if err := os.WriteFile(path, config.Bytes(), 0o600); err != nil {
		t.Fatalf("write %s: %v", path, err)
	}
}
