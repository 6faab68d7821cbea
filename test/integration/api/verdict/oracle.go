package verdict

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/net/idna"
)

// MaxIDBytes and MaxTrustDomainBytes are the lengths of the SPIFFE ID document (SPIFFE-ID, sections 2.3 and 2.1). Neither
// go-spiffe 2.9.0 nor SPIRE 1.15.3 enforces them; SPIRE logs a warning when its trust domain is longer.
const (
	MaxIDBytes          = 2048
	MaxTrustDomainBytes = 255
)

// LongestTrustDomain is a trust domain name that leaves the least room for a path.
var LongestTrustDomain = strings.Repeat(strings.Repeat("d", 63)+".", 3) + strings.Repeat("d", 63)

// Path returns why a ServiceIdentity of the trust domain must not have the path, nil where it may.
func Path(trustDomain, path string) error {
	id, err := spiffeid.FromString("spiffe://" + trustDomain + path)
	if err != nil {
		return err
	}
	if err := SPIREPath(trustDomain, path); err != nil {
		return err
	}
	if n := len(id.String()); n > MaxIDBytes {
		return fmt.Errorf("the SPIFFE ID has %d bytes, more than %d", n, MaxIDBytes)
	}
	return nil
}

// SPIREPath returns why SPIRE's entry API refuses an entry with this path in the server's own trust domain, nil where
// it does not: TrustDomainWorkloadIDFromProto in pkg/server/api/id.go of SPIRE 1.15.3, whose module is not a dependency.
func SPIREPath(trustDomain, path string) error {
	td, err := spiffeid.TrustDomainFromString(trustDomain)
	if err != nil {
		return err
	}
	if _, err := spiffeid.FromPath(td, path); err != nil {
		return err
	}
	switch {
	case path == "":
		return errors.New("path is empty")
	case path == "/spire", strings.HasPrefix(path, "/spire/"):
		return errors.New("path is in the reserved namespace")
	}
	return nil
}

// SPIREDNSName returns why SPIRE's entry API refuses a DNS name, nil where it does not: ValidateLabel in
// pkg/common/x509util/dns.go of SPIRE 1.15.3.
func SPIREDNSName(name string) error {
	if strings.ContainsFunc(name, func(r rune) bool { return r > 0x7f }) {
		return errors.New("name must be ascii")
	}
	if strings.Contains(name, "*") {
		var first bool
		if name, first = strings.CutPrefix(name, "*."); !first || strings.Contains(name, "*") {
			return errors.New("the only wildcard must be the first label")
		}
	}
	name = strings.TrimSpace(name)
	switch {
	case name == "":
		return errors.New("empty or only whitespace")
	case strings.HasSuffix(name, "."):
		return errors.New("domain ends with dot")
	}
	ascii, err := dnsProfile.ToASCII(name)
	if err != nil {
		return err
	}
	if ascii != name {
		return fmt.Errorf("label mismatch after idna: %q", ascii)
	}
	return nil
}

var dnsProfile = idna.New(
	idna.StrictDomainName(true),
	idna.ValidateLabels(true),
	idna.VerifyDNSLength(true),
	idna.CheckJoiners(true),
	idna.BidiRule(),
	idna.CheckHyphens(true),
)
