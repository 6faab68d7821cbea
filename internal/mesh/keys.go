package mesh

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
)

// publicMembers are those that a public key of a type must have (RFC 7518, section 6; RFC 8037 for OKP).
var publicMembers = map[string][]string{"RSA": {"n", "e"}, "EC": {"crv", "x", "y"}, "OKP": {"crv", "x"}}

// privateMembers are those that no public key has (RFC 7518, section 6).
var privateMembers = []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"}

var errNoKeySet = errors.New(`it is no JSON Web Key Set: write {"keys": [...]} with the issuer's public keys`)

// checkKeys says what is wrong with a set of public keys (RFC 7517), and what to do about it. It never repeats a member's
// value: what should not be there may be a secret.
func checkKeys(text []byte) error {
	set := map[string]json.RawMessage{} // a struct would take Keys for keys, which no proxy does
	if err := json.Unmarshal(text, &set); err != nil {
		return errNoKeySet
	}
	var keys []map[string]any
	if err := json.Unmarshal([]byte(cmp.Or(string(set["keys"]), "[]")), &keys); err != nil {
		return errNoKeySet
	}
	if len(keys) == 0 {
		return errors.New("the key set holds no keys: write the issuer's public keys there")
	}
	for i, key := range keys {
		if err := checkKey(key); err != nil {
			return fmt.Errorf("keys[%d]: %w", i, err)
		}
	}
	// A proxy passes over the keys that it cannot use, and rejects a set that has no other: with it, the whole listener.
	if !slices.ContainsFunc(keys, usable) {
		return errors.New("a gateway can use none of its keys: write a public key there that is RSA of 2048 bits or more (alg RS256 to RS512, PS256 to PS512), EC with P-256, P-384 or P-521 (alg ES256, ES384, ES512), or OKP with Ed25519 (alg EdDSA)")
	}
	return nil
}

const (
	minRSABits   = 2048 // RFC 7518, section 3.3
	ed25519Bytes = 32
)

// usable reports whether Envoy's jwt_authn can check tokens by a key. Whether the key is meant for that (use, key_ops) it
// does not ask.
func usable(key map[string]any) bool {
	kty, _ := key["kty"].(string)
	alg, _ := key["alg"].(string)
	crv, _ := key["crv"].(string)
	part := func(name string) []byte {
		text, _ := key[name].(string)
		bytes, _ := base64.RawURLEncoding.DecodeString(text)
		return bytes
	}
	switch kty {
	case "RSA":
		n, e := new(big.Int).SetBytes(part("n")), new(big.Int).SetBytes(part("e"))
		return (alg == "" || slices.Contains([]string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}, alg)) &&
			n.BitLen() >= minRSABits && n.Bit(0) == 1 && e.BitLen() > 1 && e.BitLen() <= 33 && e.Bit(0) == 1
	case "EC":
		return onCurve(crv, alg, part("x"), part("y"))
	case "OKP":
		return crv == "Ed25519" && (alg == "" || alg == "EdDSA") && len(part("x")) == ed25519Bytes
	}
	return false
}

func onCurve(crv, alg string, x, y []byte) bool {
	curves := map[string]struct {
		elliptic.Curve
		alg string
	}{"P-256": {elliptic.P256(), "ES256"}, "P-384": {elliptic.P384(), "ES384"}, "P-521": {elliptic.P521(), "ES512"}}
	curve, known := curves[crv]
	if !known || alg != "" && alg != curve.alg {
		return false
	}
	size := (curve.Params().BitSize + 7) / 8
	if len(x) != size || len(y) != size {
		return false
	}
	const uncompressed = 4 // SEC 1, section 2.3.3
	_, err := ecdsa.ParseUncompressedPublicKey(curve.Curve, slices.Concat([]byte{uncompressed}, x, y))
	return err == nil
}

func checkKey(key map[string]any) error {
	kty, _ := key["kty"].(string)
	if kty == "oct" {
		return errors.New("a symmetric key (kty oct) is a secret: whoever reads the ConfigMap could sign tokens; replace it at the issuer, and write its public key there")
	}
	for _, member := range privateMembers {
		if _, ok := key[member]; ok {
			return fmt.Errorf("the member %q is part of a private key: whoever reads the ConfigMap could sign tokens; replace the key at the issuer, and write the public key alone there", member)
		}
	}
	members, known := publicMembers[kty]
	if !known {
		return errors.New("kty is none of RSA, EC and OKP: write a public key of one of these types there")
	}
	for _, member := range members {
		value, _ := key[member].(string)
		if _, err := base64.RawURLEncoding.DecodeString(value); member != "crv" && err != nil || value == "" {
			return fmt.Errorf("the member %q of the %s key is not there, or is not what RFC 7518 says: write the public key there as its issuer publishes it", member, kty)
		}
	}
	return nil
}
