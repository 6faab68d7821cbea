package spire_test

import (
	"slices"
	"strings"
	"testing"

	bundlev1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/bundle/v1"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"
)

// The tests of this file say what SPIRE does, not what paymesh does: when one fails with a new version of SPIRE, the code
// that depends on it has to be looked at.

func TestSPIREReturnsTheEntryOfTheSameTupleAndNothingOfTheSameID(t *testing.T) {
	first := mustCreate(t, server, manual("contract-tuple", "/contract/tuple"))

	same := manual("contract-tuple-2", "/contract/tuple")
	same.Hint = "other fields do not matter"
	similar, status := create(t, server, same)
	if codes.Code(status.Code) != codes.AlreadyExists || similar == nil || similar.Id != first.Id || similar.Hint != "" {
		t.Errorf("the same tuple: %v, %v", status, similar)
	}
	taken, status := create(t, server, manual("contract-tuple", "/contract/other"))
	if codes.Code(status.Code) != codes.AlreadyExists || taken != nil {
		t.Errorf("the same ID with another tuple: %v, %v", status, taken)
	}
	more := manual("contract-tuple-3", "/contract/tuple")
	more.Selectors = append(more.Selectors, &types.Selector{Type: "k8s", Value: "sa:a"})
	if _, status := create(t, server, more); codes.Code(status.Code) != codes.OK {
		t.Errorf("a selector more is another tuple, and is refused: %v", status)
	}
}

func TestSPIREMakesDuplicatesByUpdate(t *testing.T) {
	mustCreate(t, server, manual("contract-duplicate", "/contract/duplicate"))
	other := mustCreate(t, server, manual("contract-duplicate-2", "/contract/duplicate-2"))
	other.SpiffeId.Path = "/contract/duplicate"
	if _, status := update(t, server, other, nil); codes.Code(status.Code) != codes.OK {
		t.Errorf("got %v: an update that runs into another entry has to be handled now", status)
	}
}

func TestSPIRECountsAnUpdateThatChangesNothing(t *testing.T) {
	e := mustCreate(t, server, manual("contract-noop", "/contract/noop"))
	again, _ := update(t, server, e, nil)
	if again.RevisionNumber != e.RevisionNumber+1 {
		t.Errorf("revision %d after %d", again.RevisionNumber, e.RevisionNumber)
	}
}

func TestSPIREReplacesTheTupleInPlace(t *testing.T) {
	e := mustCreate(t, server, manual("contract-place", "/contract/place"))
	changed := manual("contract-place", "/contract/place-2")
	changed.Selectors = []*types.Selector{{Type: "k8s", Value: "sa:x"}}
	if _, status := update(t, server, changed, nil); codes.Code(status.Code) != codes.OK {
		t.Fatal(status)
	}
	got := get(t, server, e.Id)
	if got.SpiffeId.Path != "/contract/place-2" || len(got.Selectors) != 1 || got.Selectors[0].Value != "sa:x" || got.CreatedAt != e.CreatedAt {
		t.Errorf("got %v", got)
	}
}

func TestSPIRESaysNotFoundForEachEntryThatItDoesNotHave(t *testing.T) {
	mustCreate(t, server, manual("contract-delete", "/contract/delete"))
	if got, want := remove(t, server, "contract-none", "contract-delete"), []codes.Code{codes.NotFound, codes.OK}; !slices.Equal(got, want) {
		t.Errorf("delete: %v, want %v", got, want)
	}
	if _, status := update(t, server, manual("contract-none", "/contract/none"), nil); codes.Code(status.Code) != codes.NotFound {
		t.Errorf("update: %v", status)
	}
}

func TestSPIRERefusesAFederatedTrustDomainWithoutBundleAsInternal(t *testing.T) {
	e := manual("contract-federated", "/contract/federated")
	e.FederatesWith = []string{"nobody.org"}
	_, status := create(t, server, e)
	if codes.Code(status.Code) != codes.Internal || !strings.Contains(status.Message, "unable to find federated bundle") {
		t.Errorf("got %v", status)
	}
}

