package interceptor

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// xfccHeader is where Envoy says whose certificate it saw.
const xfccHeader = "x-forwarded-client-cert"

// maxXFCC bounds what is parsed; a SPIFFE ID has at most 2,048 bytes, and our sidecar sets two of them and a hash.
const maxXFCC = 8 << 10

// peerOfXFCC is the SPIFFE ID of the URI of the one element that our sidecar sets (SANITIZE_SET drops what came before).
// A second element, header or URI was added by somebody else: nothing in it is believed.
func peerOfXFCC(headers []string) (spiffeid.ID, error) {
	if len(headers) != 1 {
		return spiffeid.ID{}, fmt.Errorf("%d headers %s: want one, set by the sidecar", len(headers), xfccHeader)
	}
	fields, err := splitXFCC(headers[0])
	if err != nil {
		return spiffeid.ID{}, fmt.Errorf("the header %s: %w", xfccHeader, err)
	}
	uri, found := "", false
	for _, field := range fields {
		name, value, _ := strings.Cut(field, "=")
		if !strings.EqualFold(name, "URI") {
			continue
		}
		if found {
			return spiffeid.ID{}, fmt.Errorf("the header %s has two URIs", xfccHeader)
		}
		uri, found = strings.Trim(value, `"`), true
	}
	if !found {
		return spiffeid.ID{}, fmt.Errorf("the header %s has no URI: the caller's certificate has no SPIFFE ID", xfccHeader)
	}
	id, err := spiffeid.FromString(uri)
	if err != nil {
		return spiffeid.ID{}, fmt.Errorf("the URI of the header %s: %w", xfccHeader, err)
	}
	return id, nil
}

// splitXFCC splits an element at semicolons; inside quotes, which a backslash escapes, they separate nothing.
func splitXFCC(header string) ([]string, error) {
	if len(header) > maxXFCC {
		return nil, errors.New("is too long")
	}
	var fields []string
	var quoted, escaped bool
	start := 0
	for i := range len(header) {
		c := header[i]
		switch {
		case escaped:
			escaped = false
		case quoted && c == '\\':
			escaped = true
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == ',':
			return nil, errors.New("has more than one element: want the sidecar's own, and none from before it")
		case c == ';':
			fields, start = append(fields, header[start:i]), i+1
		}
	}
	if quoted {
		return nil, errors.New("has a quote that does not end")
	}
	return append(fields, header[start:]), nil
}
