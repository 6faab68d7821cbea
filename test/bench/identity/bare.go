package main

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/jia-app/paymesh/internal/spire"
	"github.com/jia-app/paymesh/test/lab"
)

// bare is a client of SPIRE's entry API that knows nothing of paymesh: what the manager is measured against, who makes the
// foreign entries, and who looks whether an entry is there.
type bare struct {
	entries entryv1.EntryClient
	mu      sync.Mutex
	calls   map[string]int
}

func newBare(t lab.T, socket string) *bare {
	t.Helper()
	b := &bare{calls: map[string]int{}}
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithChainUnaryInterceptor(b.count))
	if err != nil {
		t.Fatalf("make a client of %s: %v", socket, err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	b.entries = entryv1.NewEntryClient(conn)
	return b
}

func (b *bare) count(ctx context.Context, method string, request, answer any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	b.mu.Lock()
	b.calls[path.Base(method)]++
	b.mu.Unlock()
	return call(ctx, method, request, answer, conn, opts...)
}

// made are its own calls so far, by method.
func (b *bare) made() map[string]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.calls)
}

// create makes entries in batches, several at a time, and says how long that took.
func (b *bare) create(ctx context.Context, entries []*types.Entry) (time.Duration, error) {
	return inBatches(ctx, entries, func(ctx context.Context, batch []*types.Entry) error {
		answer, err := b.entries.BatchCreateEntry(ctx, &entryv1.BatchCreateEntryRequest{Entries: batch})
		if err != nil {
			return fmt.Errorf("create %d entries: %w", len(batch), err)
		}
		for i, result := range answer.Results {
			if codes.Code(result.Status.Code) != codes.OK {
				return fmt.Errorf("create entry %s: %s", batch[i].Id, result.Status.Message)
			}
		}
		return nil
	})
}

// remove deletes entries.
func (b *bare) remove(ctx context.Context, ids []string) error {
	_, err := inBatches(ctx, ids, func(ctx context.Context, batch []string) error {
		answer, err := b.entries.BatchDeleteEntry(ctx, &entryv1.BatchDeleteEntryRequest{Ids: batch})
		if err != nil {
			return fmt.Errorf("delete %d entries: %w", len(batch), err)
		}
		for i, result := range answer.Results {
			if codes.Code(result.Status.Code) != codes.OK {
				return fmt.Errorf("delete entry %s: %s", batch[i], result.Status.Message)
			}
		}
		return nil
	})
	return err
}

func inBatches[E any](ctx context.Context, all []E, send func(context.Context, []E) error) (time.Duration, error) {
	start := time.Now()
	running, ctx := errgroup.WithContext(ctx)
	running.SetLimit(batchesInFlight)
	for batch := range slices.Chunk(all, batchSize) {
		running.Go(func() error { return send(ctx, batch) })
	}
	err := running.Wait()
	return time.Since(start), err
}

// holds reports whether the server has an entry.
func (b *bare) holds(ctx context.Context, id string) (bool, error) {
	_, err := b.entries.GetEntry(ctx, &entryv1.GetEntryRequest{Id: id})
	if status.Code(err) == codes.NotFound {
		return false, nil
	}
	return err == nil, err
}

// since are the IDs of the entries that were made since a mark, and the next mark; the mark "" stands before all. What it
// costs the server grows with these entries alone. (CountEntries reads all that there are.)
func (b *bare) since(ctx context.Context, mark string) (ids []string, next string, err error) {
	for next = mark; ; {
		page, err := b.entries.ListEntries(ctx, &entryv1.ListEntriesRequest{PageSize: 1000, PageToken: next, OutputMask: &types.EntryMask{}})
		if err != nil {
			return nil, "", fmt.Errorf("list the entries: %w", err)
		}
		if len(page.Entries) == 0 {
			return ids, next, nil
		}
		for _, entry := range page.Entries {
			ids = append(ids, entry.Id)
		}
		if page.NextPageToken == "" {
			return nil, "", fmt.Errorf("a page of %d entries has no token for those to come", len(page.Entries))
		}
		next = page.NextPageToken
	}
}

// foreign are entries of somebody else's, by a hundred agents.
func foreign(n int) []*types.Entry {
	entries := make([]*types.Entry, n)
	for i := range entries {
		entries[i] = &types.Entry{
			Id:        fmt.Sprintf("foreign-%06d", i),
			SpiffeId:  &types.SPIFFEID{TrustDomain: lab.TrustDomain, Path: fmt.Sprintf("/foreign/workload-%d", i)},
			ParentId:  &types.SPIFFEID{TrustDomain: lab.TrustDomain, Path: fmt.Sprintf("/foreign/agent-%d", i%100)},
			Selectors: []*types.Selector{{Type: "k8s", Value: "ns:foreign"}, {Type: "k8s", Value: fmt.Sprintf("sa:workload-%d", i)}},
		}
	}
	return entries
}

// asProtos are the entries that the manager wants, for the bare client.
func asProtos(entries []spire.Entry) []*types.Entry {
	protos := make([]*types.Entry, len(entries))
	for i, entry := range entries {
		protos[i] = &types.Entry{Id: entry.ID, SpiffeId: asID(entry.SPIFFEID), ParentId: asID(entry.ParentID)}
		for _, selector := range entry.Selectors {
			kind, value, _ := strings.Cut(selector, ":")
			protos[i].Selectors = append(protos[i].Selectors, &types.Selector{Type: kind, Value: value})
		}
	}
	return protos
}

func asID(id string) *types.SPIFFEID {
	trustDomain, path, _ := strings.Cut(strings.TrimPrefix(id, "spiffe://"), "/")
	return &types.SPIFFEID{TrustDomain: trustDomain, Path: "/" + path}
}

func idsOf(entries []spire.Entry) []string {
	ids := make([]string, len(entries))
	for i, entry := range entries {
		ids[i] = entry.ID
	}
	return ids
}
