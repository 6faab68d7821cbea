package config

import (
	"errors"
	"log/slog"
	"regexp"
)

const redacted = "[redacted]"

// Secret is text that no log, error or dump shows.
type Secret struct{ text *string } // a pointer: fmt prints what it points to nowhere, not even in an unexported field

// NewSecret makes a secret of text, or of a reference like ${API_GATEWAY_KEY} for a file that is to be written.
func NewSecret(text string) Secret { return Secret{text: &text} }

// Reveal is the text itself, for the one place that needs it.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsZero says that there is no secret.
func (s Secret) IsZero() bool { return s.Reveal() == "" }

// String is [redacted].
func (Secret) String() string { return redacted }

// GoString is [redacted], for %#v.
func (Secret) GoString() string { return redacted }

// LogValue is [redacted].
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText is [redacted], for JSON and whatever else knows the interface.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

var reference = regexp.MustCompile(`^\$\{[A-Za-z_][A-Za-z0-9_]*\}$`)

// MarshalYAML writes a reference; a secret itself has no place in a file.
func (s Secret) MarshalYAML() (any, error) {
	if !s.IsZero() && !reference.MatchString(s.Reveal()) {
		return nil, errors.New("a secret is written to config.yaml as a reference only, like ${API_GATEWAY_KEY}")
	}
	return s.Reveal(), nil
}
