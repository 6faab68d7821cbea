package mesh

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
)

// addEdges makes an edge of each dependency whose callee consents: an Upstream of the caller and, once the caller is
// trusted, a Rule of the callee. Then come the rules for callers outside the cluster.
func (b *builder) addEdges() {
	for _, caller := range b.services {
		for i := range caller.object.Spec.DependsOn {
			b.addDependency(caller, &caller.object.Spec.DependsOn[i])
			b.addEdge(caller, &caller.object.Spec.DependsOn[i])
		}
	}
	for _, callee := range b.services {
		b.closeRules(callee)
	}
}

// addDependency says what is known of the callee, consenting or not.
func (b *builder) addDependency(caller *service, dependency *meshv1alpha1.Dependency) {
	known := Dependency{
		Name: string(dependency.Name), Service: referenced(caller.object, dependency.Service),
		LocalPort: dependency.LocalPort, Timeout: metav1.Duration{Duration: dependency.Timeout.Duration()},
	}
	if callee := b.service[known.Service]; callee != nil && callee.Trusted {
		if port, ok := callee.portOf(dependency.Port); ok {
			known.ID, known.MeshPort = callee.ID, port.MeshPort
		}
	}
	caller.Dependencies = append(caller.Dependencies, known)
}

func (b *builder) addEdge(caller *service, dependency *meshv1alpha1.Dependency) {
	field := item("spec.dependsOn", string(dependency.Name))
	key := referenced(caller.object, dependency.Service)
	unresolved := func(reason, subfield, format string, args ...any) {
		b.report(caller.problem(meshv1alpha1.ConditionDependenciesResolved, reason, field+subfield, field+subfield+": "+fmt.Sprintf(format, args...)))
	}
	callee := b.service[key]
	if callee == nil {
		unresolved(meshv1alpha1.ReasonServiceNotFound, ".service", "there is no MeshService %s: create it, or correct the name", key)
		return
	}
	if !callee.Trusted {
		unresolved(meshv1alpha1.ReasonServiceNotAccepted, ".service", "MeshService %s has no accepted identity (yet): see why with kubectl describe -n %s meshservice/%s serviceidentity/%s",
			key, key.Namespace, key.Name, callee.Identity.Name)
		return
	}
	consents, pending := callee.consentsTo(caller)
	switch {
	case pending && len(consents) == 0:
		unresolved(meshv1alpha1.ReasonNotAllowed, ".service", "MeshService %s allows %s, which is not known to be this service's ID (yet): see why with kubectl describe -n %s serviceidentity/%s",
			key, caller.ID, caller.Identity.Namespace, caller.Identity.Name)
		return
	case len(consents) == 0:
		unresolved(meshv1alpha1.ReasonNotAllowed, ".service", "MeshService %s does not allow this service: write there, in spec, allow: [{name: %s, from: {service: {name: %s, namespace: %s}}, methods: [<package.Service/Method>]}]",
			key, caller.Key.Name, caller.Key.Name, caller.Key.Namespace)
		return
	}
	port, ok := callee.portOf(dependency.Port)
	if !ok {
		unresolved(meshv1alpha1.ReasonPortUnknown, ".port", "%s", callee.portProblem(dependency.Port))
		return
	}
	caller.Upstreams = append(caller.Upstreams, Upstream{
		Name: string(dependency.Name), Service: key, ID: callee.ID, PortName: port.Name, MeshPort: port.MeshPort,
		LocalPort: dependency.LocalPort, Timeout: timeoutOf(dependency.Timeout),
	})
	if caller.Trusted {
		callee.admit(caller, consents, port.Name)
	}
}

