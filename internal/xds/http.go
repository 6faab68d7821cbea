package xds

import (
	"time"

	mutationrulesv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/jia-app/paymesh/internal/mesh"
)

const (
	anyAddress = "0.0.0.0"
	loopback   = "127.0.0.1"
	// handshakeTimeout bounds how long a connection may hold a socket before it has said who it is.
	handshakeTimeout = 10 * time.Second
	// safeRetries are the conditions in which the callee has seen nothing of the call, so that sending it again cannot do
	// anything twice: no connection, a stream that the callee says it did not process, a break before the headers left.
	safeRetries = "connect-failure,refused-stream,reset-before-request"
	retries     = 2
	// hostAttempts is how often an endpoint is drawn again that has failed the same call, until another comes.
	hostAttempts = 10
)

// withoutEnvoyHeaders drops what callers say in Envoy's own headers, before anything looks at them: what timeouts and
// retries a route has is said here and nowhere else. Envoy by itself would drop some of them.
func withoutEnvoyHeaders() []*corev3.TypedExtensionConfig {
	prefix := &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: "x-envoy-"}, IgnoreCase: true}
	return []*corev3.TypedExtensionConfig{{
		Name: "envoy.http.early_header_mutation.header_mutation",
		TypedConfig: pack(&headermutationv3.HeaderMutation{Mutations: []*mutationrulesv3.HeaderMutation{{
			Action: &mutationrulesv3.HeaderMutation_RemoveOnMatch_{RemoveOnMatch: &mutationrulesv3.HeaderMutation_RemoveOnMatch{KeyMatcher: prefix}},
		}}}),
	}}
}

// connectionManager has what all listeners of a proxy have in common. With use_remote_address, and internal_address_config
// left unset, no caller counts as internal. (Set and empty, that field would make loopback internal.)
func connectionManager(name string, codec hcmv3.HttpConnectionManager_CodecType) *hcmv3.HttpConnectionManager {
	return &hcmv3.HttpConnectionManager{
		StatPrefix:                    name,
		CodecType:                     codec,
		EarlyHeaderMutationExtensions: withoutEnvoyHeaders(),
		UseRemoteAddress:              yes(),
		NormalizePath:                 yes(),
		MergeSlashes:                  true,
		PathWithEscapedSlashesAction:  hcmv3.HttpConnectionManager_REJECT_REQUEST,
		ForwardClientCertDetails:      hcmv3.HttpConnectionManager_SANITIZE,
	}
}

func routesFromADS(name string) *hcmv3.HttpConnectionManager_Rds {
	return &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{ConfigSource: fromADS(), RouteConfigName: name}}
}

func httpFilter(name string, config proto.Message) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(config)}}
}

// router ends each chain. It adds no headers of Envoy's own, which would tell a caller about the inside.
func router() *hcmv3.HttpFilter {
	return httpFilter("envoy.filters.http.router", &routerv3.Router{SuppressEnvoyHeaders: true})
}

// networkFilters are a filter chain's: one connection manager.
func networkFilters(manager *hcmv3.HttpConnectionManager) []*listenerv3.Filter {
	return []*listenerv3.Filter{{
		Name:       "envoy.filters.network.http_connection_manager",
		ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(manager)},
	}}
}

// chain is a filter chain for the connections to a port.
func chain(name string, port uint32, transport *corev3.TransportSocket, manager *hcmv3.HttpConnectionManager) *listenerv3.FilterChain {
	c := &listenerv3.FilterChain{
		Name:             name,
		FilterChainMatch: &listenerv3.FilterChainMatch{DestinationPort: number(port)},
		TransportSocket:  transport,
		Filters:          networkFilters(manager),
	}
	if transport != nil {
		c.TransportSocketConnectTimeout = duration(handshakeTimeout)
	}
	return c
}

// readyHost answers the kubelet. It is among the routes that calls take, since a proxy that has rejected those at its start
// goes on without any, and would be green with an answer of its own.
// What is open is the probe alone.
func readyHost(open map[string]*anypb.Any, more ...*routev3.Route) *routev3.VirtualHost {
	probe := &routev3.Route{
		Name:                 "ready",
		Match:                &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Path{Path: mesh.ReadyPath}},
		Action:               &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: 200}},
		TypedPerFilterConfig: open,
	}
	return &routev3.VirtualHost{Name: "(ready)", Domains: []string{mesh.ReadyHost}, Routes: append([]*routev3.Route{probe}, more...)}
}

// listener has the ports on one address, the first as its own and the others beside it.
func listener(name, ip string, ports []uint32, chains []*listenerv3.FilterChain) *listenerv3.Listener {
	l := &listenerv3.Listener{Name: name, Address: address(ip, ports[0]), FilterChains: chains}
	for _, port := range ports[1:] {
		l.AdditionalAddresses = append(l.AdditionalAddresses, &listenerv3.AdditionalAddress{Address: address(ip, port)})
	}
	return l
}

// retryPolicy is the only one there is.
func retryPolicy() *routev3.RetryPolicy {
	return &routev3.RetryPolicy{
		RetryOn:    safeRetries,
		NumRetries: number(retries),
		RetryHostPredicate: []*routev3.RetryPolicy_RetryHostPredicate{{
			Name:       "envoy.retry_host_predicates.previous_hosts",
			ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{TypedConfig: pack(&previoushostsv3.PreviousHostsPredicate{})},
		}},
		HostSelectionRetryMaxAttempts: hostAttempts,
	}
}

// toCluster sends calls on. Where bound is not zero, a call ends after it, or with its own deadline where that is earlier,
// with DEADLINE_EXCEEDED. (A route's timeout would say UNAVAILABLE, which invites to try again what may have been done.)
func toCluster(cluster string, bound time.Duration) *routev3.Route_Route {
	action := &routev3.RouteAction{
		ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster},
		Timeout:          duration(0),
		RetryPolicy:      retryPolicy(),
	}
	if bound > 0 {
		action.MaxStreamDuration = &routev3.RouteAction_MaxStreamDuration{MaxStreamDuration: duration(bound), GrpcTimeoutHeaderMax: duration(bound)}
	}
	return &routev3.Route_Route{Route: action}
}

func everything() *routev3.RouteMatch {
	return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}}
}
