package client

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/jia-app/paymesh/internal/spire"
	"github.com/jia-app/paymesh/test/lab"
)

// stub is a server that answers as it is told.
type stub struct {
	entryv1.UnimplementedEntryServer
	get    func() (*types.Entry, error)
	delete func(ids []string) *entryv1.BatchDeleteEntryResponse
}

func (s *stub) GetEntry(context.Context, *entryv1.GetEntryRequest) (*types.Entry, error) {
	return s.get()
}

func (s *stub) BatchDeleteEntry(_ context.Context, r *entryv1.BatchDeleteEntryRequest) (*entryv1.BatchDeleteEntryResponse, error) {
	return s.delete(r.Ids), nil
}

// serve starts a stub on loopback.
func serve(t *testing.T, s *stub) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	entryv1.RegisterEntryServer(server, s)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return listener.Addr().String()
}

func plain(t *testing.T, address string) *Client {
	t.Helper()
	c, err := (&Client{address: address}).connect("dns:///"+address, "tcp", insecure.NewCredentials(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestAPeerThatVanishedCostsOneTimeoutAndNoMore(t *testing.T) {
	proxy := lab.StartProxy(t, serve(t, &stub{get: func() (*types.Entry, error) { return &types.Entry{Id: "x"}, nil }}))
	c := plain(t, proxy.Address)
	if _, _, err := c.Get(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	proxy.Silence() // the connection stays open, and nothing comes of it any more
	c.timeouts.read = 100 * time.Millisecond
	if _, _, err := c.Get(t.Context(), "x"); status.Code(errors.Unwrap(err)) != codes.DeadlineExceeded {
		t.Fatalf("got %v, want a timeout", err)
	}
	c.timeouts.read = readTimeout
	begin := time.Now()
	if _, found, err := c.Get(t.Context(), "x"); err != nil || !found {
		t.Errorf("the call after the timeout: %v", err)
	}
	if took := time.Since(begin); took > readTimeout/2 || proxy.Connections() != 2 {
		t.Errorf("it took %s, and there were %d connections, want a new one", took, proxy.Connections())
	}
}

func TestACallThatTheCallerGivesUpLeavesTheConnectionAlone(t *testing.T) {
	release := make(chan struct{})
	proxy := lab.StartProxy(t, serve(t, &stub{get: func() (*types.Entry, error) {
		<-release
		return &types.Entry{Id: "x"}, nil
	}}))
	c := plain(t, proxy.Address)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, _, err := c.Get(ctx, "x"); err == nil {
		t.Error("the call succeeded")
	}
	close(release)
	if _, _, err := c.Get(t.Context(), "x"); err != nil || proxy.Connections() != 1 {
		t.Errorf("got %v over %d connections, want one", err, proxy.Connections())
	}
}

func TestPlansAreWrittenInBatchesAndResultsGoByPosition(t *testing.T) {
	var sizes []int
	c := plain(t, serve(t, &stub{delete: func(ids []string) *entryv1.BatchDeleteEntryResponse {
		sizes = append(sizes, len(ids))
		answer := &entryv1.BatchDeleteEntryResponse{}
		for range ids { // without IDs: only the position tells
			answer.Results = append(answer.Results, &entryv1.BatchDeleteEntryResponse_Result{Status: &types.Status{Code: int32(codes.Internal), Message: "no"}})
		}
		return answer
	}}))
	var plan spire.Plan
	for i := range 2*batchSize + 1 {
		plan.Delete = append(plan.Delete, strings.Repeat("x", i+1))
	}
	results, err := c.Apply(t.Context(), plan)
	if err != nil || len(sizes) != 3 || sizes[0] != batchSize || sizes[2] != 1 {
		t.Fatalf("batches of %v (%v)", sizes, err)
	}
	for i, result := range results {
		if result.ID != plan.Delete[i] || result.Code != "Internal" || result.Message != "no" {
			t.Fatalf("result %d is %+v", i, result)
		}
	}
}

func TestAnAnswerAboutTooFewEntriesIsAnError(t *testing.T) {
	c := plain(t, serve(t, &stub{delete: func([]string) *entryv1.BatchDeleteEntryResponse { return &entryv1.BatchDeleteEntryResponse{} }}))
	if results, err := c.Apply(t.Context(), spire.Plan{Delete: []string{"x"}}); err == nil || len(results) != 0 {
		t.Errorf("got %v, %v", results, err)
	}
}
