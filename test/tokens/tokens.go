// Package tokens is for tests: the name of an issuer and an audience go in, and an issuer comes out, with tokens and with the
// keys to verify them.
package tokens

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// keyID names the one key of an issuer.
const keyID = "k"

// T is what of a testing.TB is needed here.
type T interface {
	Helper()
	Fatalf(format string, args ...any)
}

// Issuer signs tokens with a key of its own (ES256).
type Issuer struct {
	name, audience string

	t   T
	key *ecdsa.PrivateKey
}

// NewIssuer makes an issuer of tokens for an audience.
func NewIssuer(t T, name, audience string) *Issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("make a key: %v", err)
	}
	return &Issuer{name: name, audience: audience, t: t, key: key}
}

// Keys are what verifies the tokens, as a JWK set (RFC 7517, RFC 7518 section 6.2.1).
func (i *Issuer) Keys() []byte {
	i.t.Helper()
	point, err := i.key.PublicKey.Bytes() // 4, x, y
	if err != nil {
		i.t.Fatalf("write the key of %s: %v", i.name, err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	text, err := json.Marshal(map[string]any{"keys": []any{map[string]any{
		"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": keyID, "use": "sig", "x": encode(point[1:33]), "y": encode(point[33:]),
	}}})
	if err != nil {
		i.t.Fatalf("write the key of %s: %v", i.name, err)
	}
	return text
}

// Token is a token of ann's that is good for an hour, but for what change does to its claims; nil, nothing.
func (i *Issuer) Token(change func(jwt.MapClaims)) string {
	i.t.Helper()
	claims := jwt.MapClaims{"iss": i.name, "aud": i.audience, "sub": "ann", "exp": time.Now().Add(time.Hour).Unix()}
	if change != nil {
		change(claims)
	}
	token := jwt.NewWithClaims(jwt.SigningMethodES256, claims)
	token.Header["kid"] = keyID
	text, err := token.SignedString(i.key)
	if err != nil {
		i.t.Fatalf("sign a token of %s: %v", i.name, err)
	}
	return text
}
