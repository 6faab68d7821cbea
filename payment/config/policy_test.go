package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestThePolicyThatIsWrittenIsTheOneThatIsRead(t *testing.T) {
	for name, want := range map[string]Policy{
		"nobody": {Rules: []PolicyRule{}},
		"two callers": {Rules: []PolicyRule{
			{Name: "expose:api", SPIFFEID: "spiffe://jia.app/ns/edge/sa/public", Methods: []string{"payment.v1.PaymentService/CreatePayment", "payment.v1.PaymentService/GetPayment"}},
			{Name: "auditors", SPIFFEID: "spiffe://jia.app/audit", Methods: []string{"*"}},
		}},
		"an allow for two ports": {Rules: []PolicyRule{
			{Name: "till", SPIFFEID: "spiffe://jia.app/till", Methods: []string{"p.S/M"}},
			{Name: "till", SPIFFEID: "spiffe://jia.app/till", Methods: []string{"p.S/M"}},
		}},
	} {
		text, err := want.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParsePolicy("policy.yaml", text)
		if err != nil || !cmp.Equal(got, want) {
			t.Errorf("%s: got %v, %v from\n%s", name, got, err, text)
		}
	}
	if text, err := (Policy{}).Marshal(); err != nil || string(text) != "rules: []\n" {
		t.Errorf("no rules are written as %q, %v", text, err)
	}
	if _, err := (Policy{Rules: []PolicyRule{{Name: "a"}}}).Marshal(); err == nil {
		t.Error("a policy that cannot be read is written")
	}
}

func TestWhatIsWrongWithAPolicyIsNamed(t *testing.T) {
	const rule = "rules:\n- name: a\n  spiffe_id: spiffe://jia.app/a\n  methods: [p.S/M]\n"
	for name, c := range map[string]struct{ text, want string }{
		"an empty file":       {"", "policy.yaml: rules: is required; [] lets nobody in"},
		"a file cut off":      {"rules:\n", "policy.yaml:1: rules: want a list, not nothing"},
		"an unknown key":      {rule + "  method: x\n", "policy.yaml:5: rules[0].method: unknown key; rules[0] has name, spiffe_id, methods"},
		"an unknown key atop": {rule + "allow: []\n", "policy.yaml:5: allow: unknown key; the file has rules"},
		"no name":             {strings.Replace(rule, "name: a", `name: ""`, 1), "rules[0].name: is required"},
		"an ID that is none":  {strings.Replace(rule, "spiffe://jia.app/a", "jia.app/a", 1), `rules[0].spiffe_id: is "jia.app/a"`},
		"no methods":          {strings.Replace(rule, "[p.S/M]", "[]", 1), "rules[0].methods: is empty"},
		"a method of gRPC":    {strings.Replace(rule, "p.S/M", "/p.S/M", 1), `rules[0].methods[0]: is "/p.S/M": want package.Service/Method`},
		"half a wildcard":     {strings.Replace(rule, "p.S/M", "p.S/Get*", 1), `rules[0].methods[0]: is "p.S/Get*"`},
		"a number":            {strings.Replace(rule, "p.S/M", "5", 1), "rules[0].methods[0]: want text"},
		"a reference":         {strings.Replace(rule, "[p.S/M]", `["${M}"]`, 1), `rules[0].methods[0]: is "${M}"`},
		"too much":            {rule + strings.Repeat("#", MaxPolicy), "want at most 1048576"},
		"no YAML":             {"\t", "policy.yaml: yaml:"},
	} {
		if _, err := ParsePolicy("policy.yaml", []byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
	}
}

func TestARuleIsAboutTheMethodsThatItNames(t *testing.T) {
	for method, want := range map[string]map[string]bool{
		"*":       {"/p.S/M": true, "/q.T/N": true, "p.S/M": false, "/p.S": false},
		"p.S/*":   {"/p.S/M": true, "/p.S/N": true, "/p.ST/M": false, "/q.p.S/M": false},
		"p.S/M":   {"/p.S/M": true, "/p.S/MM": false, "/p.S/m": false, "//p.S/M": false},
		"S/M":     {"/S/M": true, "/p.S/M": false},
		"p.q.S/M": {"/p.q.S/M": true},
	} {
		for call, allowed := range want {
			if got := (PolicyRule{Methods: []string{method}}).Allows(call); got != allowed {
				t.Errorf("%s allows %s: %t", method, call, got)
			}
		}
	}
}
