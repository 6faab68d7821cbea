package client

import (
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/jia-app/paymesh/internal/spire"
)

// TestEachFieldOfAnEntryReachesTheServerComesBackAndCounts fails for a field that somebody adds in one place only.
func TestEachFieldOfAnEntryReachesTheServerComesBackAndCounts(t *testing.T) {
	whole := spire.Entry{
		ID: "pm1.main.a.b.1", SPIFFEID: "spiffe://jia.app/a", ParentID: "spiffe://jia.app/b", Selectors: []string{"k8s:ns:a", "k8s:sa:b"},
		X509SVIDTTL: 60, JWTSVIDTTL: 30, DNSNames: []string{"a.example"}, Hint: "internal", FederatesWith: []string{"bank.example"},
		Admin: true, Downstream: true, StoreSVID: true, ExpiresAt: 1,
	}
	back := fromProto(toProto(&whole)).Entry
	if diff := cmp.Diff(whole, back); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	fields := reflect.TypeFor[spire.Entry]()
	for i := range fields.NumField() {
		without := whole
		field := reflect.ValueOf(&without).Elem().Field(i)
		if field.IsZero() {
			t.Errorf("%s is not set here", fields.Field(i).Name)
		}
		field.SetZero()
		if whole.Equal(without) {
			t.Errorf("%s does not count", fields.Field(i).Name)
		}
	}
	written := 0
	mask := reflect.ValueOf(rendered).Elem()
	for i := range mask.NumField() {
		if mask.Field(i).Kind() == reflect.Bool && mask.Field(i).Bool() {
			written++
		}
	}
	if written != fields.NumField()-1 { // the ID says which entry it is
		t.Errorf("an update writes %d fields, and an entry has %d beside its ID", written, fields.NumField()-1)
	}
}
