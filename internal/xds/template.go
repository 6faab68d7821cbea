package xds

import (
	"cmp"
	"regexp"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/jia-app/paymesh/internal/descriptor"
)

// literals is how many segments of a template stand for themselves.
func literals(t descriptor.Template) int {
	n := 0
	for _, segment := range t.Segments {
		if segment != "*" && segment != "**" {
			n++
		}
	}
	return n
}

// matchTemplate matches just what the template says.
func matchTemplate(t descriptor.Template) *routev3.RouteMatch {
	if literals(t) == len(t.Segments) {
		return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Path{Path: t.Normal()}}
	}
	var pattern strings.Builder
	for _, segment := range t.Segments {
		switch segment {
		case "*":
			pattern.WriteString("/[^/]+")
		case "**":
			pattern.WriteString("(/[^/]+)*")
		default:
			pattern.WriteString("/" + regexp.QuoteMeta(segment))
		}
	}
	if t.Verb != "" {
		pattern.WriteString(regexp.QuoteMeta(":" + t.Verb))
	}
	return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: pattern.String()}}}
}

// compareTemplates puts first what matches less: Envoy takes the first route that matches.
func compareTemplates(x, y descriptor.Template) int {
	wild := func(t descriptor.Template) int { return len(t.Segments) - literals(t) }
	one := func(is bool) int {
		if is {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(one(x.Open()), one(y.Open())), cmp.Compare(one(x.Verb == ""), one(y.Verb == "")), cmp.Compare(wild(x), wild(y)),
		cmp.Compare(literals(y), literals(x)), strings.Compare(strings.Join(x.Segments, "/"), strings.Join(y.Segments, "/")), strings.Compare(x.Verb, y.Verb))
}
