package client

import (
	"slices"
	"strings"

	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"

	"github.com/jia-app/paymesh/internal/spire"
)

// rendered are the fields that an update sets. The others (additional attributes) stay as somebody may have set them.
var rendered = &types.EntryMask{
	SpiffeId: true, ParentId: true, Selectors: true, X509SvidTtl: true, JwtSvidTtl: true, DnsNames: true, Hint: true,
	FederatesWith: true, Admin: true, Downstream: true, StoreSvid: true, ExpiresAt: true,
}

func toProtos(entries []spire.Entry) []*types.Entry {
	list := make([]*types.Entry, len(entries))
	for i := range entries {
		list[i] = toProto(&entries[i])
	}
	return list
}

func toProto(e *spire.Entry) *types.Entry {
	entry := &types.Entry{
		Id: e.ID, SpiffeId: toID(e.SPIFFEID), ParentId: toID(e.ParentID),
		X509SvidTtl: e.X509SVIDTTL, JwtSvidTtl: e.JWTSVIDTTL, DnsNames: e.DNSNames, Hint: e.Hint, FederatesWith: e.FederatesWith,
		Admin: e.Admin, Downstream: e.Downstream, StoreSvid: e.StoreSVID, ExpiresAt: e.ExpiresAt,
	}
	for _, selector := range e.Selectors {
		kind, value, _ := strings.Cut(selector, ":")
		entry.Selectors = append(entry.Selectors, &types.Selector{Type: kind, Value: value})
	}
	return entry
}

func fromProto(e *types.Entry) spire.Held {
	held := spire.Held{
		Entry: spire.Entry{
			ID: e.Id, SPIFFEID: fromID(e.SpiffeId), ParentID: fromID(e.ParentId),
			X509SVIDTTL: e.X509SvidTtl, JWTSVIDTTL: e.JwtSvidTtl, DNSNames: e.DnsNames, Hint: e.Hint, FederatesWith: e.FederatesWith,
			Admin: e.Admin, Downstream: e.Downstream, StoreSVID: e.StoreSvid, ExpiresAt: e.ExpiresAt,
		},
		Revision: e.RevisionNumber, CreatedAt: e.CreatedAt,
	}
	for _, selector := range e.Selectors {
		held.Selectors = append(held.Selectors, selector.Type+":"+selector.Value)
	}
	// SPIRE returns them in any order.
	slices.Sort(held.Selectors)
	slices.Sort(held.FederatesWith)
	return held
}

// toID splits a SPIFFE ID; what is none is for the server to refuse.
func toID(id string) *types.SPIFFEID {
	trustDomain, path, _ := strings.Cut(strings.TrimPrefix(id, "spiffe://"), "/")
	if path != "" {
		path = "/" + path
	}
	return &types.SPIFFEID{TrustDomain: trustDomain, Path: path}
}

// fromID is empty where the answer left the ID out.
func fromID(id *types.SPIFFEID) string {
	if id == nil {
		return ""
	}
	return "spiffe://" + id.TrustDomain + id.Path
}

// written is the result of a create or an update that the server answered about.
func written(op spire.Op, sent spire.Entry, s *types.Status, answer *types.Entry) spire.Result {
	result := spire.Result{ID: sent.ID, Op: op, Code: code(s)}
	if !result.OK() {
		result.Message = s.GetMessage()
		return result
	}
	if answer != nil {
		held := fromProto(answer)
		// SPIRE keeps the order of DNS names, and everything but the answer to a write shows it.
		if sameSet(held.DNSNames, sent.DNSNames) {
			held.DNSNames = sent.DNSNames
		}
		result.Entry = &held
	}
	return result
}

func sameSet(x, y []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(x)), slices.Sorted(slices.Values(y)))
}

func code(s *types.Status) spire.Code {
	code := codes.Code(uint32(s.GetCode())) //nolint:gosec // the codes of gRPC are 0 to 16
	if code == codes.OK {
		return ""
	}
	return spire.Code(code.String())
}
