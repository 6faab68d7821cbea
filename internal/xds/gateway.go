package xds

import (
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"

	"github.com/jia-app/paymesh/internal/mesh"
)

const (
	gatewayPrefix = "gateway/"
	// gatewayRoutes are the same for all listeners of a gateway.
	gatewayRoutes = "gateway"
	// gatewayReady is the Listener that the kubelet asks, and the cluster of those that answer. An answer comes before the
	// kubelet gives up, whatever listeners it goes by.
	gatewayReady = "ready"
	readyTimeout = 1500 * time.Millisecond
	readyBackOff = time.Millisecond
	// readyRetries are more than there are listeners: while these change, one may be asked twice before another.
	readyRetries = 2 * mesh.GatewayPorts
	// connectionAge and drainTime are what a rolling restart of the gateway needs: whoever is connected when a pod has left
	// the balancer is told to go within their sum, and the pod sleeps for longer before it ends.
	connectionAge = 20 * time.Second
	drainTime     = 5 * time.Second
	// gatewayIdle ends connections that nobody uses, headersTimeout and requestTimeout those of who sends slowly on purpose.
	gatewayIdle    = time.Minute
	headersTimeout = 10 * time.Second
	requestTimeout = 10 * time.Second
	// gatewayTimeout bounds a call of a service.
	gatewayTimeout = mesh.DefaultTimeout * time.Second
	// maxBody of a request and maxResponse are what a call may make the gateway hold in memory: JSON is translated whole.
	maxBody     = 1 << 20
	maxResponse = 4 << 20
	// What one client may ask for at a time (HTTP/2).
	gatewayStreams          = 100
	gatewayStreamWindow     = 256 << 10
	gatewayConnectionWindow = 1 << 20
)

// everySignature is what a certificate's key can sign with that a proxy serves. Without its being said a proxy that connects
// leaves the last two out.
var everySignature = []string{
	"ecdsa_secp256r1_sha256", "rsa_pss_rsae_sha256", "rsa_pkcs1_sha256", "ecdsa_secp384r1_sha384", "rsa_pss_rsae_sha384", "rsa_pkcs1_sha384",
	"rsa_pss_rsae_sha512", "rsa_pkcs1_sha512", "ecdsa_secp521r1_sha512", "ed25519",
}

// Gateway is what the proxies of a gateway get: a Listener for each of its listeners, one for the kubelet, and one set of
// routes.
func Gateway(g mesh.Gateway) Resources {
	own := identity{id: g.ID}
	r := Resources{Listeners: []*listenerv3.Listener{readyListener()}, Clusters: []*clusterv3.Cluster{readyCluster(g)}}
	for _, l := range g.Listeners {
		r.Listeners = append(r.Listeners, gatewayListener(g, l))
	}
	r.Routes = append(r.Routes, exposed(g))
	var peers []peer
	for _, route := range g.Routes {
		peers = append(peers, peerOf(route))
	}
	r.addPeers(own, peers)
	r.sort()
	return r
}

// readyListener answers the kubelet what a listener of the gateway answers: one that works is enough. So a pod is not ready
// where no certificate of it can work, or its routes were rejected; and it stays ready while listeners come that it has no
// certificate of, or go. It is at the same port in every revision.
func readyListener() *listenerv3.Listener {
	manager := connectionManager("ready", hcmv3.HttpConnectionManager_AUTO)
	manager.HttpFilters = []*hcmv3.HttpFilter{router()}
	manager.LocalReplyConfig = shownIsReady()
	host := readyHost(nil)
	host.GetRoutes()[0].Action = &routev3.Route_Route{Route: &routev3.RouteAction{
		ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: gatewayReady},
		Timeout:          duration(readyTimeout),
		RetryPolicy: &routev3.RetryPolicy{
			RetryOn: safeRetries, NumRetries: number(readyRetries),
			RetryBackOff:                  &routev3.RetryPolicy_RetryBackOff{BaseInterval: duration(readyBackOff)},
			RetryHostPredicate:            retryPolicy().GetRetryHostPredicate(),
			HostSelectionRetryMaxAttempts: hostAttempts,
		},
	}}
	manager.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{
		Name: "ready", VirtualHosts: []*routev3.VirtualHost{host},
	}}
	return listener(gatewayReady, anyAddress, []uint32{mesh.ReadyPort}, []*listenerv3.FilterChain{chain("ready", mesh.ReadyPort, nil, manager)})
}

