package xds

import (
	"cmp"
	"regexp"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

var variable = regexp.MustCompile(`\{[^{}=]*(?:=([^{}]*))?\}`)

// template is a path template (google/api/http.proto), with what its variables stand for.
type template struct {
	segments []string // literals, * for one segment, ** for all that follow
	verb     string
}

// parseTemplate takes apart what has been checked when the Mesh was built.
func parseTemplate(text string) template {
	plain := variable.ReplaceAllStringFunc(strings.ToValidUTF8(text, "\uFFFD"), func(v string) string {
		return cmp.Or(variable.FindStringSubmatch(v)[1], "*")
	})
	path, verb, _ := strings.Cut(strings.TrimPrefix(plain, "/"), ":")
	return template{segments: strings.Split(path, "/"), verb: verb}
}

// literals is how many segments stand for themselves.
func (t template) literals() int {
	n := 0
	for _, segment := range t.segments {
		if segment != "*" && segment != "**" {
			n++
		}
	}
	return n
}

// matches is just what the template says.
func (t template) matches() *routev3.RouteMatch {
	var pattern strings.Builder
	for _, segment := range t.segments {
		switch segment {
		case "*":
			pattern.WriteString("/[^/]+")
		case "**":
			pattern.WriteString("(/[^/]+)*")
		default:
			pattern.WriteString("/" + regexp.QuoteMeta(segment))
		}
	}
	verb := ""
	if t.verb != "" {
		verb = ":" + t.verb
	}
	if t.literals() == len(t.segments) {
		return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Path{Path: "/" + strings.Join(t.segments, "/") + verb}}
	}
	return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_SafeRegex{
		SafeRegex: &matcherv3.RegexMatcher{Regex: pattern.String() + regexp.QuoteMeta(verb)},
	}}
}

// compareTemplates puts first what matches less: Envoy takes the first route that matches.
func compareTemplates(x, y template) int {
	wild := func(t template) int { return len(t.segments) - t.literals() }
	open := func(t template) int {
		if t.segments[len(t.segments)-1] == "**" {
			return 1
		}
		return 0
	}
	verbless := func(t template) int {
		if t.verb == "" {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(open(x), open(y)), cmp.Compare(verbless(x), verbless(y)), cmp.Compare(wild(x), wild(y)),
		cmp.Compare(y.literals(), x.literals()), strings.Compare(strings.Join(x.segments, "/"), strings.Join(y.segments, "/")), strings.Compare(x.verb, y.verb))
}
