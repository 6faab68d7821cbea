// Package policy says which workload may call which method: rules go in, from the configuration or a watched file, and
// verdicts come out, each with the rule that lets a call in or came nearest.
package policy

import (
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/jia-app/paymesh/payment/config"
)

// Reason says why a call is denied. Metrics have it as a label.
type Reason string

// The reasons.
const (
	// CallerUnknown says that no rule names the caller.
	CallerUnknown Reason = "caller_unknown"
	// MethodNotAllowed says that a rule names the caller, and none of them this method.
	MethodNotAllowed Reason = "method_not_allowed"
)

// Verdict is what becomes of a call.
type Verdict struct {
	Allowed bool
	// Rule is the name of the rule that lets the call in.
	Rule string
	// Reason says why the call is denied.
	Reason Reason
	// Nearest says which rule came nearest to letting it in, in the words of a sidecar's access log; "none" where nothing did.
	Nearest string
}

// How a rule came near that does not let a call in, as in a sidecar's access log.
const (
	nearCaller = " (this caller, other methods)"
	nearMethod = " (this method, other callers)"
	nothing    = "none"
)

// Rules are those of a policy.
type Rules []config.PolicyRule

// Decide judges a call of a method, given as gRPC has it: /package.Service/Method.
func (r Rules) Decide(caller spiffeid.ID, fullMethod string) Verdict {
	id := caller.String()
	var ofCaller, ofMethod nearest
	for _, rule := range r {
		about := rule.Allows(fullMethod)
		switch {
		case rule.SPIFFEID == id && about:
			return Verdict{Allowed: true, Rule: rule.Name}
		case rule.SPIFFEID == id:
			ofCaller.offer(rule.Name, sameService(rule, fullMethod))
		case about:
			ofMethod.offer(rule.Name, commonPrefix(rule.SPIFFEID, id))
		}
	}
	switch {
	case ofCaller.found:
		return Verdict{Reason: MethodNotAllowed, Nearest: ofCaller.name + nearCaller}
	case ofMethod.found:
		return Verdict{Reason: CallerUnknown, Nearest: ofMethod.name + nearMethod}
	}
	return Verdict{Reason: CallerUnknown, Nearest: nothing}
}

// nearest keeps the best of what it is offered, of equals the first.
type nearest struct {
	name  string
	score int
	found bool
}

func (n *nearest) offer(name string, score int) {
	if !n.found || score > n.score {
		*n = nearest{name, score, true}
	}
}

// sameService is 1 where a rule is about another method of the same service.
func sameService(rule config.PolicyRule, fullMethod string) int {
	service := fullMethod[:strings.LastIndexByte(fullMethod, '/')+1]
	for _, method := range rule.Methods {
		if strings.HasPrefix("/"+method, service) {
			return 1
		}
	}
	return 0
}

// commonPrefix is how far two IDs are the same: a mistyped one is meant for its neighbour.
func commonPrefix(a, b string) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

// Callers let the workloads that they list call every method.
type Callers []spiffeid.ID

// Decide judges a call.
func (c Callers) Decide(caller spiffeid.ID, _ string) Verdict {
	for _, id := range c {
		if id == caller {
			return Verdict{Allowed: true, Rule: "auth.allowed_spiffe_ids"}
		}
	}
	return Verdict{Reason: CallerUnknown, Nearest: "none: auth.allowed_spiffe_ids lists other callers"}
}

// Domain lets the workloads of a trust domain call every method: behind a sidecar, which has judged by its own rules.
type Domain spiffeid.TrustDomain

// Decide judges a call.
func (d Domain) Decide(caller spiffeid.ID, _ string) Verdict {
	if domain := spiffeid.TrustDomain(d); !caller.MemberOf(domain) {
		return Verdict{Reason: CallerUnknown, Nearest: fmt.Sprintf("none: without a list of callers those of %s may call", domain)}
	}
	return Verdict{Allowed: true, Rule: "the sidecar's"}
}
