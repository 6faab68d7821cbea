package xds

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/jia-app/paymesh/internal/descriptor"
	"github.com/jia-app/paymesh/internal/mesh"
)

// routeMetadata is where a route says whose it is, for the access log.
const routeMetadata = "paymesh"

// aboutGRPC is what only a client of gRPC means. Who sends JSON and says how messages are compressed would be answered in
// that way, which the transcoder cannot read: the call is done, and its answer lost.
var aboutGRPC = []string{"grpc-accept-encoding", "grpc-encoding"}

// exposed are the routes of a gateway: a virtual host for the host names that serve the same, and one for all others.
// Whatever no exposure names leads nowhere.
func exposed(g mesh.Gateway) *routev3.RouteConfiguration {
	served := map[string][]int{} // by host name, which of g.Routes
	for i, route := range g.Routes {
		for _, hostname := range route.Hostnames {
			served[hostname] = append(served[hostname], i)
		}
	}
	var hosts []*routev3.VirtualHost
	of := map[string]*routev3.VirtualHost{}
	for _, hostname := range slices.Sorted(maps.Keys(served)) {
		var routes []mesh.Route
		var key strings.Builder
		for _, i := range served[hostname] {
			routes = append(routes, g.Routes[i])
			key.WriteString(exposure(g.Routes[i]) + " ")
		}
		host, known := of[key.String()]
		if !known {
			host = virtualHost(hostname, routes)
			of[key.String()] = host
			hosts = append(hosts, host)
		}
		host.Domains = append(host.Domains, hostname)
	}
	return &routev3.RouteConfiguration{
		Name: gatewayRoutes,
		VirtualHosts: append(hosts,
			&routev3.VirtualHost{Name: "(other)", Domains: []string{"*"}, Routes: []*routev3.Route{nowhere("no such host here")}},
			readyHost(map[string]*anypb.Any{jwtName: noToken()}, nowhere("no such path here"))),
	}
}

// exposure names a route of a gateway: in the access log, and nowhere else.
func exposure(r mesh.Route) string { return r.Service.String() + "/" + r.Name }

// virtualHost serves the routes under one host name, or several. Where one exposure alone is transcoded there, its
// descriptors are with the host. Else each route has those of its method: a transcoder finds a method by the path on its own,
// and could find one of another exposure where their templates overlap.
func virtualHost(name string, served []mesh.Route) *routev3.VirtualHost {
	host := &routev3.VirtualHost{Name: name}
	var transcoded []mesh.Route
	for _, r := range served {
		if r.Transcode {
			transcoded = append(transcoded, r)
		}
	}
	if len(transcoded) == 1 {
		host.TypedPerFilterConfig = map[string]*anypb.Any{transcoderName: pack(transcoder(transcoded[0].Descriptors, transcoded[0].Methods))}
	}
	for _, r := range served {
		if r.GRPC {
			host.Routes = append(host.Routes, nativeRoutes(r)...)
		}
	}
	host.Routes = append(host.Routes, transcodedRoutes(transcoded)...)
	host.Routes = append(host.Routes, nowhere("no such path here"))
	return host
}

// transcodedRoutes take just the HTTP methods and paths of the exposures, and no gRPC.
func transcodedRoutes(served []mesh.Route) []*routev3.Route {
	type candidate struct {
		route *routev3.Route
		at    descriptor.Template
		verb  string
	}
	var all []candidate
	for _, r := range served {
		for i, method := range r.Methods {
			var translate *anypb.Any
			if len(served) > 1 {
				translate = pack(transcoder(method.Descriptors, r.Methods[i:i+1]))
			}
			for _, binding := range method.Bindings {
				match := matchTemplate(binding.Template)
				match.Headers = []*routev3.HeaderMatcher{header(":method", exactly(binding.HTTPMethod)), notGRPC()}
				route := routeTo(r, method, match)
				route.TypedPerFilterConfig[bufferName] = buffered()
				route.RequestHeadersToRemove = aboutGRPC
				if translate != nil {
					route.TypedPerFilterConfig[transcoderName] = translate
				}
				all = append(all, candidate{route, binding.Template, binding.HTTPMethod})
			}
		}
	}
	slices.SortFunc(all, func(x, y candidate) int {
		return cmp.Or(compareTemplates(x.at, y.at), strings.Compare(x.verb, y.verb), strings.Compare(x.route.GetName(), y.route.GetName()))
	})
	routes := make([]*routev3.Route, len(all))
	for i, c := range all {
		routes[i] = c.route
	}
	return routes
}

// nativeRoutes take gRPC as it comes.
func nativeRoutes(r mesh.Route) []*routev3.Route {
	var routes []*routev3.Route
	for _, method := range r.Methods {
		match := &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Path{Path: "/" + method.Service + "/" + method.Name}}
		if method.Name == "*" {
			match.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: "/" + method.Service + "/"}
		}
		match.Grpc = &routev3.RouteMatch_GrpcRouteMatchOptions{}
		routes = append(routes, routeTo(r, method, match))
	}
	return routes
}

// routeTo sends what matches to the exposure's service, with a token of its issuer.
func routeTo(r mesh.Route, method mesh.Method, match *routev3.RouteMatch) *routev3.Route {
	return &routev3.Route{
		Name:                 exposure(r) + "/" + method.Service + "." + method.Name,
		Match:                match,
		Action:               toCluster(peerOf(r).clusterName(), gatewayTimeout),
		TypedPerFilterConfig: map[string]*anypb.Any{jwtName: tokenOf(r.JWT)},
		Metadata: &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{routeMetadata: {
			Fields: map[string]*structpb.Value{"service": text(r.Service.String())},
		}}},
	}
}

// nowhere is 404, for gRPC UNIMPLEMENTED.
func nowhere(why string) *routev3.Route {
	return &routev3.Route{
		Name:  "none",
		Match: everything(),
		Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{
			Status: 404, Body: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: why}},
		}},
		TypedPerFilterConfig: map[string]*anypb.Any{jwtName: noToken()},
	}
}

func header(name string, value *matcherv3.StringMatcher) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{Name: name, HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: value}}
}

// notGRPC keeps gRPC, in each of its forms, off what is meant for JSON.
func notGRPC() *routev3.HeaderMatcher {
	h := isGRPC()
	h.InvertMatch, h.TreatMissingHeaderAsEmpty = true, true
	return h
}

func isGRPC() *routev3.HeaderMatcher {
	return header("content-type", &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: "application/grpc"}, IgnoreCase: true})
}
