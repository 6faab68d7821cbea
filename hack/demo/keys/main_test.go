package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jia-app/paymesh/payment/interceptor"
)

func TestTheKeysOfADemo(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "keys")
	if err := run([]string{"make", folder}, nil, time.Now()); err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}

	t.Run("sign tokens that the payment service takes, and two that it refuses", func(t *testing.T) {
		tokens, err := interceptor.NewTokens(interceptor.TokenOptions{Issuer: issuer, Audience: audience, KeysFile: filepath.Join(folder, "jwks.json")})
		if err != nil {
			t.Fatal(err)
		}
		if caller, err := tokens.Verify(read("token")); err != nil || caller.Subject != subject {
			t.Errorf("token: got %v, %v", caller, err)
		}
		for name, want := range map[string]string{"token-expired": "expired", "token-other-audience": "audience"} {
			if _, err := tokens.Verify(read(name)); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want an error about %s", name, err, want)
			}
		}
		var out bytes.Buffer
		if err := run([]string{"token", "--subject", "jon", folder}, &out, time.Now()); err != nil {
			t.Fatal(err)
		}
		if caller, err := tokens.Verify(strings.TrimSpace(out.String())); err != nil || caller.Subject != "jon" {
			t.Errorf("another subject: got %v, %v", caller, err)
		}
	})

	t.Run("hold a certificate for the gateway's host name", func(t *testing.T) {
		pair, err := tls.X509KeyPair([]byte(read("tls.crt")), []byte(read("tls.key")))
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM([]byte(read("ca.crt")))
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: hostname, Roots: roots}); err != nil {
			t.Error(err)
		}
	})

	t.Run("stay as they are when they are made again, until the certificate ends", func(t *testing.T) {
		key, certificate := read("signing.key"), read("tls.crt")
		if err := run([]string{"make", folder}, nil, time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if read("signing.key") != key || read("tls.crt") != certificate {
			t.Error("a key or certificate changed")
		}
		if err := run([]string{"make", folder}, nil, time.Now().Add(certificateValid)); err != nil {
			t.Fatal(err)
		}
		if read("signing.key") != key || read("tls.crt") == certificate {
			t.Error("want the same key and a new certificate")
		}
	})
}
