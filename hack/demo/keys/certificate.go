package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"os"
	"path/filepath"
	"time"
)

const (
	certificateValid = 30 * 24 * time.Hour
	// renewBefore is how much of a certificate must be left for it to be kept.
	renewBefore = 24 * time.Hour
)

func certificateGood(path string, now time.Time) bool {
	text, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return false
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	return err == nil && now.Add(renewBefore).Before(certificate.NotAfter)
}

// writeCertificate makes a certificate authority for this one certificate, and forgets its key: ca.crt, tls.crt, tls.key.
func writeCertificate(folder string, now time.Time) error {
	path := func(name string) string { return filepath.Join(folder, name) }
	authorityKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	key, err := newKey(path("tls.key"))
	if err != nil {
		return err
	}
	authority := &x509.Certificate{
		Subject: pkix.Name{CommonName: "paymesh demo"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(certificateValid),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, MaxPathLenZero: true,
	}
	if err := sign(path("ca.crt"), authority, authority, &authorityKey.PublicKey, authorityKey); err != nil {
		return err
	}
	return sign(path("tls.crt"), &x509.Certificate{
		Subject: pkix.Name{CommonName: hostname}, DNSNames: []string{hostname}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(certificateValid),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, authority, &key.PublicKey, authorityKey)
}

func sign(path string, certificate, authority *x509.Certificate, public, with any) error {
	der, err := x509.CreateCertificate(rand.Reader, certificate, authority, public, with)
	if err != nil {
		return err
	}
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600)
}
