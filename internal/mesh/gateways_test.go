package mesh

import "testing"

func TestAHostNameMatchesItselfAndAWildcardForItsFirstLabel(t *testing.T) {
	for _, test := range []struct {
		pattern, hostname string
		want              bool
	}{
		{"pay.example.com", "pay.example.com", true},
		{"pay.example.com", "example.com", false},
		{"*.example.com", "pay.example.com", true},
		{"*.example.com", "example.com", false},
		{"*.example.com", "eu.pay.example.com", false},
		{"*.com", "example.com", true},
		{"example.com", "com", false},
		{"*.com", "com", false},
		{"com", "com", true},
	} {
		if got := matches(test.pattern, test.hostname); got != test.want {
			t.Errorf("%s matches %s: got %v", test.pattern, test.hostname, got)
		}
	}
}
