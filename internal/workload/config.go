package workload

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/payment/config"
)

// The keys of the process's ConfigMaps.
const (
	configFile = "config.yaml"
	policyFile = "policy.yaml"
)

const configField = "spec.workload.config"

// rules are the ConfigMap of who may call, which a process without a sidecar enforces itself. It is apart from config.yaml, and
// written whatever is wrong with that or with a dependency: who may not call any more must not wait for somebody else's
// repair. It is there beside a sidecar, too: while dataPlane changes, pods without one run yet. But a sidecar takes more rules
// than the file holds, and nobody has to shorten them for a file that is not read.
func (p *process) rules() (Object, *mesh.Problem) {
	policy, err := p.policy()
	switch {
	case err != nil && p.sidecar:
		return nil, nil
	case err != nil:
		problem := p.problem(meshv1alpha1.ReasonConfigInvalid, "spec.allow", err.Error()+": shorten the rules")
		return nil, &problem
	}
	return p.role.configMap("-policy", map[string]string{policyFile: policy}), nil
}

// files are the ConfigMap with config.yaml, where the spec has a config.
func (p *process) files() (map[string]string, []mesh.Problem) {
	if p.Workload.Config == nil {
		return nil, nil
	}
	text, problems := p.config()
	return map[string]string{configFile: text}, problems
}

// policy is who may call which method, in a process's own words. A rule that the mesh has for several ports is one here.
func (p *process) policy() (string, error) {
	var policy config.Policy
	for _, rule := range p.Rules {
		if slices.ContainsFunc(policy.Rules, func(r config.PolicyRule) bool { return r.Name == rule.Name }) {
			continue
		}
		policy.Rules = append(policy.Rules, config.PolicyRule{Name: rule.Name, SPIFFEID: rule.ID.String(), Methods: rule.Methods})
	}
	text, err := policy.Marshal()
	return string(text), err
}

// config is the spec's config with what the mesh decides, checked as the process will check it: whoever reads the condition
// learns there what the process would say in its log.
func (p *process) config() (string, []mesh.Problem) {
	values, err := decode(p.Workload.Config.Raw)
	if err != nil {
		return "", []mesh.Problem{p.problem(meshv1alpha1.ReasonConfigInvalid, configField, "is no object ("+err.Error()+"): write the keys of config.yaml with their values")}
	}
	c := configCheck{process: p, given: values.clone()}
	for _, key := range slices.Sorted(maps.Keys(p.decided)) {
		if have, given := values.get(key); given && !reflect.DeepEqual(have, p.decided[key]) {
			c.add(configField+"."+key, fmt.Sprintf("is decided by the mesh (%v): leave it out", p.decided[key]))
			continue
		}
		values.set(key, p.decided[key])
	}
	for key, value := range p.defaults() {
		if _, given := values.get(key); !given {
			values.set(key, value)
		}
	}
	text, err := yaml.Marshal(values) // its keys are sorted
	if err != nil {
		c.add(configField, err.Error())
	}
	if len(c.problems) == 0 {
		c.text(text)
	}
	c.overrides()
	return string(text), c.problems
}

// decide makes the values that the mesh decides. They do not depend on what other services allow.
func (p *process) decide() map[string]any {
	if p.Workload.Config == nil {
		return nil
	}
	values := map[string]any{
		"http.address":            fmt.Sprintf(":%d", mesh.HTTPPort),
		"service_mesh.enabled":    true,
		"service_mesh.spiffe_id":  p.ID.String(),
		"service_mesh.trust_xfcc": p.sidecar,
		"mtls.enabled":            !p.sidecar,
	}
	host := "127.0.0.1"
	if p.sidecar {
		values["service_mesh.discovery.scheme"] = "xds"
		values["service_mesh.discovery.envoy_address"] = fmt.Sprintf("127.0.0.1:%d", mesh.AdminPort)
	} else {
		host = ""
		values["mtls.workload_api"] = "unix://" + p.options.SocketPath()
		values["auth.policy_file"] = policyDir + "/" + policyFile
	}
	if len(p.Ports) > 0 { // the payment service listens on one port: of several it is the first
		port := p.Ports[0].Port
		if !p.sidecar {
			port = p.Ports[0].MeshPort
		}
		values["grpc.address"] = fmt.Sprintf("%s:%d", host, port)
	}
	for _, dependency := range p.Dependencies {
		if key, ok := externalService(dependency.Name); ok {
			values[key+".address"] = p.address(dependency)
			if !p.sidecar {
				values[key+".spiffe_id"] = dependency.ID.String()
			}
		}
	}
	return values
}

// defaults are values that the spec's config may change.
func (p *process) defaults() map[string]any {
	values := map[string]any{}
	if p.Workload.Persistence != nil {
		values["store.path"] = p.mountPath() + "/payments.db"
	}
	for _, dependency := range p.Dependencies {
		if key, ok := externalService(dependency.Name); ok && dependency.Timeout.Duration > 0 {
			const longest = 60 // that config.yaml takes
			values[key+".timeout_seconds"] = min(longest, int(math.Ceil(float64(dependency.Timeout.Duration)/float64(time.Second))))
		}
	}
	return values
}

// externalService is the section of config.yaml for a dependency, if there is one of its name.
func externalService(dependency string) (key string, ok bool) {
	key = "external_services." + strings.ReplaceAll(dependency, "-", "_")
	return key, slices.ContainsFunc(config.Keys(), func(k config.Key) bool { return k.Path == key+".address" })
}

// tree is YAML or JSON: maps of maps, by keys that a path joins with dots.
type tree map[string]any

// decode reads a JSON object, with its numbers as they are written.
func decode(raw []byte) (tree, error) {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	var values tree
	if err := decoder.Decode(&values); err != nil {
		return nil, fmt.Errorf("read JSON: %w", err)
	}
	if values == nil {
		return nil, errors.New("it is null")
	}
	return values, nil
}

func (t tree) get(path string) (value any, given bool) {
	section, rest, more := strings.Cut(path, ".")
	value, given = t[section]
	if !more || !given {
		return value, given
	}
	if below, ok := value.(map[string]any); ok {
		return tree(below).get(rest)
	}
	return nil, false
}

// set leaves a section alone that is no section: the check names it.
func (t tree) set(path string, value any) {
	section, rest, more := strings.Cut(path, ".")
	if !more {
		t[section] = value
		return
	}
	if _, given := t[section]; !given {
		t[section] = map[string]any{}
	}
	if below, ok := t[section].(map[string]any); ok {
		tree(below).set(rest, value)
	}
}

func (t tree) clone() tree {
	cloned := tree{}
	for key, value := range t {
		if below, ok := value.(map[string]any); ok {
			value = map[string]any(tree(below).clone())
		}
		cloned[key] = value
	}
	return cloned
}
