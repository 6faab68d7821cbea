package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// authority is the X.509 authority of a trust domain.
type authority struct {
	t    testing.TB
	td   spiffeid.TrustDomain
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t testing.TB, trustDomain string) *authority {
	t.Helper()
	a := &authority{t: t, td: spiffeid.RequireTrustDomainFromString(trustDomain), key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: trustDomain}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, URIs: []*url.URL{a.td.ID().URL()},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
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

func (a *authority) bundle() *x509bundle.Bundle {
	return x509bundle.FromX509Authorities(a.td, []*x509.Certificate{a.cert})
}

func (a *authority) id(path string) spiffeid.ID { return spiffeid.RequireFromPath(a.td, path) }

// issue makes a workload with the SPIFFE ID of a path, whose certificate lives for so long.
func (a *authority) issue(path string, lifetime time.Duration) *source {
	a.t.Helper()
	key := newKey(a.t)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		a.t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(lifetime), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, URIs: []*url.URL{a.id(path).URL()},
	}, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return &source{svid: &x509svid.SVID{ID: a.id(path), Certificates: []*x509.Certificate{cert}, PrivateKey: key}, of: a.bundle()}
}

// files writes a workload's certificate, key and bundle, for what reads PEM.
func (s *source) files(t testing.TB, dir string) (cert, key, bundle string) {
	t.Helper()
	certPEM, keyPEM, err := s.svid.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	bundlePEM, err := s.of.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	cert, key, bundle = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "bundle.pem")
	for path, text := range map[string][]byte{cert: certPEM, key: keyPEM, bundle: bundlePEM} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key, bundle
}

// tls is how the workload dials the manager.
func (s *source) tls(manager spiffeid.ID) *tls.Config {
	return tlsconfig.MTLSClientConfig(s, s, tlsconfig.AuthorizeID(manager))
}
