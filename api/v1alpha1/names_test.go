package v1alpha1_test

import (
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/test/integration/api/verdict"
)

const wrongCharacters = "/:@[`{^~ \t\n\x00é*+,;="

func FuzzDNSName(f *testing.F) {
	for _, name := range verdict.SeedDNSNames() {
		f.Add(name)
	}
	crd := loadCRD(f)
	f.Fuzz(func(t *testing.T, name string) { compareDNSName(t, crd, name) })
}

func TestEveryAcceptedDNSNameIsOneThatSPIREAccepts(t *testing.T) {
	crd, r := loadCRD(t), rand.New(rand.NewPCG(3, 3))
	const cases = 20_000
	accepted, stricter := 0, 0
	for range cases {
		name := verdict.RandomDNSName(r)
		switch {
		case compareDNSName(t, crd, name):
			accepted++
		case verdict.SPIREDNSName(name) == nil:
			stricter++
		}
	}
	if accepted < cases*4/10 || accepted > cases*6/10 {
		t.Errorf("%d of %d names are accepted: the generator has lost its balance", accepted, cases)
	}
	t.Logf("%d names that SPIRE accepts are refused: wildcards, upper case, punycode", stricter)
}

// compareDNSName checks that the CRD accepts name exactly where it is a DNS name in lower case without hyphens as third and
// fourth character of a label, and only where SPIRE does. It returns whether it is accepted.
func compareDNSName(t *testing.T, crd *verdict.CRD, name string) bool {
	t.Helper()
	refusal := crd.Create(identity(map[string]any{"dnsNames": []any{name}}))
	if err := verdict.SPIREDNSName(name); err != nil && len(refusal) == 0 {
		t.Errorf("dnsNames %q is accepted, SPIRE says %v", name, err)
	}
	odd := func(label string) bool { return len(label) > 63 || len(label) >= 4 && label[2:4] == "--" }
	want := len(validation.IsDNS1123Subdomain(name)) == 0 && !slices.ContainsFunc(strings.Split(name, "."), odd)
	if want != (len(refusal) == 0) {
		t.Errorf("dnsNames %q: want accepted %v, the CRD says %v", name, want, refusal)
	}
	return len(refusal) == 0
}

func TestTheNameIsADNS1035LabelOfAtMost52Characters(t *testing.T) {
	compareNames(t, "abz09-", "ABZ_."+wrongCharacters, 52,
		func(name string) bool { return len(validation.IsDNS1035Label(name)) == 0 && len(name) <= 52 },
		func(name string) map[string]any {
			object := identity(nil)
			object["metadata"] = map[string]any{"name": name, "namespace": "payments"}
			return object
		})
}

func TestServiceAccountNameIsWhatKubernetesCallsAServiceAccount(t *testing.T) {
	compareNames(t, "abz09-.", "ABZ_"+wrongCharacters, 253,
		func(name string) bool { return len(validation.IsDNS1123Subdomain(name)) == 0 },
		func(name string) map[string]any { return identity(map[string]any{"serviceAccountName": name}) })
}

func TestTheDefaultPathOfEveryAcceptedServiceAccountNameIsAValidPath(t *testing.T) {
	crd, r := loadCRD(t), rand.New(rand.NewPCG(4, 4))
	for range 10_000 {
		name := verdict.RandomName(r, "abz09-.", "ABZ_"+wrongCharacters, 253)
		if len(crd.Create(identity(map[string]any{"serviceAccountName": name}))) > 0 {
			continue
		}
		path := "/ns/" + strings.Repeat("n", 63) + "/sa/" + name
		if err := verdict.Path(verdict.LongestTrustDomain, path); err != nil {
			t.Errorf("path %q: %v", path, err)
		}
	}
}

func TestKeysOfPodLabelsAreLabelKeys(t *testing.T) {
	for _, prefix := range []string{"", "example.com/", "a..b/", "-a/", "A.b/", "/", "a/b/", strings.Repeat("a", 253) + "/", strings.Repeat("a", 254) + "/"} {
		compareNames(t, "abzABZ09-_.", wrongCharacters, 63,
			func(key string) bool { return len(validation.IsQualifiedName(prefix+key)) == 0 },
			func(key string) map[string]any {
				return identity(map[string]any{"podLabels": map[string]any{prefix + key: "v"}})
			})
	}
}