// shownIsReady has the probe succeed, too, where a listener showed an RSA certificate whose keyUsage lacks digitalSignature:
// the proxy serves it, and it is for the clients to take it or not, but as a client itself a proxy ends the connection then.
// Only the listener that was asked last counts here: beside one without a certificate it does not help.
func shownIsReady() *hcmv3.LocalReplyConfig {
	return &hcmv3.LocalReplyConfig{Mappers: []*hcmv3.ResponseMapper{{
		Filter:     expression(`upstream.transport_failure_reason.contains("KEY_USAGE_BIT_INCORRECT")`),
		StatusCode: number(200),
	}}}
}

// readyCluster are the gateway's own listeners, which are asked as the kubelet would: on a connection of its own each time,
// without looking at certificates. What a listener can sign with must be named, or it ends the connection.
func readyCluster(g mesh.Gateway) *clusterv3.Cluster {
	parameters := atLeastTLS12()
	parameters.SignatureAlgorithms = everySignature
	var own []*corev3.Address
	for _, l := range g.Listeners {
		own = append(own, address(loopback, uint32(l.TargetPort))) //nolint:gosec // a port
	}
	return &clusterv3.Cluster{
		Name:                 gatewayReady,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		LoadAssignment:       assigned(gatewayReady, own...),
		ConnectTimeout:       duration(connectTimeout),
		TransportSocket:      socket(pack(&tlsv3.UpstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{TlsParams: parameters}})),
		TypedExtensionProtocolOptions: httpOptions(&httpv3.HttpProtocolOptions{
			CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{MaxRequestsPerConnection: number(1)},
			UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{},
			}},
		}),
	}
}

// gatewayListener takes HTTPS.
func gatewayListener(g mesh.Gateway, l mesh.GatewayListener) *listenerv3.Listener {
	port := uint32(l.TargetPort) //nolint:gosec // a port
	of := listener(gatewayPrefix+l.Name, anyAddress, []uint32{port}, []*listenerv3.FilterChain{chain(l.Name, port, fromOutside(l), gatewayManager(g, l))})
	of.PerConnectionBufferLimitBytes = number(maxBody)
	return of
}

// fromOutside is TLS with the certificate of the listener's Secret, which the pod has as files.
func fromOutside(l mesh.GatewayListener) *corev3.TransportSocket {
	return socket(pack(&tlsv3.DownstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{
		TlsParams:     atLeastTLS12(),
		AlpnProtocols: []string{"h2", "http/1.1"},
		TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{{Name: certificateName(l.TargetPort), SdsConfig: &corev3.ConfigSource{
			ResourceApiVersion:    corev3.ApiVersion_V3,
			InitialFetchTimeout:   duration(0),
			ConfigSourceSpecifier: &corev3.ConfigSource_PathConfigSource{PathConfigSource: &corev3.PathConfigSource{Path: mesh.ProxyDir + "/" + certificateFile(l.TargetPort)}},
		}}},
	}}))
}

func gatewayManager(g mesh.Gateway, l mesh.GatewayListener) *hcmv3.HttpConnectionManager {
	manager := connectionManager("gateway_"+l.Name, hcmv3.HttpConnectionManager_AUTO)
	manager.RouteSpecifier = routesFromADS(gatewayRoutes)
	manager.StripPortMode = &hcmv3.HttpConnectionManager_StripAnyHostPort{StripAnyHostPort: true}
	manager.StripTrailingHostDot = true
	manager.CommonHttpProtocolOptions = &corev3.HttpProtocolOptions{
		IdleTimeout:           duration(gatewayIdle),
		MaxConnectionDuration: duration(connectionAge),
		// A header with an underscore becomes the same as one with a hyphen in some servers behind.
		HeadersWithUnderscoresAction: corev3.HttpProtocolOptions_REJECT_REQUEST,
	}
	manager.Http1SafeMaxConnectionDuration = true
	manager.DrainTimeout = duration(drainTime)
	manager.RequestHeadersTimeout = duration(headersTimeout)
	manager.RequestTimeout = duration(requestTimeout)
	manager.StreamIdleTimeout = duration(gatewayTimeout + drainTime)
	manager.Http2ProtocolOptions = &corev3.Http2ProtocolOptions{
		MaxConcurrentStreams: number(gatewayStreams), InitialStreamWindowSize: number(gatewayStreamWindow), InitialConnectionWindowSize: number(gatewayConnectionWindow),
	}
	manager.HttpFilters = []*hcmv3.HttpFilter{jwtFilter(g), bufferFilter(), transcodeFilter(), router()}
	manager.LocalReplyConfig = statusReplies()
	manager.AccessLog = gatewayLog(g, l)
	return manager
}

func peerOf(route mesh.Route) peer {
	return peer{service: route.Service, portName: route.PortName, id: route.ID}
}
