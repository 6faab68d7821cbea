package mesh

import (
	"strings"

	"github.com/jia-app/paymesh/internal/descriptor"
)

// pattern is what a path of a claim matches, as a gateway's routes have it.
type pattern struct {
	method   string   // the HTTP method
	segments []string // literals, and * for any one; without a last **
	verb     string
	open     bool // with **: whatever follows the segments, nothing included
}

func patternOf(httpMethod string, template descriptor.Template) pattern {
	p := pattern{method: httpMethod, segments: template.Segments, verb: template.Verb, open: template.Open()}
	if p.open {
		p.segments = p.segments[:len(p.segments)-1]
	}
	return p
}

// parsePattern is the pattern of a path as it is recorded: the HTTP method, a space, and a template in its normal form.
func parsePattern(path string) pattern {
	httpMethod, normal, _ := strings.Cut(path, " ")
	return patternOf(httpMethod, descriptor.NormalTemplate(normal))
}

// last is the last segment.
func (p pattern) last() string {
	if len(p.segments) == 0 {
		return ""
	}
	return p.segments[len(p.segments)-1]
}

// endsLike reports whether one path can end as both patterns do, where both end with their last segment.
func (p pattern) endsLike(q pattern) bool {
	if p.verb == q.verb {
		return true
	}
	// What has no verb matches one only where it matches anything.
	return p.verb == "" && p.last() == "*" || q.verb == "" && q.last() == "*"
}

// takesEnd reports whether a path that p, which is open, goes on with can end with the last segment of q.
func (p pattern) takesEnd(q pattern) bool {
	return p.verb == "" || p.verb == q.verb || q.verb == "" && q.last() == "*"
}

// patterns holds, by their segments, the claims of one host name: what overlaps another is found without a look at each.
type patterns struct {
	next map[string]*patterns
	here []*claim // whose pattern has no further segment
}

func (t *patterns) add(c *claim) {
	for _, segment := range c.segments {
		if t.next == nil {
			t.next = map[string]*patterns{}
		}
		if t.next[segment] == nil {
			t.next[segment] = &patterns{}
		}
		t = t.next[segment]
	}
	t.here = append(t.here, c)
}

// overlapping calls found for each claim with a pattern that some path matches which p matches, too; in any order.
func (t *patterns) overlapping(p pattern, found func(*claim)) { t.walk(p, 0, found) }

func (t *patterns) walk(p pattern, depth int, found func(*claim)) {
	for _, c := range t.here {
		if c.method == p.method && meet(p, c.pattern, depth) {
			found(c)
		}
	}
	switch {
	case depth >= len(p.segments) && !p.open:
		return
	case depth >= len(p.segments) || p.segments[depth] == "*":
		for _, next := range t.next {
			next.walk(p, depth+1, found)
		}
	default:
		for _, segment := range []string{p.segments[depth], "*"} {
			if next := t.next[segment]; next != nil {
				next.walk(p, depth+1, found)
			}
		}
	}
}

// meet reports whether p and q, whose segments overlap as far as both have them, overlap at their ends. Depth is how many
// segments q has.
func meet(p, q pattern, depth int) bool {
	switch {
	case p.open && q.open:
		return p.verb == q.verb || p.verb == "" || q.verb == ""
	case depth == len(p.segments):
		return p.endsLike(q)
	case depth < len(p.segments):
		return q.open && q.takesEnd(p)
	default:
		return p.open && p.takesEnd(q)
	}
}
