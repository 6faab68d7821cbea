package mesh

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/descriptor"
)

// candidate is an exposure that its gateway serves, unless somebody else has a path of it.
type candidate struct {
	gateway  *gateway
	service  *service
	exposure *meshv1alpha1.Exposure
	route    Route
	rank     int // at first whether it is served, and then among the candidates
	wants    []want
	// recorded are its claims that are on record; incumbent is true where all are.
	recorded  []*claim
	incumbent bool
	served    bool
	// sizeAlone and sizeShared are what its routes take under one host name, where they have been counted.
	sizeAlone, sizeShared int
	described             bool // each method is
}

// addExposures makes a Route of each exposure that its gateway admits and that nobody stands against, and the service's Rule
// for the gateway.
func (b *builder) addExposures() {
	var candidates []*candidate
	of := map[*meshv1alpha1.Exposure]*candidate{}
	for _, s := range b.services {
		for i := range s.object.Spec.Expose {
			exposure := &s.object.Spec.Expose[i]
			if c, refused := b.judge(s, exposure); refused != nil {
				b.unexposed(s, exposure, *refused)
			} else {
				candidates = append(candidates, c)
				of[exposure] = c
			}
		}
	}
	byAge(candidates)
	all := newPathClaims(candidates)
	order(candidates)
	var fit []*candidate
	used := rooms{}
	for _, c := range candidates {
		take, refused := used.fit(c)
		if refused == nil {
			refused = all.judge(c)
		}
		if refused != nil {
			b.unexposed(c.service, c.exposure, *refused)
			continue
		}
		take()
		all.grant(c)
		fit = append(fit, c)
	}
	used.describe()
	for _, c := range fit {
		c.accept()
	}
	for _, s := range b.services {
		b.keepRecords(s, of, all)
	}
}

func (c *candidate) accept() {
	c.served = true
	c.gateway.Routes = append(c.gateway.Routes, c.route)
	c.service.Rules = append(c.service.Rules, Rule{
		Name: "expose:" + c.route.Name, ID: c.gateway.ID, Caller: Caller{Kind: KindMeshGateway, Key: c.gateway.Key},
		Methods: c.route.methodNames(), PortName: c.route.PortName,
	})
}

// refusal is why an exposure is not served; the field is below the exposure.
type refusal struct{ reason, field, message string }

func refuse(reason, field, format string, args ...any) *refusal {
	return &refusal{reason, field, fmt.Sprintf(format, args...)}
}

func (b *builder) unexposed(s *service, exposure *meshv1alpha1.Exposure, r refusal) {
	field := item("spec.expose", string(exposure.Name)) + r.field
	b.report(s.problem(meshv1alpha1.ConditionExposed, r.reason, field, field+": "+r.message))
}

// judge checks an exposure by itself and against its gateway.
func (b *builder) judge(s *service, exposure *meshv1alpha1.Exposure) (*candidate, *refusal) {
	if !s.Trusted {
		return nil, refuse(meshv1alpha1.ReasonServiceNotAccepted, "", "this service has no accepted identity (yet): see why with kubectl describe -n %s serviceidentity/%s",
			s.Identity.Namespace, s.Identity.Name)
	}
	g := b.gateway[referenced(s.object, exposure.Gateway)]
	if refused := b.judgeGateway(g, s, exposure); refused != nil {
		return nil, refused
	}
	port, ok := s.portOf(exposure.Port)
	if !ok {
		return nil, refuse(meshv1alpha1.ReasonPortUnknown, ".port", "%s", s.portProblem(exposure.Port))
	}
	methods, refused := b.judgeMethods(s, exposure)
	if refused != nil {
		return nil, refused
	}
	c := &candidate{gateway: g, service: s, exposure: exposure, route: Route{
		Service: s.Key, Name: string(exposure.Name), ID: s.ID, PortName: port.Name, MeshPort: port.MeshPort,
		Methods: methods, JWT: string(exposure.Auth.JWT), Transcode: exposure.Transcode,
		GRPC: slices.Contains(exposure.Protocols, meshv1alpha1.NativeGRPC),
	}}
	for _, hostname := range exposure.Hostnames {
		c.route.Hostnames = append(c.route.Hostnames, string(hostname))
	}
	slices.Sort(c.route.Hostnames)
	c.wants = c.route.wants()
	if refused := tooMany(c.wants); refused != nil {
		return nil, refused
	}
	return c, nil
}

