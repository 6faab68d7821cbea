package mesh_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/corpus"
	"github.com/jia-app/paymesh/internal/mesh"
)

func TestEveryEdgeHasBothHalves(t *testing.T) {
	corpus.Each(t, func(t *testing.T, c corpus.Case) {
		m, _ := mesh.Build(c.Objects)
		for _, caller := range m.Services {
			for _, upstream := range caller.Upstreams {
				callee, ok := m.Service(upstream.Service)
				if !ok || callee.ID != upstream.ID {
					t.Errorf("%s calls %s, which is not in the mesh with the ID %s", caller.Key, upstream.Service, upstream.ID)
				}
				if port := portOf(callee, upstream.PortName); port.MeshPort != upstream.MeshPort {
					t.Errorf("%s calls %s at %d, where no port %q is", caller.Key, callee.Key, upstream.MeshPort, upstream.PortName)
				}
				if caller.Trusted && !slices.ContainsFunc(callee.Rules, func(rule mesh.Rule) bool {
					return rule.ID == caller.ID && rule.Caller.Key == caller.Key && (rule.PortName == "" || rule.PortName == upstream.PortName)
				}) {
					t.Errorf("%s calls %s, which has no rule for it", caller.Key, callee.Key)
				}
			}
		}
		for _, callee := range m.Services {
			for _, rule := range callee.Rules {
				if !called(m, callee, rule) {
					t.Errorf("%s has the rule %s, of which %v does not know", callee.Key, rule.Name, rule.Caller)
				}
			}
		}
	})
}

// called reports whether the caller of a rule has the other half of it. A caller outside the cluster has none.
func called(m mesh.Mesh, callee mesh.Service, rule mesh.Rule) bool {
	switch rule.Caller.Kind {
	case mesh.KindMeshService:
		caller, ok := m.Service(rule.Caller.Key)
		return ok && caller.Trusted && caller.ID == rule.ID && slices.ContainsFunc(caller.Upstreams, func(upstream mesh.Upstream) bool {
			return upstream.Service == callee.Key && upstream.ID == callee.ID && (rule.PortName == "" || rule.PortName == upstream.PortName)
		})
	case mesh.KindMeshGateway:
		gateway, ok := m.Gateway(rule.Caller.Key)
		return ok && gateway.Trusted && gateway.ID == rule.ID && slices.ContainsFunc(gateway.Routes, func(route mesh.Route) bool {
			return route.Service == callee.Key && "expose:"+route.Name == rule.Name && route.PortName == rule.PortName && slices.Equal(namesOf(route.Methods), rule.Methods)
		})
	default:
		return rule.Caller == mesh.Caller{}
	}
}

func TestEveryRouteHasItsRuleAndAsManyMethodsAsThat(t *testing.T) {
	corpus.Each(t, func(t *testing.T, c corpus.Case) {
		m, _ := mesh.Build(c.Objects)
		for _, gateway := range m.Gateways {
			for _, route := range gateway.Routes {
				service, _ := m.Service(route.Service)
				if !slices.ContainsFunc(service.Rules, func(rule mesh.Rule) bool {
					return rule.Name == "expose:"+route.Name && rule.ID == gateway.ID && rule.Caller.Key == gateway.Key
				}) {
					t.Errorf("%s has the route %s to %s, which has no rule for it", gateway.Key, route.Name, service.Key)
				}
				if !slices.ContainsFunc(gateway.JWT, func(provider mesh.JWTProvider) bool { return provider.Name == route.JWT }) {
					t.Errorf("route %s of %s is open: there is no jwt %q", route.Name, gateway.Key, route.JWT)
				}
				if port := portOf(service, route.PortName); port.MeshPort != route.MeshPort {
					t.Errorf("route %s leads to %d, where no port %q is", route.Name, route.MeshPort, route.PortName)
				}
				if len(route.Methods) == 0 || route.Transcode && len(route.Descriptors) == 0 || !route.Transcode && !route.GRPC {
					t.Errorf("route %s serves nothing", route.Name)
				}
			}
		}
	})
}

func TestNobodyIsTrustedWithoutAnAcceptedIdentityAndNoPeerNamesWhoIsNot(t *testing.T) {
	corpus.Each(t, func(t *testing.T, c corpus.Case) {
		m, _ := mesh.Build(c.Objects)
		accepted := map[types.NamespacedName]string{}
		for i := range c.Objects.Identities {
			object := &c.Objects.Identities[i]
			for _, condition := range object.Status.Conditions {
				if condition.Type == meshv1alpha1.ConditionAccepted && condition.Status == "True" {
					accepted[mesh.KeyOf(object)] = m.Cluster.IDOf(object)
				}
			}
		}
		trusted := sets.New[spiffeid.ID]()
		trust := func(key, identity types.NamespacedName, id spiffeid.ID, itIs bool) {
			if itIs {
				trusted.Insert(id)
			}
			if itIs && accepted[identity] != id.String() {
				t.Errorf("%s is trusted as %s, and its ServiceIdentity %s is accepted as %q", key, id, identity, accepted[identity])
			}
		}
		for _, service := range m.Services {
			trust(service.Key, service.Identity, service.ID, service.Trusted)
		}
		for _, gateway := range m.Gateways {
			trust(gateway.Key, gateway.Identity, gateway.ID, gateway.Trusted)
			if len(gateway.Routes) > 0 && !gateway.Trusted {
				t.Errorf("%s has routes and is not trusted", gateway.Key)
			}
			for _, route := range gateway.Routes {
				trust(gateway.Key, route.Service, route.ID, false)
				if !trusted.Has(route.ID) {
					t.Errorf("a route of %s leads to %s, who is not trusted", gateway.Key, route.ID)
				}
			}
		}
		for _, service := range m.Services {
			for _, upstream := range service.Upstreams {
				if !trusted.Has(upstream.ID) {
					t.Errorf("%s calls %s, who is not trusted", service.Key, upstream.ID)
				}
			}
			for _, rule := range service.Rules {
				if rule.Caller != (mesh.Caller{}) && !trusted.Has(rule.ID) {
					t.Errorf("%s lets in %s, who is not trusted", service.Key, rule.ID)
				}
			}
		}
	})
}

