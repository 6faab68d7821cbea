package xds_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	bufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/buffer/v3"
	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"

	"github.com/jia-app/paymesh/internal/corpus"
	"github.com/jia-app/paymesh/internal/mesh"
)

// Goldens alone would bless a mistake. These hold for every case.
func TestWhatHoldsOfEveryProxy(t *testing.T) {
	for name, check := range map[string]func(*testing.T, proxy){
		"every message is within the bounds that its proto declares":                     valid,
		"every cluster of a peer has mTLS, and takes one SPIFFE ID":                      peersProveWhoTheyAre,
		"every port for peers wants a certificate, and refuses what no rule admits":      inboundIsClosed,
		"the rules of a port admit SPIFFE IDs and nobody else":                           rulesNameCallers,
		"what answers the kubelet answers nothing else":                                  probesLeadNowhere,
		"every route of a gateway that leads anywhere wants a token":                     routesWantTokens,
		"a filter of a gateway refuses whatever wants no token of its own":               gatewaysAreClosed,
		"every cluster, route and assignment that is asked for is there, and no other":   consistent,
		"nothing is sent again that its callee may have seen":                            retriesAreSafe,
		"no private key is in what goes over the network":                                noKeys,
		"nobody counts as internal, and the headers that Envoy listens to are dropped":   headersAreDropped,
		"no log has a header beside method, host and path":                               logsAreAnAllowList,
		"nothing of a sidecar's listens beside loopback but what asks for a certificate": bindings,
		"whatever comes over the network is waited for":                                  waits,
		"all that a proxy gets is sorted, and each thing once":                           sorted,
	} {
		t.Run(name, func(t *testing.T) {
			corpus.Each(t, func(t *testing.T, c corpus.Case) {
				m, _ := mesh.Build(c.Objects)
				for _, p := range proxies(m) {
					check(t, p)
				}
			})
		})
	}
}

func valid(t *testing.T, p proxy) {
	for _, m := range p.messages() {
		walk(t, m, func(m proto.Message) {
			if checked, ok := m.(interface{ ValidateAll() error }); ok {
				if err := checked.ValidateAll(); err != nil {
					t.Errorf("%s: %v", p.key, err)
				}
			}
		})
	}
}

func peersProveWhoTheyAre(t *testing.T, p proxy) {
	for _, c := range p.resources.Clusters {
		if strings.HasPrefix(c.GetName(), "application/") || c.GetName() == "ready" {
			each(t, c, func(at *corev3.SocketAddress) {
				if at.GetAddress() != "127.0.0.1" {
					t.Errorf("%s: %s is at %s", p.key, c.GetName(), at.GetAddress())
				}
			})
			continue
		}
		if c.GetType() != clusterv3.Cluster_EDS {
			t.Errorf("%s: %s is a %s", p.key, c.GetName(), c.GetType())
		}
		tls := unpack(t, c.GetTransportSocket().GetTypedConfig(), &tlsv3.UpstreamTlsContext{}).GetCommonTlsContext()
		names := tls.GetCombinedValidationContext().GetDefaultValidationContext().GetMatchTypedSubjectAltNames()
		if len(names) != 1 || names[0].GetSanType() != tlsv3.SubjectAltNameMatcher_URI || !strings.HasPrefix(names[0].GetMatcher().GetExact(), "spiffe://") {
			t.Errorf("%s: %s takes %v", p.key, c.GetName(), names)
		}
		if len(tls.GetTlsCertificateSdsSecretConfigs()) != 1 || tls.GetCombinedValidationContext().GetValidationContextSdsSecretConfig().GetName() == "" {
			t.Errorf("%s: %s has no certificate of its own, or no roots", p.key, c.GetName())
		}
	}
}

func inboundIsClosed(t *testing.T, p proxy) {
	p.chains(t, func(l *listenerv3.Listener, c *listenerv3.FilterChain, m *hcmv3.HttpConnectionManager) {
		if l.GetName() != "inbound" {
			return
		}
		if tls := unpack(t, c.GetTransportSocket().GetTypedConfig(), &tlsv3.DownstreamTlsContext{}); !tls.GetRequireClientCertificate().GetValue() {
			t.Errorf("%s: %s takes calls without a certificate", p.key, c.GetName())
		}
		names := filterNames(m)
		if want := []string{"rbac-near-caller", "rbac-near-method", "rbac", "envoy.filters.http.router"}; !slices.Equal(names, want) {
			t.Fatalf("%s: %s has the filters %q", p.key, c.GetName(), names)
		}
		base := unpack(t, m.GetHttpFilters()[2].GetTypedConfig(), &rbacv3.RBAC{})
		if base.GetRules() == nil || base.GetRules().GetAction() != rbacconfigv3.RBAC_ALLOW || len(base.GetRules().GetPolicies()) > 0 {
			t.Errorf("%s: without rules %s does what %v says", p.key, c.GetName(), base)
		}
		if m.GetForwardClientCertDetails() != hcmv3.HttpConnectionManager_SANITIZE_SET {
			t.Errorf("%s: %s passes on what callers say of their certificates", p.key, c.GetName())
		}
	})
}

