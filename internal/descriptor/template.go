package descriptor

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Template is a path template that has been parsed (google/api/http.proto). Two with the same normal form match the same paths.
type Template struct {
	// Segments are literals, * for any segment and, at the end, ** for whatever follows, nothing included. There are no
	// variables, only what they match.
	Segments []string
	Verb     string // what follows the colon; empty where there is none

	text      string   // as it was written
	variables []string // their field paths
}

// longestTemplate is far below what a gateway is set to load as a regular expression, which takes about two steps a character.
const longestTemplate = 1024

var (
	errLong       = fmt.Errorf("it is longer than %d characters: shorten it", longestTemplate)
	errTemplate   = errors.New("it is no path template: write it as google/api/http.proto has it, for example /v1/payments/{payment_id}")
	errEverything = errors.New("it takes every path of its host names, those of all others, too: begin it with a segment of its own, for example /v1/payments/{name=**}")
	literal       = regexp.MustCompile(`^([A-Za-z0-9._~!$&'()+,;@-]|%[0-9A-Fa-f]{2})+$`)
	fieldPath     = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*([.][A-Za-z_][A-Za-z0-9_]*)*$`)
	variable      = regexp.MustCompile(`\{([^{}=]*)(=([^{}]*))?\}`)
)

// ParseTemplate parses a template as it is written.
//
//	Template = "/" Segments [ ":" LITERAL ], Segments = Segment { "/" Segment }, Segment = "*" | "**" | LITERAL | Variable;
//	a Variable is "{" FieldPath [ "=" Segments ] "}", and a ** can only be the last segment
func ParseTemplate(text string) (Template, error) {
	if len(text) > longestTemplate {
		return Template{}, errLong
	}
	path, ok := strings.CutPrefix(text, "/")
	if !ok {
		return Template{}, errTemplate
	}
	if path == "" {
		return NormalTemplate(text), nil
	}
	// A variable is a whole segment, or the last one before the verb.
	bounds := variable.FindAllStringSubmatchIndex(path, -1)
	for _, at := range bounds {
		start, end := at[0], at[1]
		if start > 0 && path[start-1] != '/' || end < len(path) && path[end] != '/' && path[end] != ':' {
			return Template{}, errTemplate
		}
	}
	var variables []string
	normal := variable.ReplaceAllStringFunc(path, func(text string) string {
		parts := variable.FindStringSubmatch(text)
		variables = append(variables, parts[1])
		if parts[2] == "" {
			return "*"
		}
		return parts[3]
	})
	for i, name := range variables {
		if !fieldPath.MatchString(name) || slices.Contains(variables[:i], name) {
			return Template{}, errTemplate
		}
	}
	t := NormalTemplate("/" + normal)
	t.text, t.variables = text, variables
	if strings.Contains(normal, ":") && !literal.MatchString(t.Verb) {
		return Template{}, errTemplate
	}
	if t.Segments[0] == "**" {
		return Template{}, errEverything
	}
	for i, segment := range t.Segments {
		if segment != "*" && (segment != "**" || i != len(t.Segments)-1) && !literal.MatchString(segment) {
			return Template{}, errTemplate
		}
	}
	return t, nil
}

// NormalTemplate is the template of a normal form. It is not checked: the path of a gRPC method is one, too.
func NormalTemplate(normal string) Template {
	path, verb, _ := strings.Cut(strings.TrimPrefix(normal, "/"), ":")
	return Template{Segments: strings.Split(path, "/"), Verb: verb, text: normal}
}

// Normal is the normal form: the template without the names of its variables.
func (t Template) Normal() string {
	path := "/" + strings.Join(t.Segments, "/")
	if t.Verb != "" {
		path += ":" + t.Verb
	}
	return path
}

// Open reports whether the template ends with **.
func (t Template) Open() bool {
	return len(t.Segments) > 0 && t.Segments[len(t.Segments)-1] == "**"
}

// String is the template as it was written.
func (t Template) String() string { return t.text }

// MarshalText is String.
func (t Template) MarshalText() ([]byte, error) { return []byte(t.text), nil }

// size is about what it takes in memory, beside itself.
func (t Template) size() int {
	const header = 16 // of a string
	return 2*len(t.text) + header*(len(t.Segments)+len(t.variables))
}
