package v1alpha1_test

import (
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/jia-app/paymesh/test/integration/api/verdict"
)

// seedPaths are the paths that a rule for paths is likely to get wrong.
var seedPaths = func() []string {
	paths := []string{
		"", "/", "//", "///", "a", "a/b", " /a", "/a ", "/payments", "/payments/api", "/ns/default/sa/default",
		"/.", "/..", "/...", "/....", "/.a", "/a.", "/..a", "/a..", "/a/.", "/a/..", "/./a", "/../a", "/a/../b", "/a/./b", "/a/.../b", "/.-", "/-.", "/_",
		"/a/", "/a//b", "//a", "/a/b/", "/.../", "/a\n", "\n/a", "/a\nb", "/a\r", "/a\x00", "\x00", "/\x00a",
		"/spire", "/spire/", "/spire/x", "/spire/server", "/spire/agent/k8s_psat/c/u", "/spirex", "/spire-x", "/spire.", "/Spire", "/SPIRE/x", "/a/spire", "/spir", "/.spire",
		"/a%20b", "/%2e", "/%2F", "/a?b", "/a#b", "/a:b", "/a@b", "/~a", "/a+b", "/a=b", "/a&b", "/a;b", "/a,b", "/a*b", "/a!b", "/a$b", "/(a)", "/[a]", "/'a'", "/\"a\"", "/a\\b",
		"/é", "/e\u0301", "/ａ", "/а", "/\u202ea", "/日本", "/a\u200bb", "/a．b", "／a", "/\u2024", "/\U0001F600", "/\xff", "/a\xc3",
		"spiffe://a/b", "/spiffe://a/b",
	}
	for c := range 256 {
		paths = append(paths, "/"+string([]byte{byte(c)}), "/a"+string(rune(c))+"b")
	}
	for _, n := range []int{253, 254, 255, 256, 1022, 1783, 1784, 1785, 1786, 2039, 2047, 2048, 2049, 4096} {
		paths = append(paths,
			"/"+strings.Repeat("a", n-1),
			strings.Repeat("/a", n/2)+strings.Repeat("b", n%2),
			"/"+strings.Repeat(".", n-1),
			strings.Repeat("/", n),
			"/"+strings.Repeat("a", n-2)+"/",
			"/"+strings.Repeat("é", n-1),
			"/spire/"+strings.Repeat("a", n-7))
	}
	return paths
}()

func FuzzPath(f *testing.F) {
	for _, path := range seedPaths {
		f.Add(path)
	}
	r := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		f.Add(verdict.RandomPath(r))
	}
	crd := loadCRD(f)
	f.Fuzz(func(t *testing.T, path string) { comparePath(t, crd, path) })
}

func TestThePathRulesAgreeWithSPIFFEAndSPIREOnRandomPaths(t *testing.T) {
	crd, r := loadCRD(t), rand.New(rand.NewPCG(2, 2))
	const cases = 50_000
	accepted, long := 0, 0
	for range cases {
		path := verdict.RandomPath(r)
		if comparePath(t, crd, path) {
			accepted++
			if len(path) > 1780 {
				long++
			}
		}
	}
	// Cases that one side of the rules never sees would prove nothing.
	if accepted < cases*4/10 || accepted > cases*6/10 || long < 100 {
		t.Errorf("%d of %d paths are valid, %d of them as long as can be: the generator has lost its balance", accepted, cases, long)
	}
}

// comparePath checks that the CRD accepts path exactly where it is a workload's path in the trust domain with the longest
// name, and that such a path is one in a trust domain with a short name too. It returns whether it is.
func comparePath(t *testing.T, crd *verdict.CRD, path string) bool {
	t.Helper()
	refusal := crd.Create(identity(map[string]any{"path": path}))
	want := verdict.Path(verdict.LongestTrustDomain, path)
	if (len(refusal) == 0) != (want == nil) {
		t.Errorf("path %q (%d bytes):\nthe CRD says        %v\nSPIFFE and SPIRE say %v", path, len(path), refusal, want)
	}
	if len(refusal) == 0 {
		if err := verdict.Path("a", path); err != nil {
			t.Errorf("path %q is accepted, but not valid in the trust domain a: %v", path, err)
		}
	}
	if want != nil && len(refusal) == 1 && refusal[0].Field != "spec.path" {
		t.Errorf("path %q is refused for %s", path, refusal[0].Field)
	}
	return want == nil
}

func TestThePathBoundIsWhatTheLongestTrustDomainLeavesOfASPIFFEID(t *testing.T) {
	if got := len(verdict.LongestTrustDomain); got != verdict.MaxTrustDomainBytes {
		t.Fatalf("the longest trust domain has %d bytes, want %d", got, verdict.MaxTrustDomainBytes)
	}
	bound := verdict.MaxIDBytes - len("spiffe://") - verdict.MaxTrustDomainBytes
	if got := *loadCRD(t).Schema.Properties["spec"].Properties["path"].MaxLength; got != int64(bound) {
		t.Errorf("maxLength is %d, want %d", got, bound)
	}
	// maxLength counts characters; a path that has more bytes than characters is refused for its characters.
	if path := "/" + strings.Repeat("é", bound-1); utf8.RuneCountInString(path) != bound || len(loadCRD(t).Create(identity(map[string]any{"path": path}))) == 0 {
		t.Errorf("a path of %d characters and %d bytes is accepted", utf8.RuneCountInString(path), len(path))
	}
}
