package verdict

import (
	"slices"
	"strings"
)

var hardPaths = []string{
	"", "/", "//", "///", "a", "a/b", " /a", "/a ", "/payments", "/payments/api", "/ns/default/sa/default",
	"/.", "/..", "/...", "/....", "/.a", "/a.", "/..a", "/a..", "/a/.", "/a/..", "/./a", "/../a", "/a/../b", "/a/./b", "/a/.../b", "/.-", "/-.", "/_",
	"/a/", "/a//b", "//a", "/a/b/", "/.../", "/a\n", "\n/a", "/a\nb", "/a\r", "/a\x00", "\x00", "/\x00a",
	"/spire", "/spire/", "/spire/x", "/spire/server", "/spire/agent/k8s_psat/c/u", "/spirex", "/spire-x", "/spire.", "/Spire", "/SPIRE/x", "/a/spire", "/spir", "/.spire",
	"/a%20b", "/%2e", "/%2F", "/a?b", "/a#b", "/a:b", "/a@b", "/~a", "/a+b", "/a=b", "/a&b", "/a;b", "/a,b", "/a*b", "/a!b", "/a$b", "/(a)", "/[a]", "/'a'", "/\"a\"", "/a\\b",
	"/é", "/e\u0301", "/ａ", "/а", "/\u202ea", "/日本", "/a\u200bb", "/a．b", "／a", "/\u2024", "/\U0001F600", "/\xff", "/a\xc3",
	"spiffe://a/b", "/spiffe://a/b",
}

// SeedPaths returns the paths that a rule for paths is likely to get wrong.
func SeedPaths() []string {
	paths := slices.Clone(hardPaths)
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
}

// SeedDNSNames returns the DNS names that a rule for DNS names is likely to get wrong.
func SeedDNSNames() []string {
	return []string{
		"", ".", "a", "a.", ".a", "a..b", "*", "*.a", "a.*", "*a", "a*", "-a", "a-", "a.-b", "1", "1.2.3.4", "::1", "a_b", "A", "a.B", " a", "a ", "a\n", "\x00",
		"xn--bcher-kva.example", "xn--a", "ab--c", "a--b", "a.ab--c", "ab---c", "bücher.example", "ß", "faß.de", "a。b", "a\u200db", "\u202ea", "אב", "0א",
		strings.Repeat("a", 63), strings.Repeat("a", 64), "b." + strings.Repeat("a", 63), "b." + strings.Repeat("a", 64),
		strings.Repeat("a.", 126) + "a", strings.Repeat("a.", 126) + "ab", strings.Repeat("a.", 127) + "a",
	}
}
