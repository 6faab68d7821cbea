package config

import (
	"fmt"
	"reflect"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// MaxPolicy bounds the file of a policy, in bytes: a ConfigMap has no more.
const MaxPolicy = 1 << 20

// Policy is the whole of the file that auth.policy_file names: who may call which method. What no rule lets in is refused.
type Policy struct {
	Rules []PolicyRule `yaml:"rules"`
}

// PolicyRule lets one caller call methods.
type PolicyRule struct {
	// Name stands in logs. Several rules may have one: an allow is a rule for each port that its caller depends on.
	Name string `yaml:"name"`
	// SPIFFEID is the caller's, to the letter.
	SPIFFEID string `yaml:"spiffe_id"`
	// Methods are package.Service/Method, package.Service/* or *; at least one.
	Methods []string `yaml:"methods"`
}

// ParsePolicy reads a policy. It takes no unknown key, and no file without the key rules: one that is cut off or empty must
// not pass for one that lets nobody in, which is written as rules: []. The error has a line for each thing that is wrong.
func ParsePolicy(name string, text []byte) (Policy, error) {
	if len(text) > MaxPolicy {
		return Policy{}, fmt.Errorf("%s: has %d bytes: want at most %d", name, len(text), MaxPolicy)
	}
	var policy Policy
	d := decoder{file: name, env: noVariables, keep: true}
	d.document(text, reflect.ValueOf(&policy).Elem())
	if err := d.problems.err(); err != nil {
		return Policy{}, err
	}
	if err := policy.problems().in(name).err(); err != nil {
		return Policy{}, err
	}
	return policy, nil
}

// Marshal writes a policy that ParsePolicy reads, the rules in the order that they have.
func (p Policy) Marshal() ([]byte, error) {
	if p.Rules == nil {
		p.Rules = []PolicyRule{}
	}
	if err := p.problems().err(); err != nil {
		return nil, fmt.Errorf("write the policy: %w", err)
	}
	text, err := yaml.Marshal(p)
	if err == nil && len(text) > MaxPolicy {
		err = fmt.Errorf("it has %d bytes: want at most %d", len(text), MaxPolicy)
	}
	if err != nil {
		return nil, fmt.Errorf("write the policy: %w", err)
	}
	return text, nil
}

func (p Policy) problems() problems {
	var found problems
	if p.Rules == nil {
		found.add("rules", "is required; [] lets nobody in")
	}
	for i, rule := range p.Rules {
		key := fmt.Sprintf("rules[%d]", i)
		found.required(key+".name", rule.Name)
		found.id(key+".spiffe_id", rule.SPIFFEID)
		if len(rule.Methods) == 0 {
			found.add(key+".methods", `is empty: want package.Service/Method, package.Service/*, or "*" for all`)
		}
		for j, method := range rule.Methods {
			if method != "*" && !methodPattern.MatchString(method) {
				found.add(fmt.Sprintf("%s.methods[%d]", key, j), `is %q: want package.Service/Method, package.Service/*, or "*" for all`, method)
			}
		}
	}
	return found
}

var methodPattern = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_]*\.)*[A-Za-z_][A-Za-z0-9_]*/(\*|[A-Za-z_][A-Za-z0-9_]*)$`)

// Allows says that the rule is about a method, given as gRPC has it: /package.Service/Method.
func (r PolicyRule) Allows(fullMethod string) bool {
	service, method, found := strings.Cut(strings.TrimPrefix(fullMethod, "/"), "/")
	if !found || !strings.HasPrefix(fullMethod, "/") {
		return false
	}
	for _, allowed := range r.Methods {
		if allowed == "*" || allowed == service+"/"+method || allowed == service+"/*" {
			return true
		}
	}
	return false
}
