// Package authority is for tests: a trust domain goes in, and an X.509 authority that issues SVIDs of it comes out. It is
// for what SPIRE cannot be made to do, as certificates that ended or are another authority's, and for tests of milliseconds.
package authority

import (
	"crypto"
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
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// T is what of a testing.TB is needed here.
type T interface {
	Helper()
	Fatalf(format string, args ...any)
}

// Authority is the X.509 authority of a trust domain.
type Authority struct {
	TrustDomain spiffeid.TrustDomain
	Certificate *x509.Certificate

	t   T
	key *ecdsa.PrivateKey
}

// New makes an authority, whose own certificate lives for an hour.
func New(t T, trustDomain string) *Authority {
	t.Helper()
	a := &Authority{TrustDomain: spiffeid.RequireTrustDomainFromString(trustDomain), t: t, key: newKey(t)}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: trustDomain}, NotAfter: time.Now().Add(time.Hour), IsCA: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, URIs: []*url.URL{a.TrustDomain.ID().URL()},
	}
	a.Certificate = sign(t, template, template, a.key, a.key)
	return a
}

// ID is the SPIFFE ID of a path.
func (a *Authority) ID(path string) spiffeid.ID { return spiffeid.RequireFromPath(a.TrustDomain, path) }

// Issue makes the SVID of a path, which lives for so long: less than nothing, it has ended.
func (a *Authority) Issue(path string, lifetime time.Duration) *x509svid.SVID {
	a.t.Helper()
	key := newKey(a.t)
	cert := sign(a.t, &x509.Certificate{
		NotAfter: time.Now().Add(lifetime), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, URIs: []*url.URL{a.ID(path).URL()},
	}, a.Certificate, key, a.key)
	return &x509svid.SVID{ID: a.ID(path), Certificates: []*x509.Certificate{cert}, PrivateKey: key}
}

// Bundle is what whoever trusts this authority has.
func (a *Authority) Bundle() *x509bundle.Bundle {
	return x509bundle.FromX509Authorities(a.TrustDomain, []*x509.Certificate{a.Certificate})
}

// SelfSigned makes a certificate that no authority has signed, as a gateway's may be; the template says for whom.
func SelfSigned(t T, template *x509.Certificate) tls.Certificate {
	t.Helper()
	return SelfSignedBy(t, template, newKey(t))
}

// SelfSignedBy makes one with a key of any kind. It lives for an hour where the template says nothing else.
func SelfSignedBy(t T, template *x509.Certificate, key crypto.Signer) tls.Certificate {
	t.Helper()
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(time.Hour)
	}
	leaf := sign(t, template, template, key, key)
	return tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
}

// sign makes a certificate that has been valid for an hour.
func sign(t T, template, parent *x509.Certificate, key, signer crypto.Signer) *x509.Certificate {
	t.Helper()
	if template.SerialNumber == nil {
		serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
		if err != nil {
			t.Fatalf("make a serial number: %v", err)
		}
		template.SerialNumber = serial
	}
	template.NotBefore, template.BasicConstraintsValid = time.Now().Add(-time.Hour), true
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatalf("make a certificate: %v", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatalf("read a certificate: %v", err)
	}
	return cert
}

func newKey(t T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("make a key: %v", err)
	}
	return key
}

// Write writes an SVID and what it is to trust into a folder, as PEM, and returns where.
func Write(t T, dir string, svid *x509svid.SVID, trust *x509bundle.Bundle) (cert, key, bundle string) {
	t.Helper()
	certPEM, keyPEM, err := svid.Marshal()
	if err != nil {
		t.Fatalf("write %s: %v", svid.ID, err)
	}
	bundlePEM, err := trust.Marshal()
	if err != nil {
		t.Fatalf("write the bundle of %s: %v", trust.TrustDomain(), err)
	}
	cert, key, bundle = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "ca.pem")
	for path, text := range map[string][]byte{cert: certPEM, key: keyPEM, bundle: bundlePEM} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatalf("%v", err)
		}
	}
	return cert, key, bundle
}