// judgeGateway checks that the gateway is there and admits the exposure.
func (b *builder) judgeGateway(g *gateway, s *service, exposure *meshv1alpha1.Exposure) *refusal {
	if g == nil {
		return refuse(meshv1alpha1.ReasonGatewayNotFound, ".gateway", "there is no MeshGateway %s: create it, or correct the name", referenced(s.object, exposure.Gateway))
	}
	if !g.Trusted {
		return refuse(meshv1alpha1.ReasonGatewayNotAccepted, ".gateway", "MeshGateway %s has no accepted identity (yet): see why with kubectl describe -n %s meshgateway/%s serviceidentity/%s",
			g.Key, g.Key.Namespace, g.Key.Name, g.Identity.Name)
	}
	var unadmitted []string
	for _, hostname := range exposure.Hostnames {
		if !g.admits(s.Key.Namespace, string(hostname)) {
			unadmitted = append(unadmitted, string(hostname))
		}
	}
	if len(unadmitted) > 0 {
		slices.Sort(unadmitted)
		names := strings.Join(unadmitted, ", ")
		return refuse(meshv1alpha1.ReasonNotAdmitted, ".hostnames", "MeshGateway %s does not admit namespace %s with %s: write there, in spec, routes: [{name: %s, namespaces: [%s], hostnames: [%s]}]",
			g.Key, s.Key.Namespace, names, s.Key.Namespace, s.Key.Namespace, names)
	}
	jwt := string(exposure.Auth.JWT)
	if g.keyless.Has(jwt) {
		return refuse(meshv1alpha1.ReasonGatewayNotAccepted, ".auth.jwt", "MeshGateway %s has no keys of its jwt %s: see why with kubectl describe -n %s meshgateway/%s",
			g.Key, jwt, g.Key.Namespace, g.Key.Name)
	}
	if !slices.ContainsFunc(g.JWT, func(provider JWTProvider) bool { return provider.Name == jwt }) {
		return refuse(meshv1alpha1.ReasonJWTUnknown, ".auth.jwt", "MeshGateway %s has no jwt %q: choose one of those that it has (%s), or write there, in spec, jwt: [{name: %s, issuer: <issuer>, audiences: [<audience>], jwks: {configMap: <name>, key: <key>}}]",
			g.Key, jwt, cmp.Or(strings.Join(g.jwtNames(), ", "), "none"), jwt)
	}
	return nil
}

// judgeMethods is what the exposure's methods are, sorted. Without a descriptor set they are taken at their word.
func (b *builder) judgeMethods(s *service, exposure *meshv1alpha1.Exposure) ([]Method, *refusal) {
	b.readAPI(s)
	if s.apiBroken || s.api == nil && exposure.Transcode {
		return nil, refuse(meshv1alpha1.ReasonMethodUnknown, ".methods", "without a valid descriptor set nobody knows the methods: correct spec.api.descriptorSet")
	}
	if s.api == nil {
		return unchecked(exposure), nil
	}
	methods := map[string]Method{}
	for _, name := range exposure.Methods {
		found, err := s.api.Methods(string(name))
		if err != nil {
			return nil, refuse(meshv1alpha1.ReasonMethodUnknown, ".methods", "%v", err)
		}
		for _, of := range found {
			method := Method{Service: of.Service, Name: of.Name, Idempotency: of.Idempotency}
			if exposure.Transcode {
				if refused := transcodable(s.api, of); refused != nil {
					return nil, refused
				}
				method.Bindings = of.Bindings
			}
			methods[method.FullName()] = method
		}
	}
	return sorted(methods), nil
}

// transcodable says why a method cannot be served as JSON; nil where it can.
func transcodable(set *descriptor.Set, method descriptor.Method) *refusal {
	name := method.Service + "." + method.Name
	switch err := set.CheckBindings(method.Service); {
	case err != nil:
		return refuse(meshv1alpha1.ReasonMethodUnknown, ".methods", "%v", err)
	case method.Streams:
		return refuse(meshv1alpha1.ReasonMethodUnknown, ".methods", "%s streams, which JSON over HTTP cannot: leave it out, or expose it by protocols: [GRPC] in an exposure of its own", name)
	case len(method.Bindings) == 0:
		return refuse(meshv1alpha1.ReasonMethodUnknown, ".methods", "%s has no option google.api.http, which says at what path it is served as JSON: add the option, or leave the method out", name)
	}
	return nil
}

func unchecked(exposure *meshv1alpha1.Exposure) []Method {
	methods := map[string]Method{}
	for _, name := range exposure.Methods {
		service, method, _ := strings.Cut(string(name), "/")
		if method == "*" || !slices.Contains(exposure.Methods, meshv1alpha1.ExactMethod(service+"/*")) {
			methods[string(name)] = Method{Service: service, Name: method}
		}
	}
	return sorted(methods)
}

func sorted(methods map[string]Method) []Method {
	list := make([]Method, 0, len(methods))
	for _, method := range methods {
		list = append(list, method)
	}
	slices.SortFunc(list, func(x, y Method) int { return cmp.Or(cmp.Compare(x.Service, y.Service), cmp.Compare(x.Name, y.Name)) })
	return list
}