func rulesNameCallers(t *testing.T, p proxy) {
	for _, r := range p.resources.Routes {
		if !strings.HasPrefix(r.GetName(), "inbound/") {
			continue
		}
		for _, host := range r.GetVirtualHosts() {
			if slices.Equal(host.GetDomains(), []string{mesh.ReadyHost}) { // which is looked at on its own
				continue
			}
			rules := unpack(t, host.GetTypedPerFilterConfig()["rbac"], &rbacv3.RBACPerRoute{}).GetRbac().GetRules()
			if rules == nil || rules.GetAction() != rbacconfigv3.RBAC_ALLOW {
				t.Errorf("%s: %s has no rules that admit", p.key, r.GetName())
			}
			for name, policy := range rules.GetPolicies() {
				for _, principal := range policy.GetPrincipals() {
					if !strings.HasPrefix(principal.GetAuthenticated().GetPrincipalName().GetExact(), "spiffe://") {
						t.Errorf("%s: the rule %s admits %v", p.key, name, principal)
					}
				}
			}
			for _, route := range host.GetRoutes() {
				if len(route.GetTypedPerFilterConfig()) > 0 {
					t.Errorf("%s: a route of %s overrides the rules", p.key, r.GetName())
				}
			}
		}
	}
}

// probesLeadNowhere looks at whatever the kubelet can reach without a certificate, or a token: the probe, and nothing else.
func probesLeadNowhere(t *testing.T, p proxy) {
	for _, l := range p.resources.Listeners {
		for _, c := range l.GetFilterChains() {
			if c.GetFilterChainMatch().GetDestinationPort().GetValue() != mesh.ReadyPort {
				continue
			}
			m := unpack(t, c.GetFilters()[0].GetTypedConfig(), &hcmv3.HttpConnectionManager{})
			if p.key.Kind == mesh.KindMeshGateway { // it asks the gateway's own listeners, on loopback, for the probe
				hosts := m.GetRouteConfig().GetVirtualHosts()
				if l.GetName() != "ready" || len(hosts) != 1 || len(hosts[0].GetRoutes()) != 1 || hosts[0].GetRoutes()[0].GetRoute().GetCluster() != "ready" {
					t.Errorf("%s: the probe's port of %s leads to %v", p.key, l.GetName(), hosts)
				}
				continue
			}
			base := unpack(t, m.GetHttpFilters()[0].GetTypedConfig(), &rbacv3.RBAC{})
			if names := filterNames(m); l.GetName() != "inbound" || !slices.Equal(names, []string{"rbac", "envoy.filters.http.router"}) || base.GetRules() == nil || len(base.GetRules().GetPolicies()) > 0 {
				t.Errorf("%s: the probe's port of %s has the filters %q, and without rules does what %v says", p.key, l.GetName(), names, base)
			}
		}
	}
	probed := 0
	for _, m := range p.messages() {
		each(t, m, func(host *routev3.VirtualHost) {
			ready := slices.Contains(host.GetDomains(), mesh.ReadyHost)
			for _, route := range host.GetRoutes() {
				if filter := route.GetTypedPerFilterConfig()["rbac"]; filter != nil && unpack(t, filter, &rbacv3.RBACPerRoute{}).GetRbac() == nil && !ready {
					t.Errorf("%s: %s of %s is open", p.key, route.GetName(), host.GetName())
				}
				if probe := route.GetRoute().GetCluster() == "ready" && route.GetMatch().GetPath() == mesh.ReadyPath; ready && !probe && (len(host.GetDomains()) != 1 || route.GetDirectResponse() == nil || route.GetDirectResponse().GetStatus() == 200 && route.GetMatch().GetPath() != mesh.ReadyPath) {
					t.Errorf("%s: %v of %s answers %v", p.key, host.GetDomains(), host.GetName(), route)
				}
			}
			if ready {
				probed++
			}
		})
	}
	if probed == 0 {
		t.Errorf("%s: nothing answers the kubelet", p.key)
	}
}

