package lab

import (
	"context"

	bundlev1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/bundle/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"

	"github.com/jia-app/paymesh/test/authority"
)

// SetBundle gives the server a bundle of another trust domain, with one certificate authority.
func (s *SPIREServer) SetBundle(t T, trustDomain string) {
	t.Helper()
	answer, err := bundlev1.NewBundleClient(s.conn).BatchSetFederatedBundle(context.Background(), &bundlev1.BatchSetFederatedBundleRequest{
		Bundle: []*types.Bundle{{TrustDomain: trustDomain, X509Authorities: []*types.X509Certificate{{Asn1: authority.New(t, trustDomain).Certificate.Raw}}}},
	})
	if err != nil {
		t.Fatalf("set the bundle of %s: %v", trustDomain, err)
	}
	if status := answer.Results[0].Status; codes.Code(status.Code) != codes.OK {
		t.Fatalf("set the bundle of %s: %v", trustDomain, status)
	}
}

// DeleteBundle takes the bundle of another trust domain away; mode says what becomes of the entries that federate with it.
func (s *SPIREServer) DeleteBundle(t T, trustDomain string, mode bundlev1.BatchDeleteFederatedBundleRequest_Mode) {
	t.Helper()
	answer, err := bundlev1.NewBundleClient(s.conn).BatchDeleteFederatedBundle(context.Background(), &bundlev1.BatchDeleteFederatedBundleRequest{
		TrustDomains: []string{trustDomain}, Mode: mode,
	})
	if err != nil {
		t.Fatalf("delete the bundle of %s: %v", trustDomain, err)
	}
	if status := answer.Results[0].Status; codes.Code(status.Code) != codes.OK {
		t.Fatalf("delete the bundle of %s: %v", trustDomain, status)
	}
}
