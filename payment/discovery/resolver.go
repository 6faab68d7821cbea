package discovery

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/resolver"
)

// quickest is how soon DNS is asked again, whoever wants it: gRPC asks for that at each connection that fails.
const quickest = time.Second

// Builders resolve the targets that Target makes, for grpc.WithResolvers. They take the place of gRPC's own dns.
func (d *Discovery) Builders() []resolver.Builder {
	return []resolver.Builder{builder{d, DNS}, builder{d, SRV}}
}

type builder struct {
	*Discovery
	scheme string
}

func (b builder) Scheme() string { return b.scheme }

// Build starts to watch one service. An error of DNS keeps the last good answer: gRPC goes on with it.
func (b builder) Build(target resolver.Target, conn resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	ctx, cancel := context.WithCancel(context.Background())
	w := &watch{Discovery: b.Discovery, address: target.Endpoint(), conn: conn, again: make(chan struct{}, 1), stop: cancel}
	w.running.Go(func() { w.run(ctx) })
	return w, nil
}

// watch is gRPC's view of one service.
type watch struct {
	*Discovery
	address string
	conn    resolver.ClientConn
	again   chan struct{}
	stop    context.CancelFunc
	running sync.WaitGroup
}

// ResolveNow asks for another look; it does not wait.
func (w *watch) ResolveNow(resolver.ResolveNowOptions) {
	select {
	case w.again <- struct{}{}:
	default:
	}
}

// Close ends the watch and waits for it.
func (w *watch) Close() {
	w.stop()
	w.running.Wait()
}

func (w *watch) run(ctx context.Context) {
	var known []netip.AddrPort
	failing := false
	for {
		found, err := w.look(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			if !failing {
				w.log.Warn("discovery", "service", w.address, "error", err.Error(), "known", len(known))
			}
			w.conn.ReportError(err)
		case !slices.Equal(found, known) || failing:
			w.log.Info("discovery", "service", w.address, "addresses", found)
			known = found
			w.tell(found)
		}
		failing = err != nil
		if !w.wait(ctx, failing) {
			return
		}
	}
}

func (w *watch) look(ctx context.Context) ([]netip.AddrPort, error) {
	limited, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	return w.Resolve(limited, w.address)
}

func (w *watch) tell(found []netip.AddrPort) {
	state := resolver.State{}
	for _, address := range found {
		state.Addresses = append(state.Addresses, resolver.Address{Addr: address.String()})
	}
	_ = w.conn.UpdateState(state) // gRPC says no to an empty state only, and calls ResolveNow then
}

// wait is until the next look is due; false where there will be none.
func (w *watch) wait(ctx context.Context, failing bool) bool {
	soon := min(quickest, w.interval)
	select {
	case <-ctx.Done():
		return false
	case <-time.After(soon):
	}
	if failing {
		return true
	}
	select {
	case <-ctx.Done():
		return false
	case <-w.again:
	case <-time.After(w.interval - soon):
	}
	return true
}
