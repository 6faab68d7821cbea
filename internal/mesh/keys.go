package mesh

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
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
	return nil
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
