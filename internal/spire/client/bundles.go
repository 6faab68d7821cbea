package client

import (
	"context"
	"fmt"
	"slices"

	bundlev1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/bundle/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
)

// Bundles reads the trust domains of which the server has a bundle, sorted, without spiffe://; its own is not among them.
func (c *Client) Bundles(ctx context.Context) ([]string, error) {
	var trustDomains []string
	for token, more := "", true; more; {
		answer, err := c.bundles.ListFederatedBundles(ctx, &bundlev1.ListFederatedBundlesRequest{
			OutputMask: &types.BundleMask{}, // the name of the trust domain comes always
			PageSize:   PageSize, PageToken: token,
		})
		if err != nil {
			return nil, fmt.Errorf("list the federated bundles of the SPIRE server at %s: %w", c.address, err)
		}
		for _, bundle := range answer.Bundles {
			trustDomains = append(trustDomains, bundle.TrustDomain)
		}
		token, more = answer.NextPageToken, answer.NextPageToken != ""
	}
	slices.Sort(trustDomains)
	return trustDomains, nil
}