// requirements are the names of those that a gateway's filter knows.
func (p proxy) requirements(t *testing.T) map[string]bool {
	t.Helper()
	known := map[string]bool{}
	p.chains(t, func(_ *listenerv3.Listener, _ *listenerv3.FilterChain, m *hcmv3.HttpConnectionManager) {
		jwt := unpack(t, m.GetHttpFilters()[0].GetTypedConfig(), &jwtv3.JwtAuthentication{})
		for name, requirement := range jwt.GetRequirementMap() {
			known[name] = jwt.GetProviders()[requirement.GetProviderName()] != nil
		}
	})
	return known
}

func gatewaysAreClosed(t *testing.T, p proxy) {
	if p.key.Kind != mesh.KindMeshGateway {
		return
	}
	p.chains(t, func(_ *listenerv3.Listener, c *listenerv3.FilterChain, m *hcmv3.HttpConnectionManager) {
		if names := filterNames(m); names[0] != "envoy.filters.http.jwt_authn" {
			t.Fatalf("%s: %s has the filters %q", p.key, c.GetName(), names)
		}
		jwt := unpack(t, m.GetHttpFilters()[0].GetTypedConfig(), &jwtv3.JwtAuthentication{})
		if rules := jwt.GetRules(); len(rules) != 1 || rules[0].GetMatch().GetPrefix() != "/" || rules[0].GetRequires().GetProviderName() != "(nobody)" {
			t.Errorf("%s: a route without a token of its own does what %v says", p.key, rules)
		}
	})
	for _, r := range p.resources.Routes {
		for _, host := range r.GetVirtualHosts() {
			if last := host.GetRoutes()[len(host.GetRoutes())-1]; last.GetDirectResponse().GetStatus() != 404 || last.GetMatch().GetPrefix() != "/" {
				t.Errorf("%s: %s ends with %v", p.key, host.GetName(), last)
			}
		}
	}
}

func routesWantTokens(t *testing.T, p proxy) {
	if p.key.Kind != mesh.KindMeshGateway {
		return
	}
	known := p.requirements(t)
	for _, r := range p.resources.Routes {
		for _, host := range r.GetVirtualHosts() {
			for _, route := range host.GetRoutes() {
				per := unpack(t, route.GetTypedPerFilterConfig()["envoy.filters.http.jwt_authn"], &jwtv3.PerRouteConfig{})
				if route.GetRoute() == nil {
					if !per.GetDisabled() {
						t.Errorf("%s: %s of %s wants %v", p.key, route.GetName(), host.GetName(), per)
					}
					continue
				}
				if !known[per.GetRequirementName()] {
					t.Errorf("%s: %s of %s wants %v", p.key, route.GetName(), host.GetName(), per)
				}
				if route.GetMatch().GetGrpc() == nil { // JSON, which is held in memory
					unpack(t, route.GetTypedPerFilterConfig()["envoy.filters.http.buffer"], &bufferv3.BufferPerRoute{})
				}
				if route.GetMatch().GetPrefix() == "/" {
					t.Errorf("%s: %s of %s takes everything", p.key, route.GetName(), host.GetName())
				}
			}
		}
	}
}

func consistent(t *testing.T, p proxy) {
	wantRoutes, wantClusters, wantEndpoints := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, m := range p.messages() {
		each(t, m, func(rds *hcmv3.Rds) { wantRoutes[rds.GetRouteConfigName()] = true })
		each(t, m, func(action *routev3.RouteAction) { wantClusters[action.GetCluster()] = true })
		each(t, m, func(eds *clusterv3.Cluster_EdsClusterConfig) { wantEndpoints[eds.GetServiceName()] = true })
	}
	routes, clusters, endpoints := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, r := range p.resources.Routes {
		routes[r.GetName()] = true
	}
	for _, c := range p.resources.Clusters {
		clusters[c.GetName()] = true
	}
	for _, ref := range p.resources.Endpoints {
		endpoints[ref.Name] = true
	}
	for what, sets := range map[string][2]map[string]bool{"routes": {wantRoutes, routes}, "clusters": {wantClusters, clusters}, "assignments": {wantEndpoints, endpoints}} {
		if !maps.Equal(sets[0], sets[1]) {
			t.Errorf("%s: it asks for the %s %v, and there are %v", p.key, what, slices.Sorted(maps.Keys(sets[0])), slices.Sorted(maps.Keys(sets[1])))
		}
	}
}

