package server

import (
	"crypto/tls"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/jia-app/paymesh/test/authority"
)

// domain is a trust domain whose authority makes workloads.
type domain struct{ *authority.Authority }

func newAuthority(t testing.TB, trustDomain string) domain {
	t.Helper()
	return domain{authority.New(t, trustDomain)}
}

// issue makes a workload with the SPIFFE ID of a path, whose certificate lives for so long.
func (d domain) issue(path string, lifetime time.Duration) *source {
	return &source{svid: d.Issue(path, lifetime), of: d.Bundle()}
}

// source is a workload's own certificate and the bundle it checks others by.
type source struct {
	svid *x509svid.SVID
	mu   sync.Mutex
	of   *x509bundle.Bundle
}

func (s *source) GetX509SVID() (*x509svid.SVID, error) { return s.svid, nil }

func (s *source) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.of.GetX509BundleForTrustDomain(td)
}

// trust makes the workload trust other authorities than before.
func (s *source) trust(b *x509bundle.Bundle) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.of = b
}

// files writes a workload's certificate, key and bundle, for what reads PEM.
func (s *source) files(t testing.TB, dir string) (cert, key, bundle string) {
	t.Helper()
	return authority.Write(t, dir, s.svid, s.of)
}

// tls is how the workload dials the manager.
func (s *source) tls(manager spiffeid.ID) *tls.Config {
	return tlsconfig.MTLSClientConfig(s, s, tlsconfig.AuthorizeID(manager))
}
