package interceptor

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

var now = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// publish is a set of keys with one each: "ec" and "rsa" for signatures, "enc" for encryption.
func publish(t *testing.T, path string, ec *ecdsa.PrivateKey, rsaKey *rsa.PrivateKey) {
	t.Helper()
	point, err := ec.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	ecKey := func(kid, use string) map[string]any {
		return map[string]any{"kty": "EC", "crv": "P-256", "kid": kid, "use": use, "x": encode(point[1:33]), "y": encode(point[33:])}
	}
	text, err := json.Marshal(map[string]any{"keys": []any{
		ecKey("ec", "sig"), ecKey("enc", "enc"),
		map[string]any{"kty": "RSA", "kid": "rsa", "n": encode(rsaKey.N.Bytes()), "e": encode(big.NewInt(int64(rsaKey.E)).Bytes())},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func sign(t *testing.T, method jwt.SigningMethod, kid string, key any, change func(jwt.MapClaims)) string {
	t.Helper()
	return signWith(t, method, map[string]any{"kid": kid}, key, change)
}

// signWith is sign with a header of the test's own.
func signWith(t *testing.T, method jwt.SigningMethod, header map[string]any, key any, change func(jwt.MapClaims)) string {
	t.Helper()
	claims := jwt.MapClaims{"iss": "https://issuer", "aud": "payments", "sub": "ann", "exp": now.Add(time.Minute).Unix()}
	if change != nil {
		change(claims)
	}
	token := jwt.NewWithClaims(method, claims)
	maps.Copy(token.Header, header)
	text, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func keys(t *testing.T) (*ecdsa.PrivateKey, *rsa.PrivateKey) {
	t.Helper()
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return ec, rsaKey
}

func TestOnlyATokenForUsFromTheIssuerIsGood(t *testing.T) {
	ec, rsaKey := keys(t)
	stranger, _ := keys(t)
	path := filepath.Join(t.TempDir(), "jwks.json")
	publish(t, path, ec, rsaKey)
	tokens, err := NewTokens(TokenOptions{Issuer: "https://issuer", Audience: "payments", KeysFile: path, Leeway: 30 * time.Second, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	with := func(name string, value any) func(jwt.MapClaims) {
		return func(c jwt.MapClaims) {
			if c[name] = value; value == nil {
				delete(c, name)
			}
		}
	}
	es := func(change func(jwt.MapClaims)) string { return sign(t, jwt.SigningMethodES256, "ec", ec, change) }
	for name, token := range map[string]string{
		"ES256": es(nil), "RS256": sign(t, jwt.SigningMethodRS256, "rsa", rsaKey, nil),
		"among audiences": es(with("aud", []string{"other", "payments"})), "expired within the leeway": es(with("exp", now.Add(-29*time.Second).Unix())),
	} {
		if caller, err := tokens.Verify(token); err != nil || caller.Subject != "ann" || caller.Issuer != "https://issuer" {
			t.Errorf("%s: got %v, %v", name, caller, err)
		}
	}
	parts := strings.Split(es(nil), ".")
	point, _ := ec.PublicKey.Bytes()
	cases := map[string]struct{ token, want string }{
		"expired":                       {es(with("exp", now.Add(-31*time.Second).Unix())), "expired"},
		"no expiry":                     {es(with("exp", nil)), "required claim"},
		"not yet valid":                 {es(with("nbf", now.Add(time.Minute).Unix())), "not valid yet"},
		"issued in the future":          {es(with("iat", now.Add(time.Minute).Unix())), "before issued"},
		"another audience":              {es(with("aud", "other")), "audience"},
		"no audience":                   {es(with("aud", nil)), ""},
		"another issuer":                {es(with("iss", "https://other")), "issuer"},
		"no issuer":                     {es(with("iss", nil)), ""},
		"no subject":                    {es(with("sub", nil)), "no subject"},
		"a stranger's key":              {sign(t, jwt.SigningMethodES256, "ec", stranger, nil), "signature"},
		"an unknown key":                {sign(t, jwt.SigningMethodES256, "none", ec, nil), "unverifiable"},
		"a key for encryption":          {sign(t, jwt.SigningMethodES256, "enc", ec, nil), "unverifiable"},
		"no algorithm":                  {sign(t, jwt.SigningMethodNone, "ec", jwt.UnsafeAllowNoneSignatureType, nil), "signature"},
		"a public key as a secret":      {sign(t, jwt.SigningMethodHS256, "ec", point, nil), "signature"},
		"an algorithm not on the list":  {sign(t, jwt.SigningMethodPS256, "rsa", rsaKey, nil), "signature"},
		"another type of key":           {sign(t, jwt.SigningMethodRS256, "ec", rsaKey, nil), ""},
		"no signature":                  {parts[0] + "." + parts[1] + ".", "signature"},
		"four parts":                    {es(nil) + ".x", "no JWT"},
		"many dots":                     {strings.Repeat(".", 5000), "no JWT"},
		"a huge one":                    {es(with("pad", strings.Repeat("x", maxToken))), "no JWT"},
		"nothing":                       {"", "no JWT"},
		"an extension that is critical": {signWith(t, jwt.SigningMethodES256, map[string]any{"kid": "ec", "crit": []string{"exp2"}, "exp2": 1}, ec, nil), "unverifiable"},
	}
	for name, c := range cases {
		caller, err := tokens.Verify(c.token)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, %v, want an error with %q", name, caller, err, c.want)
		}
		if err != nil && len(c.token) > 20 && strings.Contains(err.Error(), c.token[:20]) {
			t.Errorf("%s: the error shows the token: %v", name, err)
		}
	}
}

func TestChangedKeysAreReadAndBrokenOnesAreNot(t *testing.T) {
	ec, rsaKey := keys(t)
	next, _ := keys(t)
	path := filepath.Join(t.TempDir(), "jwks.json")
	publish(t, path, ec, rsaKey)
	clock := now
	var log strings.Builder
	tokens, err := NewTokens(TokenOptions{
		Issuer: "https://issuer", Audience: "payments", KeysFile: path, Now: func() time.Time { return clock }, Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	good := func(key crypto.PrivateKey) bool {
		clock = clock.Add(keysInterval)
		_, err := tokens.Verify(sign(t, jwt.SigningMethodES256, "ec", key, nil))
		return err == nil
	}
	if err := os.WriteFile(path, []byte("{broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if !good(ec) {
			t.Error("a broken file took the keys away")
		}
	}
	publish(t, path, next, rsaKey)
	if good(ec) || !good(next) {
		t.Error("the changed keys were not read")
	}
	if got := log.String(); strings.Count(got, "stay in use") != 1 || strings.Count(got, "in use again") != 1 {
		t.Errorf("the log has\n%s", got)
	}
	for name, text := range map[string]string{"no keys": `{"keys":[]}`, "a secret": `{"keys":[{"kty":"oct","kid":"a","k":"YWJj"}]}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := NewTokens(TokenOptions{KeysFile: path}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestOnlyTheKeysOfASetThatAreForSignaturesVerifyAndTheOthersAreLeftOut(t *testing.T) {
	ec, _ := keys(t)
	point, err := ec.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	with := func(more string) string {
		return `{"kty": "EC", "crv": "P-256", "x": "` + encode(point[1:33]) + `", "y": "` + encode(point[33:]) + `", "kid": "a"` + more + `}`
	}
	const pq, curve = `{"kty": "AKP", "kid": "pq", "alg": "ML-DSA-65", "pub": "AAAA"}`, `{"kty": "EC", "kid": "k1", "crv": "secp256k1", "x": "AAAA", "y": "AAAA"}`
	for name, c := range map[string]struct {
		set  string
		good bool
	}{
		"no use":                          {with(""), true},
		"for signatures":                  {with(`, "use": "sig", "alg": "ES256", "key_ops": ["verify"]`), true},
		"beside a key of another kind":    {pq + "," + curve + "," + with(""), true},
		"for encryption":                  {with(`, "use": "enc"`), false},
		"for an algorithm of another use": {with(`, "alg": "ECDH-ES"`), false},
		"for another operation":           {with(`, "key_ops": ["deriveKey"]`), false},
		"nothing that is known":           {pq + "," + curve, false},
	} {
		path := filepath.Join(t.TempDir(), "jwks.json")
		if err := os.WriteFile(path, []byte(`{"keys": [`+c.set+`]}`), 0o600); err != nil {
			t.Fatal(err)
		}
		var log strings.Builder
		tokens, err := NewTokens(TokenOptions{
			Issuer: "https://issuer", Audience: "payments", KeysFile: path, Now: func() time.Time { return now }, Log: slog.New(slog.NewTextHandler(&log, nil)),
		})
		if !c.good {
			if err == nil || !strings.Contains(err.Error(), "no key that verifies signatures") {
				t.Errorf("%s: got %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for kid, header := range map[string]map[string]any{"with its ID": {"kid": "a"}, "without": {}} {
			if _, err := tokens.Verify(signWith(t, jwt.SigningMethodES256, header, ec, nil)); err != nil {
				t.Errorf("%s, a token %s: %v", name, kid, err)
			}
		}
		if told := strings.Count(log.String(), "is left out"); told != strings.Count(c.set, "kty")-1 {
			t.Errorf("%s: the log has\n%s", name, log.String())
		}
	}
}

func TestATokenWithoutAKeyIDIsVerifiedByNoKeyForEncryption(t *testing.T) {
	ec, rsaKey := keys(t)
	other, _ := keys(t)
	path := filepath.Join(t.TempDir(), "jwks.json")
	publish(t, path, ec, rsaKey)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	point, err := other.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	more := `{"keys":[{"kty":"EC","crv":"P-256","kid":"other","use":"enc","x":"` + encode(point[1:33]) + `","y":"` + encode(point[33:]) + `"},`
	if err := os.WriteFile(path, []byte(strings.Replace(string(text), `{"keys":[`, more, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	tokens, err := NewTokens(TokenOptions{Issuer: "https://issuer", Audience: "payments", KeysFile: path, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tokens.Verify(signWith(t, jwt.SigningMethodES256, nil, ec, nil)); err != nil {
		t.Error(err)
	}
	if user, err := tokens.Verify(signWith(t, jwt.SigningMethodES256, nil, other, nil)); err == nil {
		t.Errorf("the key for encryption vouches for %v", user)
	}
}
