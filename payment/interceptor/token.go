package interceptor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
)

const (
	// maxToken bounds what is parsed (RFC 8725 asks for a limit of one's own).
	maxToken = 8 << 10
	// maxClaim is for the issuer and the subject: RFC 7519 has none, OpenID Connect has 255.
	maxClaim = 255
	// keysInterval is how often the file of keys is looked at: a caller's unknown key IDs cause no reads.
	keysInterval = time.Second
	maxKeysFile  = 1 << 20
)

// algorithms are those of signatures that are taken.
var algorithms = []string{"ES256", "RS256", "EdDSA"}

// TokenOptions say which tokens are good.
type TokenOptions struct {
	Issuer, Audience string
	// KeysFile is a JWK set (RFC 7517); a changed file is read again, and one that cannot be read leaves the keys as they are.
	KeysFile string
	// Leeway is for clocks that differ.
	Leeway time.Duration
	// Now is the clock; time.Now where nil.
	Now func() time.Time
	// Log tells of a file that cannot be used; nowhere where nil.
	Log *slog.Logger
}

// Tokens verifies JWTs (RFC 7519) as RFC 8725 asks for: asymmetric algorithms of a list, the issuer, the audience and an
// expiry are required, and what the token's own header says about keys is not followed.
type Tokens struct {
	options TokenOptions
	parser  *jwt.Parser

	mu      sync.Mutex
	keys    keyfunc.Keyfunc
	looked  time.Time
	read    os.FileInfo
	failure string // of the file as it is now; empty where its keys are in use
}

// NewTokens reads the keys; without any it fails.
func NewTokens(o TokenOptions) (*Tokens, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	t := &Tokens{options: o, parser: jwt.NewParser(
		jwt.WithValidMethods(algorithms), jwt.WithIssuer(o.Issuer), jwt.WithAudience(o.Audience),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(o.Leeway), jwt.WithTimeFunc(o.Now), jwt.WithStrictDecoding(),
	)}
	if err := t.load(); err != nil {
		return nil, fmt.Errorf("read the keys of %s from %s: %w", o.Issuer, o.KeysFile, err)
	}
	return t, nil
}

// Verify returns for whom a token speaks. Its error says which check failed, and nothing of the token.
func (t *Tokens) Verify(token string) (User, error) {
	if len(token) > maxToken || strings.Count(token, ".") != 2 {
		return User{}, errors.New("the token is no JWT of three parts and at most 8 KiB")
	}
	var claims jwt.RegisteredClaims
	if _, err := t.parser.ParseWithClaims(token, &claims, t.keyOf); err != nil {
		return User{}, fmt.Errorf("the token: %w", reason(err))
	}
	if claims.Subject == "" || len(claims.Subject) > maxClaim {
		return User{}, errors.New("the token has no subject of 1 to 255 bytes")
	}
	return User{Issuer: claims.Issuer, Subject: claims.Subject}, nil
}

// keyOf is the key, or the keys, that may have signed a token.
func (t *Tokens) keyOf(token *jwt.Token) (any, error) {
	if _, has := token.Header["crit"]; has { // whoever does not know an extension must refuse it (RFC 7515, section 4.1.11)
		return nil, errors.New("an extension is critical, and none is known")
	}
	return t.current().Keyfunc(token)
}

// reason keeps only which check failed: the library's text may quote the token's header.
func reason(err error) error {
	for _, known := range []error{
		jwt.ErrTokenExpired, jwt.ErrTokenNotValidYet, jwt.ErrTokenUsedBeforeIssued, jwt.ErrTokenInvalidAudience, jwt.ErrTokenInvalidIssuer,
		jwt.ErrTokenRequiredClaimMissing, jwt.ErrTokenSignatureInvalid, jwt.ErrTokenUnverifiable, jwt.ErrTokenMalformed,
	} {
		if errors.Is(err, known) {
			return known
		}
	}
	return errors.New("is not valid")
}

func (t *Tokens) current() keyfunc.Keyfunc {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now := t.options.Now(); now.Sub(t.looked) >= keysInterval {
		t.looked = now
		t.tell(t.load()) // a file that is being replaced, or is broken, must not lock everybody out
	}
	return t.keys
}

// tell tells of each failure once, and of its end.
func (t *Tokens) tell(err error) {
	failure := ""
	if err != nil {
		failure = err.Error()
	}
	switch {
	case failure == t.failure:
	case err != nil:
		t.options.Log.Error("the file of keys cannot be used: the keys before it stay in use", "file", t.options.KeysFile, "issuer", t.options.Issuer, "error", failure)
	default:
		t.options.Log.Info("the file of keys is in use again", "file", t.options.KeysFile, "issuer", t.options.Issuer)
	}
	t.failure = failure
}

func (t *Tokens) load() error {
	info, err := os.Stat(t.options.KeysFile)
	if err != nil {
		return err
	}
	if t.read != nil && os.SameFile(info, t.read) && info.ModTime().Equal(t.read.ModTime()) && info.Size() == t.read.Size() {
		return nil
	}
	if info.Size() > maxKeysFile {
		return errors.New("has more than 1 MiB")
	}
	text, err := os.ReadFile(t.options.KeysFile)
	if err != nil {
		return err
	}
	keys, leftOut, err := parseKeys(text)
	if err != nil {
		return err
	}
	for _, why := range leftOut {
		t.options.Log.Warn("a key is left out", "file", t.options.KeysFile, "issuer", t.options.Issuer, "error", why.Error())
	}
	t.keys, t.read = keys, info
	return nil
}

// parseKeys takes a set of public keys, and leaves out those that verify no signature of ours: for encryption, or of a kind
// that is not known (RFC 7517, section 5), as an issuer publishes them before it signs with them. The library looks at a
// key's use only where the token names the key.
func parseKeys(text []byte) (keys keyfunc.Keyfunc, leftOut []error, err error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, nil, err
	}
	var good []jwkset.JWK
	for i, raw := range set.Keys {
		key, err := parseKey(raw)
		switch {
		case errors.Is(err, errSymmetric):
			return nil, nil, err
		case err != nil:
			leftOut = append(leftOut, fmt.Errorf("keys[%d]: %w", i, err))
		default:
			good = append(good, key)
		}
	}
	if len(good) == 0 {
		return nil, nil, errors.Join(append([]error{errors.New("has no key that verifies signatures")}, leftOut...)...)
	}
	storage := jwkset.NewMemoryStorage()
	if err := storage.KeyReplaceAll(context.Background(), good); err != nil { // KeyWrite keeps one of those without an ID
		return nil, nil, err
	}
	keys, err = keyfunc.New(keyfunc.Options{Storage: storage})
	return keys, leftOut, err
}

var errSymmetric = errors.New("has a symmetric key: whoever can verify with it can sign")

func parseKey(raw json.RawMessage) (jwkset.JWK, error) {
	var key jwkset.JWKMarshal
	if err := json.Unmarshal(raw, &key); err != nil {
		return jwkset.JWK{}, err
	}
	switch {
	case key.KTY == jwkset.KtyOct:
		return jwkset.JWK{}, errSymmetric
	case key.USE != "" && key.USE != jwkset.UseSig, len(key.KEYOPS) > 0 && !slices.Contains(key.KEYOPS, jwkset.KeyOpsVerify):
		return jwkset.JWK{}, errors.New("is not for signatures")
	case key.ALG != "" && !slices.Contains(algorithms, key.ALG.String()):
		return jwkset.JWK{}, fmt.Errorf("is for %s: want %s", key.ALG, strings.Join(algorithms, ", "))
	}
	return jwkset.NewJWKFromMarshal(key, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
}
