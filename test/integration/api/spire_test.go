package api_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"

	"github.com/jia-app/paymesh/test/integration/api/verdict"
	"github.com/jia-app/paymesh/test/lab"
)

// The verdict in process restates SPIRE's rules, since its module is not a dependency; this holds it to them.
func TestSPIREAgreesWithTheVerdictInProcess(t *testing.T) {
	server := lab.StartSPIREServer(t, lab.SPIREOptions{})
	var cases []*types.Entry
	refused := map[*types.Entry]error{}
	add := func(path string, refusal error, dnsNames ...string) *types.Entry {
		n := len(cases)
		entry := &types.Entry{
			ParentId:  &types.SPIFFEID{TrustDomain: lab.TrustDomain, Path: "/spire/server"},
			SpiffeId:  &types.SPIFFEID{TrustDomain: lab.TrustDomain, Path: path},
			Selectors: []*types.Selector{{Type: "case", Value: fmt.Sprint(n)}}, // makes it unlike any other
			DnsNames:  dnsNames,
		}
		cases, refused[entry] = append(cases, entry), refusal
		return entry
	}
	for _, path := range paths() {
		add(path, verdict.SPIREPath(lab.TrustDomain, path))
	}
	for _, name := range dnsNamesToTry() {
		add("/payments", verdict.SPIREDNSName(name), name)
	}
	// SPIRE counts bytes, the CRD's bound of 255 characters: these are the longest hints with and without the CRD.
	add("/payments", nil).Hint = strings.Repeat("\U0001F600", 255)
	add("/payments", nil).Hint = strings.Repeat("a", 1024)
	add("/payments", errors.New("hint is too long")).Hint = strings.Repeat("a", 1025)

	created := 0
	for entry, status := range createEntries(t, server.Entries, cases) {
		want := codes.OK
		if refused[entry] != nil {
			want = codes.InvalidArgument
		} else {
			created++
		}
		if got := codes.Code(status.GetCode()); got != want {
			t.Errorf("path %q, DNS names %q:\nSPIRE says %v %s\nin process %v", entry.GetSpiffeId().GetPath(), entry.GetDnsNames(), got, status.GetMessage(), refused[entry])
		}
	}
	if created < len(cases)/10 || created > len(cases)*9/10 {
		t.Errorf("%d of %d entries are accepted", created, len(cases))
	}
	t.Logf("%d of %d entries are accepted", created, len(cases))
}

// createEntries returns what SPIRE says to each entry.
func createEntries(t *testing.T, client entryv1.EntryClient, entries []*types.Entry) map[*types.Entry]*types.Status {
	t.Helper()
	answers := map[*types.Entry]*types.Status{}
	for start := 0; start < len(entries); start += 50 {
		batch := entries[start:min(start+50, len(entries))]
		response, err := client.BatchCreateEntry(t.Context(), &entryv1.BatchCreateEntryRequest{Entries: batch})
		if err != nil {
			t.Fatal(err)
		}
		for i, result := range response.GetResults() {
			answers[batch[i]] = result.GetStatus()
		}
	}
	if len(answers) != len(entries) {
		t.Fatalf("SPIRE answered for %d of %d entries", len(answers), len(entries))
	}
	return answers
}
