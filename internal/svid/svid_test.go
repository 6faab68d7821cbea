package svid

import (
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

func TestAnSVIDIsPresentedAsLongAsItHolds(t *testing.T) {
	id := spiffeid.RequireFromString("spiffe://jia.app/paymesh/main/operator")
	end := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	update := &workloadapi.X509Context{
		SVIDs:   []*x509svid.SVID{{ID: spiffeid.RequireFromString("spiffe://jia.app/other")}, {ID: id, Certificates: []*x509.Certificate{{NotAfter: end}}}},
		Bundles: x509bundle.NewSet(),
	}
	now := end.Add(-time.Minute)
	s := New(id, "unix:///api.sock")
	s.now = func() time.Time { return now }

	s.OnX509ContextUpdate(update)
	s.OnX509ContextWatchError(errors.New("the agent restarts"))
	if svid, err := s.GetX509SVID(); err != nil || svid.ID != id {
		t.Errorf("got %v, %v", svid, err)
	}
	now = end.Add(time.Second)
	if err := s.Ready(); err == nil || !strings.Contains(err.Error(), "expired at 2026-01-01T00:00:00Z") || !strings.Contains(err.Error(), "the agent restarts") {
		t.Errorf("after its end: %v", err)
	}
	update.SVIDs = update.SVIDs[:1]
	s.OnX509ContextUpdate(update)
	if err := s.Ready(); err == nil || !strings.Contains(err.Error(), "none for "+id.String()) {
		t.Errorf("after it was taken away: %v", err)
	}
}

func TestAnAddressOfTheWorkloadAPIThatIsNoneIsSaidAtOnce(t *testing.T) {
	s := New(spiffeid.RequireFromString("spiffe://jia.app/x"), "/no/scheme")
	if err := s.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "/no/scheme") {
		t.Errorf("got %v", err)
	}
}
