// Command keys makes what the demo has instead of an issuer of tokens and a certificate authority: `keys make FOLDER` writes
// a signing key, its public half as a JWK set, tokens good and bad, and a certificate for the gateway; `keys token FOLDER`
// prints another token. What is there and still good is kept, so that a second run changes nobody's keys.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// What config/samples has of the issuer and the gateway.
const (
	issuer   = "https://issuer.jia.app"
	audience = "payments"
	hostname = "pay.example.com"
	keyID    = "demo"
	subject  = "maria"
	// tokenValid is how long the tokens of a demo last.
	tokenValid = 24 * time.Hour
)

func main() {
	if err := run(os.Args[1:], os.Stdout, time.Now()); err != nil {
		fmt.Fprintln(os.Stderr, "keys:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer, now time.Time) error {
	if len(args) == 0 {
		return errors.New("want keys make FOLDER, or keys token [flags] FOLDER")
	}
	set := flag.NewFlagSet("keys "+args[0], flag.ContinueOnError)
	who := set.String("subject", subject, "The token's sub.")
	forWhom := set.String("audience", audience, "The token's aud.")
	valid := set.Duration("valid", time.Hour, "How long the token is valid from now on; a negative time makes an expired one.")
	if err := set.Parse(args[1:]); err != nil {
		return err
	}
	if set.NArg() != 1 {
		return errors.New("name one folder")
	}
	folder := set.Arg(0)
	switch args[0] {
	case "make":
		return writeAll(folder, now)
	case "token":
		key, err := readKey(filepath.Join(folder, "signing.key"))
		if err != nil {
			return err
		}
		text, err := token(key, *who, *forWhom, now, *valid)
		if err != nil {
			return err
		}
		fmt.Fprintln(out, text)
		return nil
	default:
		return fmt.Errorf("%q is neither make nor token", args[0])
	}
}

// writeAll writes what is missing, and new tokens.
func writeAll(folder string, now time.Time) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	path := func(name string) string { return filepath.Join(folder, name) }
	key, err := readKey(path("signing.key"))
	if errors.Is(err, os.ErrNotExist) {
		key, err = newKey(path("signing.key"))
	}
	if err != nil {
		return err
	}
	set, err := jwks(key)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path("jwks.json"), set, 0o600); err != nil {
		return err
	}
	for name, t := range map[string]struct {
		audience string
		valid    time.Duration
	}{
		"token":                {audience, tokenValid},
		"token-expired":        {audience, -time.Hour},
		"token-other-audience": {"ledger", tokenValid},
	} {
		text, err := token(key, subject, t.audience, now, t.valid)
		if err != nil {
			return err
		}
		if err := os.WriteFile(path(name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	if certificateGood(path("tls.crt"), now) {
		return nil
	}
	return writeCertificate(folder, now)
}

// token is a JWT (RFC 7519) of the issuer.
func token(key *ecdsa.PrivateKey, subject, audience string, now time.Time, valid time.Duration) (string, error) {
	made := now.Add(-time.Minute)
	if valid < 0 {
		made = now.Add(2 * valid)
	}
	t := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"iss": issuer, "aud": audience, "sub": subject, "iat": made.Unix(), "exp": now.Add(valid).Unix(),
	})
	t.Header["kid"] = keyID
	return t.SignedString(key)
}

// jwks is the public half of a key as a JWK set (RFC 7517, RFC 7518 section 6.2.1).
func jwks(key *ecdsa.PrivateKey) ([]byte, error) {
	point, err := key.PublicKey.Bytes() // 4, x, y
	if err != nil {
		return nil, err
	}
	size := (len(point) - 1) / 2
	text := base64.RawURLEncoding.EncodeToString
	return json.Marshal(map[string]any{"keys": []map[string]string{{
		"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": keyID, "x": text(point[1 : 1+size]), "y": text(point[1+size:]),
	}}})
}

func newKey(path string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

func readKey(path string) (*ecdsa.PrivateKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s holds no PEM: delete it, and a new one is made", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	ec, is := key.(*ecdsa.PrivateKey)
	if !is {
		return nil, fmt.Errorf("%s holds no key for ES256: delete it, and a new one is made", path)
	}
	return ec, nil
}
