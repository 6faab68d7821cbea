package spire

import "time"

// SPIRE's server makes a new CA in time to have a sixth of the old one's lifetime left, seven days at most, when it begins to sign with
// it (pkg/server/ca/manager), and no SVID outlives the CA. Its agents renew at half of an SVID's lifetime, give or take a
// tenth of that (pkg/common/rotationutil).
const (
	caShare    = 6
	caMost     = 7 * 24 * time.Hour
	leastShare = 0.45
)

// OutageBudget is how long an X.509 SVID lives on at least when it cannot be renewed: one of an entry with this TTL, from a
// server whose CA lives for caTTL.
func OutageBudget(ttl, caTTL time.Duration) time.Duration {
	return time.Duration(leastShare * float64(min(ttl, caTTL/caShare, caMost))).Round(time.Second)
}
