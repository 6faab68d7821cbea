// Package mtls gives a process its SPIFFE credentials: files or the Workload API go in, gRPC's transport credentials come
// out, for a server that knows its callers and for clients that know whom they call.
package mtls

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc/credentials"

	"github.com/jia-app/paymesh/payment/config"
)

// identityTimeout is for the first SVID: an entry reaches a SPIRE agent within seconds. A process that has none by then
// ends, and says so, instead of waiting for ever.
const identityTimeout = time.Minute

// Source is where certificates and trust bundles come from, at each handshake anew.
type Source interface {
	x509svid.Source
	x509bundle.Source
}

// NewSource opens what the configuration names, and checks that it is the identity that is wanted. Close it last.
func NewSource(ctx context.Context, m config.MTLS, want spiffeid.ID) (_ Source, closeSource func() error, err error) {
	var source Source
	closeSource = func() error { return nil }
	if m.WorkloadAPI == "" {
		source = files(m)
	} else {
		limited, cancel := context.WithTimeout(ctx, identityTimeout)
		defer cancel()
		api, err := workloadapi.NewX509Source(limited, workloadapi.WithClientOptions(workloadapi.WithAddr(m.WorkloadAPI)),
			workloadapi.WithDefaultX509SVIDPicker(func(svids []*x509svid.SVID) *x509svid.SVID { return pick(svids, want) }))
		if err != nil {
			return nil, nil, fmt.Errorf("wait for an SVID from the Workload API at %s: %w", m.WorkloadAPI, err)
		}
		source, closeSource = api, api.Close
	}
	svid, err := source.GetX509SVID()
	if err == nil && svid.ID != want {
		err = fmt.Errorf("it is %s: service_mesh.spiffe_id wants %s", svid.ID, want)
	}
	if err != nil {
		_ = closeSource()
		return nil, nil, fmt.Errorf("the certificate of this process: %w", err)
	}
	return source, closeSource, nil
}

// pick prefers the wanted SVID among those of a workload that has several.
func pick(svids []*x509svid.SVID, want spiffeid.ID) *x509svid.SVID {
	for _, svid := range svids {
		if svid.ID == want {
			return svid
		}
	}
	return svids[0]
}

// files reads the PEM files at each handshake, so that whoever rotates them has nobody to tell.
type files config.MTLS

func (f files) GetX509SVID() (*x509svid.SVID, error) { return x509svid.Load(f.CertFile, f.KeyFile) }

func (f files) GetX509BundleForTrustDomain(domain spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	svid, err := f.GetX509SVID()
	if err != nil {
		return nil, err
	}
	if svid.ID.TrustDomain() != domain {
		return nil, fmt.Errorf("ca_file has no authorities of %s", domain)
	}
	return x509bundle.Load(domain, f.CAFile)
}

// Server are the credentials of a server whose callers have a certificate of a trust domain that the source knows; whether
// they may call is decided for each call. They are gRPC's own TLS credentials, so that the handler finds a
// credentials.TLSInfo (those of go-spiffe's grpccredentials hide it).
func Server(source Source) credentials.TransportCredentials {
	settings := tlsconfig.MTLSServerConfig(source, source, tlsconfig.AuthorizeAny())
	settings.MinVersion = tls.VersionTLS13
	// A resumed session is not verified again (go-spiffe pull request 378): a caller whose ID or authority was taken away
	// would go on with its ticket.
	settings.SessionTicketsDisabled = true
	return credentials.NewTLS(settings)
}

// Client are the credentials of a client that calls one workload.
func Client(source Source, peer spiffeid.ID) credentials.TransportCredentials {
	settings := tlsconfig.MTLSClientConfig(source, source, tlsconfig.AuthorizeID(peer))
	settings.MinVersion = tls.VersionTLS13
	return credentials.NewTLS(settings)
}
