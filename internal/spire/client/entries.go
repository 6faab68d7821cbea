package client

import (
	"context"
	"fmt"
	"slices"

	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/jia-app/paymesh/internal/spire"
)

const (
	// PageSize is how many entries a page has: with IDs and revisions only, 100 KB and 25 ms of the server.
	PageSize = 1000
	// batchSize is how many entries are written by one call: most of what batching gains, and one call that fails leaves
	// few whose fate is unknown.
	batchSize = 50
)

// Query says which page to read.
type Query struct {
	// RevisionsOnly reads the ID of each entry, its revision, when it was created, and what it federates with, which changes
	// without a revision when a bundle is deleted; and nothing else.
	RevisionsOnly bool
	// Size is the most entries that the page may have; PageSize where it is zero.
	Size int32
	// Token is the Next of the page before; empty for the first page.
	Token string
	// SPIFFEID reads only the entries with this SPIFFE ID, where it is set.
	SPIFFEID string
}

// Page is a page of the server's entries, whoever they belong to, in the order in which they were created.
type Page struct {
	Entries []spire.Held
	// Next is the token of the next page; empty where there is none. A page may be short without being the last one.
	Next string
}

// List reads a page.
func (c *Client) List(ctx context.Context, q Query) (Page, error) {
	request := &entryv1.ListEntriesRequest{PageSize: q.Size, PageToken: q.Token}
	if request.PageSize == 0 {
		request.PageSize = PageSize
	}
	if q.RevisionsOnly {
		request.OutputMask = &types.EntryMask{RevisionNumber: true, CreatedAt: true, FederatesWith: true}
	}
	if q.SPIFFEID != "" {
		request.Filter = &entryv1.ListEntriesRequest_Filter{BySpiffeId: toID(q.SPIFFEID)}
	}
	answer, err := c.entries.ListEntries(ctx, request)
	if err != nil {
		return Page{}, fmt.Errorf("list the entries of the SPIRE server at %s: %w", c.address, err)
	}
	page := Page{Entries: make([]spire.Held, len(answer.Entries)), Next: answer.NextPageToken}
	for i, entry := range answer.Entries {
		page.Entries[i] = fromProto(entry)
	}
	return page, nil
}

// Get reads an entry; false where the server has none with this ID.
func (c *Client) Get(ctx context.Context, id string) (spire.Held, bool, error) {
	entry, err := c.entries.GetEntry(ctx, &entryv1.GetEntryRequest{Id: id})
	switch status.Code(err) {
	case codes.OK:
		return fromProto(entry), true, nil
	case codes.NotFound:
		return spire.Held{}, false, nil
	}
	return spire.Held{}, false, fmt.Errorf("read entry %s of the SPIRE server at %s: %w", id, c.address, err)
}

// Apply writes a plan: first its creates, then its updates, then its deletes, in calls of up to 50. There is a result for
// each entry that the server answered about; an error means that it did not answer about the others, whose fate is then
// unknown. An entry to create whose ID the server already has is updated instead, and one to delete that it does not
// have counts as deleted, so that a plan may be applied twice. An entry to update that it does not have is NotFound.
func (c *Client) Apply(ctx context.Context, plan spire.Plan) ([]spire.Result, error) {
	results, existing, err := c.create(ctx, plan.Create)
	if err != nil {
		return results, err
	}
	for _, op := range []struct {
		name    spire.Op
		entries []spire.Entry
	}{{spire.OpCreate, existing}, {spire.OpUpdate, plan.Update}} {
		updated, err := c.update(ctx, op.name, op.entries)
		results = append(results, updated...)
		if err != nil {
			return results, err
		}
	}
	deleted, err := c.delete(ctx, plan.Delete)
	return append(results, deleted...), err
}

// create returns, beside the results, the entries that the server holds under their own ID in another form.
func (c *Client) create(ctx context.Context, entries []spire.Entry) (results []spire.Result, existing []spire.Entry, err error) {
	for chunk := range slices.Chunk(entries, batchSize) {
		request := &entryv1.BatchCreateEntryRequest{Entries: toProtos(chunk)}
		answer, err := c.entries.BatchCreateEntry(ctx, request)
		if err := c.check(err, spire.OpCreate, len(chunk), len(answer.GetResults())); err != nil {
			return results, existing, err
		}
		for i, item := range answer.Results {
			result := written(spire.OpCreate, chunk[i], item.Status, item.Entry)
			if result.Code == spire.CodeAlreadyExists {
				if err := c.resolve(ctx, chunk[i], item.Entry, &result); err != nil {
					return results, existing, err
				}
			}
			if result.Code == spire.CodeAlreadyExists && result.Entry != nil {
				existing = append(existing, chunk[i])
				continue
			}
			results = append(results, result)
		}
	}
	return results, existing, nil
}

// resolve finds out what AlreadyExists means: the server says it of an entry with the same parent, SPIFFE ID and
// selectors, which it then returns, and of one with the same ID only, which it does not.
// The result is OK after it where the entry is there as wanted; Entry is set where it is there in another form.
func (c *Client) resolve(ctx context.Context, want spire.Entry, similar *types.Entry, result *spire.Result) error {
	var have spire.Held
	switch {
	case similar == nil:
		found, ok, err := c.Get(ctx, want.ID)
		if err != nil || !ok {
			return err
		}
		have = found
	case similar.Id != want.ID:
		other := fromProto(similar)
		result.Conflict = &other
		return nil
	default:
		have = fromProto(similar)
	}
	result.Entry = &have
	if have.Equal(want) {
		result.Code, result.Message = "", ""
	}
	return nil
}

func (c *Client) update(ctx context.Context, op spire.Op, entries []spire.Entry) ([]spire.Result, error) {
	var results []spire.Result
	for chunk := range slices.Chunk(entries, batchSize) {
		request := &entryv1.BatchUpdateEntryRequest{Entries: toProtos(chunk), InputMask: rendered}
		answer, err := c.entries.BatchUpdateEntry(ctx, request)
		if err := c.check(err, spire.OpUpdate, len(chunk), len(answer.GetResults())); err != nil {
			return results, err
		}
		for i, item := range answer.Results {
			results = append(results, written(op, chunk[i], item.Status, item.Entry))
		}
	}
	return results, nil
}

func (c *Client) delete(ctx context.Context, ids []string) ([]spire.Result, error) {
	var results []spire.Result
	for chunk := range slices.Chunk(ids, batchSize) {
		answer, err := c.entries.BatchDeleteEntry(ctx, &entryv1.BatchDeleteEntryRequest{Ids: chunk})
		if err := c.check(err, spire.OpDelete, len(chunk), len(answer.GetResults())); err != nil {
			return results, err
		}
		for i, item := range answer.Results {
			result := spire.Result{ID: chunk[i], Op: spire.OpDelete, Code: code(item.Status), Message: item.Status.GetMessage()}
			if result.Code == spire.CodeNotFound {
				result.Code = ""
			}
			if result.OK() {
				result.Message = ""
			}
			results = append(results, result)
		}
	}
	return results, nil
}

// check turns what went wrong with a whole call into an error. Results have no other name than their position.
func (c *Client) check(err error, op spire.Op, sent, got int) error {
	if err != nil {
		return fmt.Errorf("%s %d entries of the SPIRE server at %s: %w", op, sent, c.address, err)
	}
	if got != sent {
		return fmt.Errorf("%s %d entries of the SPIRE server at %s: it answered about %d", op, sent, c.address, got)
	}
	return nil
}
