package pki

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"strings"
	"testing"
	"time"
)

func TestCertificatesAreForOneUseAndVerify(t *testing.T) {
	now := time.Now()
	ca, err := NewAuthority("test", now)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.Certificate)
	for name, c := range map[string]struct {
		subject Subject
		usage   x509.ExtKeyUsage
		other   x509.ExtKeyUsage
	}{
		"client": {Subject{Name: "system:node:x", Groups: []string{"system:nodes"}}, x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		"server": {Subject{Name: "x", DNS: []string{"localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}}, x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	} {
		pair, err := ca.Issue(c.subject)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tls.X509KeyPair(pair.Certificate, pair.Key); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		block, _ := pem.Decode(pair.Certificate)
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := certificate.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{c.usage}}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := certificate.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{c.other}}); err == nil {
			t.Errorf("%s: it serves as the other as well", name)
		}
	}
}

func TestKubeconfigNamesItsClusterAndServer(t *testing.T) {
	text := string(Kubeconfig("paymesh-x", "https://127.0.0.1:7", []byte("ca"), Pair{[]byte("crt"), []byte("key")}))
	for _, want := range []string{"current-context: paymesh-x\n", "server: https://127.0.0.1:7\n", "certificate-authority-data: Y2E=\n", "client-key-data: a2V5\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
}
