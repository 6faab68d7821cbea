package mtls

import (
	"context"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/jia-app/paymesh/payment/config"
)

// files reads the PEM files at each handshake, so that whoever rotates them has nobody to tell.
type files struct {
	config.MTLS
	want spiffeid.ID
}

func openFiles(m config.MTLS, want spiffeid.ID) (Identity, error) {
	f := files{m, want}
	if err := f.Ready(); err != nil {
		return nil, err
	}
	if _, err := f.GetX509BundleForTrustDomain(want.TrustDomain()); err != nil {
		return nil, fmt.Errorf("mtls.ca_file: %w", err)
	}
	return f, nil
}

func (f files) GetX509SVID() (*x509svid.SVID, error) {
	svid, err := x509svid.Load(f.CertFile, f.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("mtls.cert_file and mtls.key_file: %w", err)
	}
	if svid.ID != f.want {
		return nil, fmt.Errorf("mtls.cert_file: it is the certificate of %s: service_mesh.spiffe_id wants %s", svid.ID, f.want)
	}
	return svid, nil
}

func (f files) GetX509BundleForTrustDomain(domain spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	if f.want.TrustDomain() != domain {
		return nil, fmt.Errorf("mtls.ca_file has no authorities of %s", domain)
	}
	return x509bundle.Load(domain, f.CAFile)
}

func (f files) Ready() error {
	svid, err := f.GetX509SVID()
	if err != nil {
		return err
	}
	return current(svid, time.Now())
}

func (f files) Wait(context.Context) error { return f.Ready() }

func (files) Close() error { return nil }

// current says whether peers would take a certificate at this time.
func current(svid *x509svid.SVID, now time.Time) error {
	if end := svid.Certificates[0].NotAfter; now.After(end) {
		return fmt.Errorf("the certificate of %s ended at %s: nobody has renewed it", svid.ID, end.UTC().Format(time.RFC3339))
	}
	return nil
}
