package xds

import (
	"strings"

	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/jia-app/paymesh/internal/mesh"
)

// Three filters judge a call. The last decides. The two before it only note which rule came near, for the reply and the
// log: one looks at the caller alone, one at the method alone. They come before it because what a filter notes itself is
// not known yet when its own refusal is written.
const (
	nearCallerFilter = "rbac-near-caller"
	nearMethodFilter = "rbac-near-method"
	rbacFilter       = "rbac"
	// rbacMetadata is where all of them note what they found.
	rbacMetadata = "envoy.filters.http.rbac"
	nearCaller   = "caller_shadow_effective_policy_id"
	nearMethod   = "method_shadow_effective_policy_id"
)

// rbacFilters have no rules: these come with the routes, which reach open connections at once. A Listener's own would
// hold on there until it has drained. Without any, the last filter refuses everything.
func rbacFilters() []*hcmv3.HttpFilter {
	return []*hcmv3.HttpFilter{
		httpFilter(nearCallerFilter, &rbacv3.RBAC{}),
		httpFilter(nearMethodFilter, &rbacv3.RBAC{}),
		closedFilter(),
	}
}

func closedFilter() *hcmv3.HttpFilter { return httpFilter(rbacFilter, &rbacv3.RBAC{Rules: allow(nil)}) }

// unguarded is for a route that leads nowhere.
func unguarded() map[string]*anypb.Any {
	return map[string]*anypb.Any{rbacFilter: pack(&rbacv3.RBACPerRoute{})}
}

// rulesOf are the rules of a port, for the three filters.
func rulesOf(s mesh.Service, port mesh.Port) map[string]*anypb.Any {
	exact, callers, methods := map[string]*rbacconfigv3.Policy{}, map[string]*rbacconfigv3.Policy{}, map[string]*rbacconfigv3.Policy{}
	for _, rule := range s.Rules {
		if rule.PortName != "" && rule.PortName != port.Name {
			continue
		}
		is, calls := principals(rule), permissions(rule)
		exact[rule.Name] = &rbacconfigv3.Policy{Principals: is, Permissions: calls}
		callers[rule.Name] = &rbacconfigv3.Policy{Principals: is, Permissions: anyMethod()}
		methods[rule.Name] = &rbacconfigv3.Policy{Principals: anybody(), Permissions: calls}
	}
	return map[string]*anypb.Any{
		nearCallerFilter: near("caller_", callers),
		nearMethodFilter: near("method_", methods),
		rbacFilter:       pack(&rbacv3.RBACPerRoute{Rbac: &rbacv3.RBAC{Rules: allow(exact), TrackPerRuleStats: true}}),
	}
}

func near(prefix string, policies map[string]*rbacconfigv3.Policy) *anypb.Any {
	return pack(&rbacv3.RBACPerRoute{Rbac: &rbacv3.RBAC{ShadowRules: allow(policies), ShadowRulesStatPrefix: prefix}})
}

// allow refuses whatever no policy names; with none, that is everything.
func allow(policies map[string]*rbacconfigv3.Policy) *rbacconfigv3.RBAC {
	return &rbacconfigv3.RBAC{Action: rbacconfigv3.RBAC_ALLOW, Policies: policies}
}

func principals(rule mesh.Rule) []*rbacconfigv3.Principal {
	return []*rbacconfigv3.Principal{{Identifier: &rbacconfigv3.Principal_Authenticated_{
		Authenticated: &rbacconfigv3.Principal_Authenticated{PrincipalName: exactly(rule.ID.String())},
	}}}
}

func anybody() []*rbacconfigv3.Principal {
	return []*rbacconfigv3.Principal{{Identifier: &rbacconfigv3.Principal_Any{Any: true}}}
}

// permissions match the path, without its query.
func permissions(rule mesh.Rule) []*rbacconfigv3.Permission {
	var all []*rbacconfigv3.Permission
	for _, method := range rule.Methods {
		all = append(all, permission(method))
	}
	return all
}

func permission(method string) *rbacconfigv3.Permission {
	if method == "*" {
		return anyMethod()[0]
	}
	path := exactly("/" + method)
	if service, ok := strings.CutSuffix(method, "/*"); ok {
		path = &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: "/" + service + "/"}}
	}
	return &rbacconfigv3.Permission{Rule: &rbacconfigv3.Permission_UrlPath{
		UrlPath: &matcherv3.PathMatcher{Rule: &matcherv3.PathMatcher_Path{Path: path}},
	}}
}

func anyMethod() []*rbacconfigv3.Permission {
	return []*rbacconfigv3.Permission{{Rule: &rbacconfigv3.Permission_Any{Any: true}}}
}

// guarded is a virtual host for whatever comes to a port, with its rules.
func guarded(s mesh.Service, port mesh.Port, route *routev3.Route) *routev3.VirtualHost {
	return &routev3.VirtualHost{
		Name: s.Key.String(), Domains: []string{"*"}, Routes: []*routev3.Route{route}, TypedPerFilterConfig: rulesOf(s, port),
	}
}
