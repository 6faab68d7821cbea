package spire_test

import (
	"testing"
	"time"

	"github.com/jia-app/paymesh/internal/spire"
)

func TestAnSVIDOutlastsAnOutageByWhatIsLeftOfItWhenItsAgentRenewsIt(t *testing.T) {
	const day = 24 * time.Hour
	for name, test := range map[string]struct{ ttl, caTTL, want time.Duration }{
		"a young CA":                      {time.Hour, day, 27 * time.Minute},
		"no SVID outlives the CA":         {12 * time.Hour, day, 108 * time.Minute},
		"a CA makes room in seven days":   {30 * day, 365 * day, 7 * day * 45 / 100},
		"whole seconds, as a status says": {time.Second, day, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if got := spire.OutageBudget(test.ttl, test.caTTL); got != test.want {
				t.Errorf("with SVIDs of %s and a CA of %s it is %s, want %s", test.ttl, test.caTTL, got, test.want)
			}
		})
	}
}
