package xds

import (
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/jia-app/paymesh/internal/mesh"
)

const (
	gatewayPrefix = "gateway/"
	// gatewayRoutes are the same for all listeners of a gateway.
	gatewayRoutes = "gateway"
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

// Gateway is what the proxies of a gateway get: a Listener for each of its listeners, and one set of routes.
func Gateway(_ mesh.Mesh, g mesh.Gateway) Resources {
	own := identity{id: g.ID}
	r := Resources{}
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

// gatewayListener takes HTTPS, also from the kubelet: so a pod whose certificate cannot work is not ready.
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
		TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{{Name: certificateName(l), SdsConfig: &corev3.ConfigSource{
			ResourceApiVersion:    corev3.ApiVersion_V3,
			InitialFetchTimeout:   duration(0),
			ConfigSourceSpecifier: &corev3.ConfigSource_PathConfigSource{PathConfigSource: &corev3.PathConfigSource{Path: FilesDir + "/" + certificateFile(l)}},
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