func TestValuesOfPodLabelsAreLabelValues(t *testing.T) {
	compareNames(t, "abzABZ09-_.", wrongCharacters, 63,
		func(value string) bool { return len(validation.IsValidLabelValue(value)) == 0 },
		func(value string) map[string]any {
			return identity(map[string]any{"podLabels": map[string]any{"app": value}})
		})
}

// compareNames checks that the CRD accepts the object with a name exactly where valid says so.
func compareNames(t *testing.T, right, wrong string, length int, valid func(string) bool, object func(string) map[string]any) {
	t.Helper()
	crd, r := loadCRD(t), rand.New(rand.NewPCG(5, 5))
	names := []string{"", "a", "a\n", "a-", "-a", "a.", ".a", "a.b", "a..b", "a.-b", "1", "1a", "a1", "A", "a_b", "_a"}
	for n := length - 1; n <= length+1; n++ {
		names = append(names, strings.Repeat("a", n))
	}
	for range 2_000 {
		names = append(names, verdict.RandomName(r, right, wrong, length))
	}
	for _, name := range names {
		if refusal := crd.Create(object(name)); (len(refusal) == 0) != valid(name) {
			t.Errorf("%q: want accepted %v, the CRD says %v", name, valid(name), refusal)
		}
	}
}

var hardDurations = []string{
	"", "0", "1", "1h", "1h ", "-1h", "+1h", "1.5h", "1d", "1H", "1us", "1ns", "1h1", "h", "99999h99999h99999h99999h", "1h1h1h1h1h", "123456s", "1h\n",
	"60s", "59s", "59s999ms", "59s1000ms", "60001ms", "1m1ms", "30s", "29s", "29999ms", "30000ms", "30s1ms", "168h", "168h1s", "168h1ms", "167h60m", "24h", "24h1s", "23h59m60s", "1440m", "86400s", "86401s",
}

func TestTTLsAreWholeSecondsWithinTheirBounds(t *testing.T) {
	crd, r := loadCRD(t), rand.New(rand.NewPCG(6, 6))
	// The pattern of GEP-2257, the format of Gateway API's durations.
	format := regexp.MustCompile(`^([0-9]{1,5}(h|m|s|ms)){1,4}$`)
	durations := slices.Clone(hardDurations)
	for range 5_000 {
		durations = append(durations, randomDuration(r))
	}
	for field, bounds := range map[string][2]time.Duration{"x509SVIDTTL": {time.Minute, 168 * time.Hour}, "jwtSVIDTTL": {30 * time.Second, 24 * time.Hour}} {
		accepted := 0
		for _, text := range durations {
			length, err := time.ParseDuration(text)
			want := err == nil && format.MatchString(text) && length >= bounds[0] && length <= bounds[1] && length%time.Second == 0
			refusal := crd.Create(identity(map[string]any{field: text}))
			if want != (len(refusal) == 0) {
				t.Errorf("%s %q: want accepted %v, the CRD says %v", field, text, want, refusal)
			}
			if len(refusal) > 1 {
				t.Errorf("%s %q has one mistake and %d messages: %v", field, text, len(refusal), refusal)
			}
			if want {
				accepted++
				if got := meshv1alpha1.Duration(text).Duration(); got != length {
					t.Errorf("%s %q is accepted and read as %v, want %v", field, text, got, length)
				}
			}
		}
		if accepted < len(durations)/5 {
			t.Errorf("%s: %d of %d durations are accepted: the generator has lost its balance", field, accepted, len(durations))
		}
	}
}

func randomDuration(r *rand.Rand) string {
	units := []string{"h", "m", "s", "s", "ms", "d", ""}
	var text strings.Builder
	for range 1 + r.IntN(3) {
		unit := units[r.IntN(len(units))]
		if r.IntN(8) > 0 {
			unit = units[r.IntN(4)]
		}
		largest := 100
		if unit == "ms" {
			largest = 100_000
		}
		text.WriteString(strconv.Itoa(r.IntN(largest)) + unit)
	}
	return text.String()
}
