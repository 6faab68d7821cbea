package mtls

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	// The library waits 1 s to 30 s between attempts by itself, and gRPC up to 2 minutes to connect: a new pod would wait as
	// long after its entry, or its agent, is there.
	firstRetry = 250 * time.Millisecond
	lastRetry  = 2 * time.Second
	// reminder is how often the log says that there is still no certificate.
	reminder = 30 * time.Second
)

// watched is the identity that the Workload API gives and renews.
type watched struct {
	address string
	want    spiffeid.ID
	log     *slog.Logger
	client  *workloadapi.Client
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu      sync.Mutex
	svid    *x509svid.SVID
	bundles *x509bundle.Set
	failure string        // why the last attempt gave nothing; empty where it gave what is wanted
	changed chan struct{} // closed at the next change
}

func openWorkloadAPI(address string, want spiffeid.ID, log *slog.Logger) (Identity, error) {
	ctx, cancel := context.WithCancel(context.Background())
	client, err := workloadapi.New(ctx, workloadapi.WithAddr(address), workloadapi.WithBackoffStrategy(retries{}), workloadapi.WithDialOptions(
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: firstRetry, Multiplier: 2, MaxDelay: lastRetry}, MinConnectTimeout: lastRetry}),
	))
	if err != nil {
		cancel()
		return nil, fmt.Errorf("mtls.workload_api: %w", err)
	}
	w := &watched{address: address, want: want, log: log, client: client, cancel: cancel, bundles: x509bundle.NewSet(), failure: "it has not answered yet", changed: make(chan struct{})}
	w.running.Go(func() { w.watch(ctx) })
	w.running.Go(func() { w.remind(ctx) })
	return w, nil
}

// watch begins again where the library ends: it takes an agent that shuts down for a caller that gave up.
func (w *watched) watch(ctx context.Context) {
	for ctx.Err() == nil {
		_ = w.client.WatchX509Context(ctx, w) // each error comes to OnX509ContextWatchError
		select {
		case <-ctx.Done():
		case <-time.After(lastRetry):
		}
	}
}

// OnX509ContextUpdate takes what the Workload API gives. Where the wanted SVID is not among it, the one before it stays
// until it ends: peers decide.
func (w *watched) OnX509ContextUpdate(update *workloadapi.X509Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.wake()
	w.bundles = update.Bundles
	var others []string
	for _, svid := range update.SVIDs {
		if svid.ID == w.want {
			w.take(svid)
			return
		}
		others = append(others, svid.ID.String())
	}
	slices.Sort(others) // SPIRE's order is not always the same
	w.fail(fmt.Sprintf("it gives this process %s and not %s, which service_mesh.spiffe_id wants", strings.Join(others, ", "), w.want))
}

func (w *watched) take(svid *x509svid.SVID) {
	switch {
	case w.svid == nil || !w.svid.Certificates[0].Equal(svid.Certificates[0]):
		w.log.Info("the certificate is there", "spiffe_id", svid.ID.String(), "until", svid.Certificates[0].NotAfter.UTC().Format(time.RFC3339), "renewed", w.svid != nil)
	case w.failure != "":
		w.log.Info("the certificate can be renewed again", "spiffe_id", svid.ID.String(), "workload_api", w.address)
	}
	w.svid, w.failure = svid, ""
}

// OnX509ContextWatchError takes what went wrong. The library tries again.
func (w *watched) OnX509ContextWatchError(err error) {
	if err == nil || status.Code(err) == codes.Canceled { // it ends: if it is not this process that does, the next attempt tells
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.wake()
	w.fail(err.Error())
}

// fail tells of each failure once, and not of each attempt.
func (w *watched) fail(failure string) {
	if failure == w.failure {
		return
	}
	w.failure = failure
	message := "no certificate yet"
	if w.svid != nil {
		message = "the certificate cannot be renewed: the one before it stays until it ends"
	}
	w.log.Warn(message, "spiffe_id", w.want.String(), "workload_api", w.address, "error", failure)
}

func (w *watched) wake() {
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *watched) GetX509SVID() (*x509svid.SVID, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.svid == nil {
		return nil, w.missing()
	}
	return w.svid, nil
}

func (w *watched) missing() error {
	return fmt.Errorf("wait for the certificate of %s from the Workload API at %s: %s", w.want, w.address, w.failure)
}

func (w *watched) GetX509BundleForTrustDomain(domain spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bundles.GetX509BundleForTrustDomain(domain)
}

func (w *watched) Ready() error {
	_, err := w.ready()
	return err
}

func (w *watched) ready() (changed <-chan struct{}, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.svid == nil {
		return w.changed, w.missing()
	}
	return w.changed, current(w.svid, time.Now())
}

func (w *watched) Wait(ctx context.Context) error {
	for {
		changed, err := w.ready()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; given up: %w", err, context.Cause(ctx))
		case <-changed:
		}
	}
}

// remind says from time to time that there is no certificate yet, until there is one: a log's last line should tell what a
// process does.
func (w *watched) remind(ctx context.Context) {
	since := time.Now()
	tick := time.NewTicker(reminder)
	defer tick.Stop()
	for {
		changed, err := w.ready()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-tick.C:
			w.log.Warn("still no certificate: nothing is served until there is one", "for", time.Since(since).Round(time.Second).String(), "error", err.Error())
		}
	}
}

func (w *watched) Close() error {
	w.cancel()
	w.running.Wait()
	return w.client.Close()
}

// retries are quick at first, since an entry reaches an agent within seconds.
type retries struct{}

// NewBackoff is for the library.
func (retries) NewBackoff() workloadapi.Backoff { return &retry{} }

type retry struct{ next time.Duration }

// Next is how long to wait before the next attempt.
func (r *retry) Next() time.Duration {
	r.next = min(max(2*r.next, firstRetry), lastRetry)
	return r.next
}

// Reset begins again.
func (r *retry) Reset() { r.next = 0 }
