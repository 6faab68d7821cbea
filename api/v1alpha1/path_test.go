package v1alpha1_test

import (
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/jia-app/paymesh/test/integration/api/verdict"
)

func FuzzPath(f *testing.F) {
	for _, path := range verdict.SeedPaths() {
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
	const cases = 20_000
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
	if accepted < cases*4/10 || accepted > cases*6/10 || long < 40 {
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