func retriesAreSafe(t *testing.T, p proxy) {
	safe := []string{"connect-failure", "refused-stream", "reset-before-request"}
	for _, m := range p.messages() {
		each(t, m, func(policy *routev3.RetryPolicy) {
			for condition := range strings.SplitSeq(policy.GetRetryOn(), ",") {
				if !slices.Contains(safe, condition) {
					t.Errorf("%s: it sends again on %s", p.key, condition)
				}
			}
			if len(policy.GetRetriableStatusCodes()) > 0 || policy.GetPerTryTimeout() != nil || policy.GetNumRetries().GetValue() > 2 && policy.GetRetryBackOff() == nil {
				t.Errorf("%s: %v", p.key, policy)
			}
		})
		each(t, m, func(hedge *routev3.HedgePolicy) { t.Errorf("%s: %v", p.key, hedge) })
		each(t, m, func(mirror *routev3.RouteAction_RequestMirrorPolicy) { t.Errorf("%s: %v", p.key, mirror) })
	}
}

func noKeys(t *testing.T, p proxy) {
	for _, m := range p.messages() {
		each(t, m, func(*tlsv3.TlsCertificate) { t.Errorf("%s: a certificate is in it", p.key) })
		each(t, m, func(source *corev3.DataSource) {
			if strings.Contains(source.GetInlineString()+string(source.GetInlineBytes()), "PRIVATE KEY") || strings.Contains(source.GetInlineString(), `"d":`) {
				t.Errorf("%s: a private key is in it", p.key)
			}
		})
	}
}

func headersAreDropped(t *testing.T, p proxy) {
	for _, l := range p.resources.Listeners {
		each(t, l, func(m *hcmv3.HttpConnectionManager) {
			if !m.GetUseRemoteAddress().GetValue() || m.GetInternalAddressConfig() != nil || len(m.GetEarlyHeaderMutationExtensions()) != 1 {
				t.Errorf("%s: %s trusts what callers say", p.key, m.GetStatPrefix())
			}
			if !m.GetNormalizePath().GetValue() || !m.GetMergeSlashes() || m.GetPathWithEscapedSlashesAction() != hcmv3.HttpConnectionManager_REJECT_REQUEST {
				t.Errorf("%s: %s takes a path as it comes", p.key, m.GetStatPrefix())
			}
		})
	}
}

func logsAreAnAllowList(t *testing.T, p proxy) {
	allowed := []string{":AUTHORITY", "X-ENVOY-ORIGINAL-METHOD?:METHOD"}
	for _, l := range p.resources.Listeners {
		text := fmt.Sprint(plain(t, l))
		for _, rest := range strings.Split(text, "%REQ(")[1:] {
			if header, _, _ := strings.Cut(rest, ")"); !slices.Contains(allowed, header) {
				t.Errorf("%s: %s logs %s", p.key, l.GetName(), header)
			}
		}
		for _, operator := range []string{"%RESP(", "%TRAILER(", "%PATH(WQ", "%REQUEST_HEADER", "authorization", "idempotency"} {
			if strings.Contains(text, operator) {
				t.Errorf("%s: %s logs %s", p.key, l.GetName(), operator)
			}
		}
	}
}

func bindings(t *testing.T, p proxy) {
	for _, l := range p.resources.Listeners {
		open := l.GetAddress().GetSocketAddress().GetAddress() != "127.0.0.1"
		if open == strings.HasPrefix(l.GetName(), "outbound/") {
			t.Errorf("%s: %s is at %v", p.key, l.GetName(), l.GetAddress())
		}
		for _, c := range l.GetFilterChains() {
			if open && c.GetTransportSocket() == nil && c.GetFilterChainMatch().GetDestinationPort().GetValue() != mesh.ReadyPort {
				t.Errorf("%s: %s of %s is plaintext", p.key, c.GetName(), l.GetName())
			}
		}
	}
}

func waits(t *testing.T, p proxy) {
	for _, m := range p.messages() {
		each(t, m, func(source *corev3.ConfigSource) {
			if source.GetInitialFetchTimeout() == nil || source.GetInitialFetchTimeout().AsDuration() != 0 {
				t.Errorf("%s: it goes on without %v", p.key, source)
			}
		})
	}
}

func sorted(t *testing.T, p proxy) {
	var listeners, routes, clusters, endpoints []string
	for _, l := range p.resources.Listeners {
		listeners = append(listeners, l.GetName())
	}
	for _, r := range p.resources.Routes {
		routes = append(routes, r.GetName())
	}
	for _, c := range p.resources.Clusters {
		clusters = append(clusters, c.GetName())
	}
	for _, ref := range p.resources.Endpoints {
		endpoints = append(endpoints, ref.Name)
	}
	for _, names := range [][]string{listeners, routes, clusters, endpoints} {
		if once := slices.Compact(slices.Sorted(slices.Values(names))); !slices.Equal(once, names) {
			t.Errorf("%s: %q", p.key, names)
		}
	}
}
