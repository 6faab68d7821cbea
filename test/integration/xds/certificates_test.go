package xds_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"testing"
	"time"

	"github.com/jia-app/paymesh/controllers"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/test/authority"
	"github.com/jia-app/paymesh/test/lab"
)

// certificateOf is what a TLS Secret holds whose certificate is of this key, with what change makes of it.
func certificateOf(t *testing.T, key crypto.Signer, change func(*x509.Certificate)) map[string][]byte {
	t.Helper()
	template := &x509.Certificate{Subject: pkix.Name{CommonName: hostname}, DNSNames: []string{hostname}}
	if change != nil {
		change(template)
	}
	pair := authority.SelfSignedBy(t, template, key)
	private, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{
		"tls.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Leaf.Raw}),
		"tls.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	}
}

func ecKey(t *testing.T, curve elliptic.Curve) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func edKey(t *testing.T) crypto.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func rsaKey(t *testing.T, bits int) crypto.Signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// certificate is one of a kind, for a Secret.
type certificate struct {
	kind  string
	files map[string][]byte
}

// served are the certificates that a proxy shows to whoever connects.
func served(t *testing.T) []certificate {
	t.Helper()
	usage := func(usage x509.KeyUsage) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.KeyUsage = usage }
	}
	return []certificate{
		{"P-256", certificateOf(t, ecKey(t, elliptic.P256()), nil)},
		{"P-384", certificateOf(t, ecKey(t, elliptic.P384()), nil)},
		{"P-521", certificateOf(t, ecKey(t, elliptic.P521()), nil)},
		{"Ed25519", certificateOf(t, edKey(t), nil)},
		{"RSA 2048", certificateOf(t, rsaKey(t, 2048), usage(x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment))},
		{"RSA 4096", certificateOf(t, rsaKey(t, 4096), nil)},
		{"RSA for key encipherment alone", certificateOf(t, rsaKey(t, 2048), usage(x509.KeyUsageKeyEncipherment))},
		{"expired", certificateOf(t, ecKey(t, elliptic.P256()), func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })},
	}
}

// newBareDoor is a gateway that serves nothing but its probe.
func newBareDoor(t *testing.T, secrets map[int32]map[string][]byte) *door {
	t.Helper()
	d := &door{dir: t.TempDir()}
	d.gateway = mesh.Gateway{Key: newService(t, "gateway").Key}
	d.gateway.ID = entry(t, "/door/"+d.gateway.Key.Name)
	d.setListeners(t, nil, "https")
	d.launch(t, secrets, nil)
	d.pod.awaitSynced(t)
	return d
}

func TestAGatewayIsReadyByWhateverCertificateItServes(t *testing.T) {
	for _, c := range served(t) {
		t.Run(c.kind, func(t *testing.T) {
			d := newBareDoor(t, map[int32]map[string][]byte{first: c.files})
			d.pod.awaitReady(t)
			// As the operator asks, too.
			if err := errors.Join(d.takes(first), controllers.ShowsCertificate(t.Context(), d.pod.at(first))); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAGatewayStaysReadyWhileItsCertificateBecomesOneOfAnotherKind(t *testing.T) {
	certificates := served(t)
	d := newBareDoor(t, map[int32]map[string][]byte{first: certificates[len(certificates)-1].files})
	d.pod.awaitReady(t)
	end := d.watch(t, first)
	for _, c := range certificates {
		block, _ := pem.Decode(c.files["tls.crt"])
		d.mount(t, map[int32]map[string][]byte{first: c.files})
		lab.Eventually(t, patience, func() error {
			conn, err := d.dial(first)
			if err != nil {
				return err
			}
			defer conn.Close() //nolint:errcheck // nothing was sent
			if string(conn.ConnectionState().PeerCertificates[0].Raw) != string(block.Bytes) {
				return errors.New("the certificate of before is shown")
			}
			return nil
		})
		if err := d.pod.ready(t); err != nil {
			t.Errorf("with %s: %v", c.kind, err)
		}
	}
	if err := end(); err != nil {
		t.Errorf("while they change, a new connection or the probe: %v", err)
	}
}

func TestACertificateThatAProxyDoesNotTakeLeavesTheListenerWithout(t *testing.T) {
	t.Setenv("GODEBUG", "rsa1024min=0")
	agreement := func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement }
	for _, c := range []certificate{
		{"RSA 1024", certificateOf(t, rsaKey(t, 1024), nil)},
		{"P-256 for key agreement alone", certificateOf(t, ecKey(t, elliptic.P256()), agreement)},
	} {
		t.Run(c.kind, func(t *testing.T) {
			d := newBareDoor(t, map[int32]map[string][]byte{first: c.files})
			lab.Eventually(t, patience, func() error {
				if err := controllers.ShowsCertificate(t.Context(), d.pod.at(first)); !errors.Is(err, controllers.ErrNoCertificate) {
					return errors.Join(errors.New("it is not said to have none"), err)
				}
				return nil
			})
			d.pod.staysUnready(t)
		})
	}
}
