package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// envoyArguments make Envoy quick to see through: its log of accesses comes at once and not after 10 s, and several run
// beside one another.
var envoyArguments = []string{"--concurrency", "1", "--disable-hot-restart", "--log-level", "warning", "--file-flush-interval-msec", "50"}

// EnvoyOptions say how an Envoy is started.
type EnvoyOptions struct {
	// Bootstrap is its file, as YAML.
	Bootstrap string
	// Node and Cluster are what it calls itself.
	Node, Cluster string
	// Admin is host:port of its admin endpoint, as in Bootstrap.
	Admin string
	// Arguments are added to the command line.
	Arguments []string
}

// Envoy is a running Envoy.
type Envoy struct {
	admin   string
	process *process
}

// StartEnvoy starts the stock Envoy. It waits for its admin endpoint and for nothing else: what comes by xDS may be late.
func StartEnvoy(t T, o EnvoyOptions) *Envoy {
	t.Helper()
	dir := dir(t, "Envoy "+o.Node)
	path := filepath.Join(dir, "envoy.yaml")
	if err := os.WriteFile(path, []byte(o.Bootstrap), 0o600); err != nil {
		t.Fatalf("write %s: %v", path, err)
	}
	arguments := append([]string{"-c", path, "--service-node", o.Node, "--service-cluster", o.Cluster}, envoyArguments...)
	e := &Envoy{admin: o.Admin, process: start(t, dir, Binary(t, "envoy"), append(arguments, o.Arguments...)...)}
	t.Cleanup(e.Stop)
	e.process.await(t, func() error {
		_, err := e.Admin("/ready")
		return err
	})
	return e
}

// Stop ends it.
func (e *Envoy) Stop() { e.process.stop() }

// Admin is what the admin endpoint answers to a GET, whatever the status.
func (e *Envoy) Admin(path string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+e.admin+path, nil)
	if err != nil {
		return "", err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close() //nolint:errcheck // read to the end
	body, err := io.ReadAll(answer.Body)
	return string(body), err
}

// AccessLog are the lines of JSON that it has written so far.
func (e *Envoy) AccessLog() []map[string]any {
	text, err := os.ReadFile(e.process.log)
	if err != nil {
		return nil
	}
	var lines []map[string]any
	for line := range bytes.Lines(text) {
		var one map[string]any
		if json.Unmarshal(line, &one) == nil {
			lines = append(lines, one)
		}
	}
	return lines
}

// Log is what it has written so far beside these.
func (e *Envoy) Log() string {
	text, err := os.ReadFile(e.process.log)
	if err != nil {
		return err.Error()
	}
	var log strings.Builder
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "{") {
			log.WriteString(line)
		}
	}
	return log.String()
}

// Metric is a counter or gauge of /stats/prometheus, as it stands there: its name and its labels. 0 where there is none.
func (e *Envoy) Metric(series string) (float64, error) {
	page, err := e.Admin("/stats/prometheus")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(page) {
		value, ok := strings.CutPrefix(strings.TrimSpace(line), series+" ")
		if !ok {
			continue
		}
		var n float64
		if _, err := fmt.Sscan(value, &n); err != nil {
			return 0, fmt.Errorf("%s: %w", line, err)
		}
		return n, nil
	}
	return 0, nil
}