var variable = regexp.MustCompile(`\{[^{}=]*(=([^{}]*))?\}`)

func TestNoTwoRoutesOfAGatewayHaveAPathUnderOneHostName(t *testing.T) {
	corpus.Each(t, func(t *testing.T, c corpus.Case) {
		m, _ := mesh.Build(c.Objects)
		for _, gateway := range m.Gateways {
			owner := map[string]string{}
			claim := func(path, who string) {
				if other, taken := owner[path]; taken {
					t.Errorf("%s of %s belongs to %s and %s", path, gateway.Key, other, who)
				}
				owner[path] = who
			}
			for _, route := range gateway.Routes {
				for _, hostname := range route.Hostnames {
					for _, method := range route.Methods {
						who := route.Service.String() + " " + route.Name + " " + method.Name
						for _, binding := range method.Bindings {
							claim(hostname+" "+binding.HTTPMethod+" "+variable.ReplaceAllStringFunc(binding.Template.String(), func(text string) string {
								if pattern := variable.FindStringSubmatch(text)[2]; pattern != "" {
									return pattern
								}
								return "*"
							}), who)
						}
						if route.GRPC {
							claim(hostname+" /"+method.Service+"/"+method.Name, who)
						}
					}
				}
			}
			for path, who := range owner {
				service, _, all := strings.Cut(path, "/*")
				for other, whose := range owner {
					if all && strings.Contains(path, " /") && other != path && strings.HasPrefix(other, service+"/") {
						t.Errorf("%s has all of %s, of which %s has %s", who, service, whose, other)
					}
				}
			}
		}
	})
}

func TestEveryServiceAndGatewayIsInTheMeshOrHasAProblemOfItsIdentity(t *testing.T) {
	corpus.Each(t, func(t *testing.T, c corpus.Case) {
		m, problems := mesh.Build(c.Objects)
		refused := sets.New[mesh.ProxyKey]()
		for _, problem := range problems {
			if problem.Condition == meshv1alpha1.ConditionAccepted && problem.Reason != meshv1alpha1.ReasonKeysInvalid && problem.Reason != meshv1alpha1.ReasonDescriptorInvalid &&
				!strings.HasPrefix(problem.Field, "spec.allow") {
				refused.Insert(mesh.ProxyKey{Kind: problem.Kind, NamespacedName: problem.Object})
			}
		}
		for _, object := range c.Objects.Services {
			key := mesh.ProxyKey{Kind: mesh.KindMeshService, NamespacedName: types.NamespacedName{Namespace: object.Namespace, Name: object.Name}}
			if service, ok := m.Service(key.NamespacedName); ok == refused.Has(key) || ok && len(service.Ports) != len(object.Spec.Ports) {
				t.Errorf("%s: in the mesh %v, refused %v", key, ok, refused.Has(key))
			}
		}
		for _, object := range c.Objects.Gateways {
			key := mesh.ProxyKey{Kind: mesh.KindMeshGateway, NamespacedName: types.NamespacedName{Namespace: object.Namespace, Name: object.Name}}
			if _, ok := m.Gateway(key.NamespacedName); ok == refused.Has(key) {
				t.Errorf("%s: in the mesh %v, refused %v", key, ok, refused.Has(key))
			}
		}
	})
}

func TestNoMessageRepeatsWhatAKeyHolds(t *testing.T) {
	corpus.Each(t, func(t *testing.T, c corpus.Case) {
		_, problems := mesh.Build(c.Objects)
		for _, problem := range problems {
			for _, object := range c.Objects.ConfigMaps {
				for key, value := range object.Data {
					for _, member := range regexp.MustCompile(`"(?:d|k|n|x|y)":"([^"]+)"`).FindAllStringSubmatch(value, -1) {
						if strings.Contains(problem.Message, member[1]) {
							t.Errorf("%s repeats a member of key %s", problem, key)
						}
					}
				}
			}
		}
	})
}

func TestANodeIDIsReadAsItWasWritten(t *testing.T) {
	for _, kind := range []string{mesh.KindMeshService, mesh.KindMeshGateway} {
		want := mesh.ProxyKey{Kind: kind, NamespacedName: types.NamespacedName{Namespace: "payments", Name: "payment-service"}}
		got, pod, err := mesh.ParseNodeID(want.NodeID("pod-1"))
		if err != nil || got != want || pod != "pod-1" {
			t.Errorf("got %v, %q, %v", got, pod, err)
		}
	}
	for _, id := range []string{"", "meshservice/a/b", "meshservice/a/b/c/d", "MeshService/a/b/c", "serviceidentity/a/b/c", "meshservice//b/c", "meshservice/a/b/"} {
		if key, pod, err := mesh.ParseNodeID(id); err == nil {
			t.Errorf("%q was read as %v, %q", id, key, pod)
		}
	}
}

func portOf(service mesh.Service, name string) mesh.Port {
	i := slices.IndexFunc(service.Ports, func(port mesh.Port) bool { return port.Name == name })
	if i < 0 {
		return mesh.Port{}
	}
	return service.Ports[i]
}

func namesOf(methods []mesh.Method) []string {
	var names []string
	for _, method := range methods {
		names = append(names, method.Service+"/"+method.Name)
	}
	return names
}