// An entry that a bundle was taken from has the revision that it had: only what it federates with shows it.
func TestSPIRETakesADeletedBundleFromEntriesWithoutANewRevision(t *testing.T) {
	server.SetBundle(t, "partner.example")
	e := manual("contract-dissociated", "/contract/dissociated")
	e.FederatesWith = []string{"partner.example"}
	before := mustCreate(t, server, e)
	server.DeleteBundle(t, "partner.example", bundlev1.BatchDeleteFederatedBundleRequest_DISSOCIATE)
	if got := get(t, server, e.Id); len(got.FederatesWith) != 0 || got.RevisionNumber != before.RevisionNumber {
		t.Errorf("it federates with %v at revision %d, before it was %d: if that is higher now, the audit need not read it", got.FederatesWith, got.RevisionNumber, before.RevisionNumber)
	}
}

func TestSPIREListsTheBundlesOfOtherTrustDomainsWithoutItsOwn(t *testing.T) {
	for _, name := range []string{"b.example", "a.example"} {
		server.SetBundle(t, name)
		defer server.DeleteBundle(t, name, bundlev1.BatchDeleteFederatedBundleRequest_RESTRICT)
	}
	if got, err := admin(t, server).Bundles(t.Context()); err != nil || !slices.Equal(got, []string{"a.example", "b.example"}) {
		t.Errorf("got %v, %v", got, err)
	}
}

// The first DNS name becomes the common name, so their order counts; SPIRE keeps it, and its answers to writes do not
// show it.
func TestSPIREKeepsTheOrderOfDNSNamesAndAnswersWritesInAnother(t *testing.T) {
	names := []string{"z.example.com", "a.example.com", "m.example.com"}
	e := manual("contract-dns", "/contract/dns")
	e.DnsNames = names
	answers := map[string][]string{"create": mustCreate(t, server, e).DnsNames}
	if got := get(t, server, e.Id).DnsNames; !slices.Equal(got, names) {
		t.Errorf("after create it holds %v", got)
	}
	e.DnsNames = []string{"m.example.com", "z.example.com", "a.example.com"}
	updated, _ := update(t, server, e, nil)
	answers["update"] = updated.DnsNames
	if got := get(t, server, e.Id).DnsNames; !slices.Equal(got, e.DnsNames) {
		t.Errorf("after update it holds %v", got)
	}
	for write, got := range answers {
		if !slices.IsSorted(got) {
			t.Errorf("the answer to %s has %v: if it has the stored order now, client.written can believe it", write, got)
		}
	}
}

func TestSPIREPagesInTheOrderOfCreationAndEndsWithAnEmptyPage(t *testing.T) {
	for _, id := range []string{"contract-page-1", "contract-page-2", "contract-page-3"} {
		mustCreate(t, server, manual(id, "/contract/"+id))
	}
	var seen []string
	for token, pages := "", 0; ; pages++ {
		answer, err := server.Entries.ListEntries(t.Context(), &entryv1.ListEntriesRequest{PageSize: 2, PageToken: token, OutputMask: &types.EntryMask{}})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range answer.Entries {
			seen = append(seen, e.Id)
			if e.Id == "contract-page-2" {
				remove(t, server, "contract-page-1", "contract-page-2") // what is gone moves nothing
			}
		}
		if answer.NextPageToken == "" {
			if len(answer.Entries) != 0 || pages == 0 {
				t.Errorf("page %d has no next page and %d entries", pages, len(answer.Entries))
			}
			break
		}
		token = answer.NextPageToken
	}
	at := func(id string) int { return slices.Index(seen, id) }
	if at("contract-page-1") < 0 || at("contract-page-2") < at("contract-page-1") || at("contract-page-3") < at("contract-page-2") {
		t.Errorf("seen in this order: %v", seen)
	}
}
