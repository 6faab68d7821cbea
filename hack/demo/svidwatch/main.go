// Command svidwatch is the demo's workload: it asks the SPIFFE Workload API for its X.509 SVIDs and logs what it gets, and
// each change, as a line of JSON. It never logs a key.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

func main() {
	log := slog.New(slog.NewJSONHandler(os.Stdout, nil))
	if err := run(log); err != nil {
		log.Error("svidwatch ends", "error", err)
		os.Exit(1)
	}
}

// run watches until it is told to stop.
func run(log *slog.Logger) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	client, err := workloadapi.New(ctx)
	if err != nil {
		return fmt.Errorf("no Workload API: set SPIFFE_ENDPOINT_SOCKET to its address: %w", err)
	}
	defer client.Close() //nolint:errcheck // the process ends
	if err := client.WatchX509Context(ctx, &watcher{log: log}); ctx.Err() == nil {
		return fmt.Errorf("watch the Workload API: %w", err)
	}
	return nil
}

// watcher logs what the Workload API says.
type watcher struct {
	log       *slog.Logger
	lastError string
}

// svid is what of an SVID may be shown.
type svid struct {
	SPIFFEID  string    `json:"spiffeID"`
	DNSNames  []string  `json:"dnsNames"`
	Hint      string    `json:"hint,omitempty"`
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
}

// LogValue shows an SVID as an object with the names above.
func (s svid) LogValue() slog.Value {
	text, err := json.Marshal(s)
	if err != nil {
		return slog.StringValue(err.Error())
	}
	return slog.AnyValue(json.RawMessage(text))
}

func (w *watcher) OnX509ContextUpdate(update *workloadapi.X509Context) {
	w.lastError = ""
	for _, got := range update.SVIDs {
		leaf := got.Certificates[0]
		w.log.Info("got an SVID", "svid", svid{
			SPIFFEID: got.ID.String(), DNSNames: leaf.DNSNames, Hint: got.Hint, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter,
		})
	}
}

func (w *watcher) OnX509ContextWatchError(err error) {
	if err.Error() == w.lastError {
		return
	}
	w.lastError = err.Error()
	w.log.Warn("no SVID", "error", err.Error())
}