// consentsTo are the allow rules that name the caller, as a MeshService or by its SPIFFE ID. A caller that only claims an
// ID has no consent by it; pending says that there would be one.
func (s *service) consentsTo(caller *service) (consents []*meshv1alpha1.AllowRule, pending bool) {
	for i := range s.object.Spec.Allow {
		allow := &s.object.Spec.Allow[i]
		switch from := allow.From; {
		case from.Service != nil && referenced(s.object, *from.Service) == caller.Key:
			consents = append(consents, allow)
		case from.Service == nil && caller.identified && string(from.SPIFFEID) == caller.ID.String():
			if caller.Trusted {
				consents = append(consents, allow)
			} else {
				pending = true
			}
		}
	}
	return consents, pending
}

// admit adds a rule for each allow that names the caller as a MeshService, for the port that it depends on. A rule for a
// SPIFFE ID is for every port and stands anyway: only whose pods have the ID is known now.
func (s *service) admit(caller *service, consents []*meshv1alpha1.AllowRule, port string) {
	who := Caller{Kind: KindMeshService, Key: caller.Key}
	for _, allow := range consents {
		name := string(allow.Name)
		if _, ok := s.used[name]; !ok {
			s.used[name] = who
		}
		if allow.From.Service == nil || slices.ContainsFunc(s.Rules, func(r Rule) bool { return r.Name == name && r.PortName == port }) {
			continue
		}
		s.Rules = append(s.Rules, Rule{Name: name, ID: caller.ID, Caller: who, Methods: methodsOf(allow), PortName: port})
	}
}

// closeRules adds the rules for SPIFFE IDs, which have no other half, and lists the rules that nobody uses.
func (b *builder) closeRules(s *service) {
	for i := range s.object.Spec.Allow {
		allow := &s.object.Spec.Allow[i]
		name := string(allow.Name)
		who, used := s.used[name]
		if allow.From.Service != nil {
			if !used {
				s.UnusedAllows = append(s.UnusedAllows, name)
			}
			continue
		}
		id, err := spiffeid.FromString(string(allow.From.SPIFFEID))
		if err != nil {
			field := item("spec.allow", name) + ".from.spiffeID"
			b.report(s.problem(meshv1alpha1.ConditionAccepted, meshv1alpha1.ReasonPathInvalid, field, fmt.Sprintf("%s %q is no SPIFFE ID (%v): correct it", field, allow.From.SPIFFEID, err)))
			continue
		}
		rule := Rule{Name: name, ID: id, Caller: who, Methods: methodsOf(allow)}
		if sidecar := s.DataPlane != meshv1alpha1.DataPlaneLibrary; sidecar && id.TrustDomain() != b.Cluster.TrustDomain {
			field := item("spec.allow", name) + ".from.spiffeID"
			b.report(s.problem(meshv1alpha1.ConditionAccepted, meshv1alpha1.ReasonTrustDomainForeign, field, fmt.Sprintf(
				"%s %s is of another trust domain than %s, whose certificates alone the sidecars take: no such caller could come in, so the port is not opened for it: leave the rule out, or give the caller an ID of %s",
				field, id, b.Cluster.TrustDomain.Name(), b.Cluster.TrustDomain.Name())))
			s.Foreign = append(s.Foreign, rule)
			continue
		}
		s.Rules = append(s.Rules, rule)
	}
	slices.Sort(s.UnusedAllows)
}

func methodsOf(allow *meshv1alpha1.AllowRule) []string {
	methods := make([]string, len(allow.Methods))
	for i, method := range allow.Methods {
		methods[i] = string(method)
	}
	slices.Sort(methods)
	return methods
}

// portProblem says why a port of the service cannot be told.
func (s *service) portProblem(name string) string {
	switch names := strings.Join(s.portNames(), ", "); {
	case names == "":
		return fmt.Sprintf("MeshService %s has no ports: write there, in spec, ports: [{name: grpc, port: <port>, protocol: GRPC}]", s.Key)
	case name == "":
		return fmt.Sprintf("MeshService %s has several ports: choose one of %s", s.Key, names)
	default:
		return fmt.Sprintf("MeshService %s has no port %q: choose one of %s", s.Key, name, names)
	}
}

// item is the path of an item of a list that is keyed by names.
func item(list, name string) string { return list + "[name=" + name + "]" }
