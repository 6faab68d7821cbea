package mesh

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// matcher is what a gateway's route matches of a template in its normal form (internal/xds).
func matcher(path string) *regexp.Regexp {
	template, verb, hasVerb := strings.Cut(strings.TrimPrefix(path, "GET /"), ":")
	text := "^"
	for segment := range strings.SplitSeq(template, "/") {
		switch segment {
		case "*":
			text += "/[^/]+"
		case "**":
			text += "(/[^/]+)*"
		default:
			text += "/" + regexp.QuoteMeta(segment)
		}
	}
	if hasVerb {
		text += ":" + verb
	}
	return regexp.MustCompile(text + "$")
}

func TestTwoTemplatesOverlapExactlyWhereSomePathMatchesBoth(t *testing.T) {
	// Every template of up to three segments, and every path of up to four, of these.
	var templates, paths []string
	grow := func(roots, segments []string) []string {
		var grown []string
		for _, root := range roots {
			for _, segment := range segments {
				grown = append(grown, root+"/"+segment)
			}
		}
		return grown
	}
	for bases, depth := []string{""}, 0; depth < 3; depth++ {
		ends := []string{"a", "b", "*", "a:x", "b:y", "*:x", "*:y"}
		if depth > 0 {
			ends = append(ends, "**", "**:x", "**:y")
		}
		for _, template := range grow(bases, ends) {
			templates = append(templates, "GET "+template)
		}
		bases = grow(bases, []string{"a", "b", "*"})
	}
	for bases, depth := []string{""}, 0; depth < 4; depth++ {
		bases = grow(bases, []string{"a", "b", "c", "a:x", "b:x", "a:y", "b:y", "c:x", "c:y"})
		paths = append(paths, bases...)
	}
	matched := map[string][]int{}
	for _, template := range templates {
		matches := matcher(template)
		for i, path := range paths {
			if matches.MatchString(path) {
				matched[template] = append(matched[template], i)
			}
		}
	}
	all := &patterns{}
	for _, template := range templates {
		all.add(&claim{want: want{path: template, pattern: parsePattern(template)}})
	}
	for _, template := range templates {
		found := map[string]bool{}
		all.overlapping(parsePattern(template), func(c *claim) { found[c.path] = true })
		for _, other := range templates {
			if want := share(matched[template], matched[other]); found[other] != want {
				t.Fatalf("%s and %s: overlap %v, want %v", template, other, found[other], want)
			}
		}
	}
}

// share reports whether two sorted lists have a number in common.
func share(x, y []int) bool {
	return slices.ContainsFunc(x, func(i int) bool { _, found := slices.BinarySearch(y, i); return found })
}

func TestTemplatesOfTwoHTTPMethodsDoNotOverlap(t *testing.T) {
	all := &patterns{}
	all.add(&claim{want: want{pattern: parsePattern("GET /v1/**")}})
	all.overlapping(parsePattern("POST /v1/a"), func(*claim) { t.Error("they do") })
}
