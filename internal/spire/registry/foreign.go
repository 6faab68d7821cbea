package registry

import (
	"context"
	"errors"
	"fmt"

	"github.com/jia-app/paymesh/internal/spire"
	"github.com/jia-app/paymesh/internal/spire/client"
)

// Foreign reads the entries with a SPIFFE ID that no paymesh has made, of this cluster or of another. It asks the server.
func (r *Registry) Foreign(ctx context.Context, spiffeID string) ([]spire.Held, error) {
	var foreign []spire.Held
	for token, more := "", true; more; {
		page, err := r.api.List(ctx, client.Query{SPIFFEID: spiffeID, Token: token})
		if err != nil {
			return nil, err
		}
		for _, entry := range page.Entries {
			if spire.Foreign(entry.ID) {
				foreign = append(foreign, entry)
			}
		}
		token, more = page.Next, page.Next != "" && len(page.Entries) > 0
	}
	return foreign, nil
}

// DeleteForeign deletes entries that Foreign returned. It is for those only that somebody has said are to be adopted.
// In a dry run it deletes nothing, and logs what it would.
func (r *Registry) DeleteForeign(ctx context.Context, ids []string) error {
	for _, id := range ids {
		if !spire.Foreign(id) {
			return fmt.Errorf("entry %s is one of paymesh's: it is not adopted", id)
		}
	}
	if r.options.DryRun {
		r.logPlan(spire.Plan{Delete: ids})
		return nil
	}
	results, err := r.api.Apply(ctx, spire.Plan{Delete: ids})
	for _, result := range results {
		if !result.OK() {
			err = errors.Join(err, fmt.Errorf("the SPIRE server does not delete entry %s: %s: %s", result.ID, result.Code, result.Message))
		}
	}
	return err
}
