package policy

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

func TestACallIsLetInByARuleOfItsCallerForItsMethodAndElseTheNearestIsNamed(t *testing.T) {
	rules := Rules{
		{Name: "auditors", SPIFFEID: "spiffe://jia.app/audit", Methods: []string{"*"}},
		{Name: "till", SPIFFEID: "spiffe://jia.app/till", Methods: []string{"q.T/N"}},
		{Name: "till-reads", SPIFFEID: "spiffe://jia.app/till", Methods: []string{"p.S/Get", "p.S/List"}},
		{Name: "shop", SPIFFEID: "spiffe://jia.app/shops/one", Methods: []string{"p.S/*"}},
		{Name: "shop", SPIFFEID: "spiffe://jia.app/shops/two", Methods: []string{"p.S/Get"}}, // the same allow, for another port
	}
	denied := func(reason Reason, nearest string) Verdict { return Verdict{Reason: reason, Nearest: nearest} }
	for name, c := range map[string]struct {
		caller, method string
		want           Verdict
	}{
		"a method by name":                   {"till", "/p.S/Get", Verdict{Allowed: true, Rule: "till-reads"}},
		"another rule of the caller":         {"till", "/q.T/N", Verdict{Allowed: true, Rule: "till"}},
		"a method of a service":              {"shops/one", "/p.S/Create", Verdict{Allowed: true, Rule: "shop"}},
		"a rule with the name of another":    {"shops/two", "/p.S/Get", Verdict{Allowed: true, Rule: "shop"}},
		"every method":                       {"audit", "/x.Y/Z", Verdict{Allowed: true, Rule: "auditors"}},
		"another method of the service":      {"till", "/p.S/Create", denied(MethodNotAllowed, "till-reads (this caller, other methods)")},
		"another service":                    {"till", "/x.Y/Z", denied(MethodNotAllowed, "till (this caller, other methods)")},
		"a service whose name begins alike":  {"shops/one", "/p.ST/Get", denied(MethodNotAllowed, "shop (this caller, other methods)")},
		"a stranger":                         {"other", "/q.T/N", denied(CallerUnknown, "auditors (this method, other callers)")},
		"a mistyped caller":                  {"tills", "/q.T/N", denied(CallerUnknown, "till (this method, other callers)")},
		"below a caller":                     {"till/x", "/p.S/Get", denied(CallerUnknown, "till-reads (this method, other callers)")},
		"a path without its slash":           {"till", "p.S/Get", denied(MethodNotAllowed, "till (this caller, other methods)")},
		"a method in another case":           {"till", "/p.S/get", denied(MethodNotAllowed, "till-reads (this caller, other methods)")},
		"no method":                          {"till", "", denied(MethodNotAllowed, "till (this caller, other methods)")},
		"a caller in another case":           {"Till", "/p.S/Get", denied(CallerUnknown, "auditors (this method, other callers)")},
		"a path without a slash, for all":    {"audit", "x.Y/Z", denied(MethodNotAllowed, "auditors (this caller, other methods)")},
		"a caller of another domain's name":  {"//other.app/till", "/p.S/Get", denied(CallerUnknown, "auditors (this method, other callers)")},
		"a caller of another domain, a path": {"//other.app/audit", "/x.Y/Z", denied(CallerUnknown, "auditors (this method, other callers)")},
	} {
		caller := "spiffe://jia.app/" + c.caller
		if c.caller[0] == '/' {
			caller = "spiffe:" + c.caller
		}
		if diff := cmp.Diff(c.want, rules.Decide(spiffeid.RequireFromString(caller), c.method)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if got := (Rules{}).Decide(spiffeid.RequireFromString("spiffe://jia.app/till"), "/p.S/Get"); got != denied(CallerUnknown, "none") {
		t.Errorf("no rules: got %+v", got)
	}
}

func TestAListAndATrustDomainLetTheirOwnCallEveryMethod(t *testing.T) {
	listed, sibling, foreign := spiffeid.RequireFromString("spiffe://jia.app/a"), spiffeid.RequireFromString("spiffe://jia.app/b"), spiffeid.RequireFromString("spiffe://other.app/a")
	list, domain := Callers{listed}, Domain(listed.TrustDomain())
	for caller, want := range map[spiffeid.ID][2]bool{listed: {true, true}, sibling: {false, true}, foreign: {false, false}, {}: {false, false}} {
		got := [2]bool{list.Decide(caller, "/p.S/M").Allowed, domain.Decide(caller, "/p.S/M").Allowed}
		if got != want {
			t.Errorf("%s: got %v, want %v", caller, got, want)
		}
	}
}
