package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

// watch asks the Workload API for X.509 SVIDs, and logs what it gets and each change until it is told to stop. It never logs
// a key.
func watch(ctx context.Context, args []string, out io.Writer) error {
	if len(args) > 0 {
		return errors.New("watch has no arguments: SPIFFE_ENDPOINT_SOCKET names the Workload API")
	}
	client, err := workloadapi.New(ctx)
	if err != nil {
		return fmt.Errorf("no Workload API: set SPIFFE_ENDPOINT_SOCKET to its address: %w", err)
	}
	defer client.Close() //nolint:errcheck // the process ends
	log := slog.New(slog.NewJSONHandler(out, nil))
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
