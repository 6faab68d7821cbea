package xds

import (
	"slices"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/types/known/anypb"
	"k8s.io/apimachinery/pkg/types"

	"github.com/jia-app/paymesh/internal/mesh"
)

const (
	// connectTimeout is for a peer in the same cluster. Another endpoint is tried after it.
	connectTimeout = time.Second
	// maxParallel is how many calls of a cluster may be under way, wait for a connection, or be sent again. Each of the last
	// is a call that its callee never saw, so that sending it again amplifies nothing.
	maxParallel = 1024
)

// A connection to a peer whose node lost power is given up after these: the kernel's own probes while it is idle, and its
// limit for data that nobody acknowledges. HTTP/2 pings would find the same; gRPC servers (peers with dataPlane Library) take
// too many of those for an attack and close the connection.
const (
	probeAfterSeconds    = 15
	probeEverySeconds    = 5
	probes               = 3
	unacknowledgedMillis = 20_000
)

// The numbers of Linux (netinet/tcp.h).
const (
	ipprotoTCP     = 6
	tcpUserTimeout = 18
)

// peer is a port of a service that a proxy calls.
type peer struct {
	service  types.NamespacedName
	portName string
	id       spiffeid.ID
}

func (p peer) key() mesh.EndpointKey {
	return mesh.EndpointKey{Service: p.service, PortName: p.portName}
}

func (p peer) clusterName() string { return p.key().Cluster() }

// peerCluster is the way to a peer, over mTLS with the identity.
func peerCluster(p peer, own identity) (*clusterv3.Cluster, EndpointRef) {
	cluster := &clusterv3.Cluster{
		Name:                 p.clusterName(),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: fromADS()},
		ConnectTimeout:       duration(connectTimeout),
		// In turn: an endpoint that refuses at once would always be the one with the fewest calls.
		LbPolicy:         clusterv3.Cluster_ROUND_ROBIN,
		CircuitBreakers:  circuitBreakers(),
		OutlierDetection: outlierDetection(),
		TransportSocket:  own.toPeer(p.id),
		UpstreamConnectionOptions: &clusterv3.UpstreamConnectionOptions{TcpKeepalive: &corev3.TcpKeepalive{
			KeepaliveProbes: number(probes), KeepaliveTime: number(probeAfterSeconds), KeepaliveInterval: number(probeEverySeconds),
		}},
		UpstreamBindConfig: &corev3.BindConfig{SocketOptions: []*corev3.SocketOption{{
			Description: "TCP_USER_TIMEOUT", Level: ipprotoTCP, Name: tcpUserTimeout, Value: &corev3.SocketOption_IntValue{IntValue: unacknowledgedMillis},
			State: corev3.SocketOption_STATE_PREBIND,
		}}},
		TypedExtensionProtocolOptions: overHTTP2(nil),
	}
	ref := EndpointRef{Name: p.key().Endpoints(Hash(cluster)), Key: p.key()}
	cluster.EdsClusterConfig.ServiceName = ref.Name
	return cluster, ref
}

// applicationCluster is the process beside the proxy.
func applicationCluster(port mesh.Port) *clusterv3.Cluster {
	name := applicationPrefix + port.Name
	return &clusterv3.Cluster{
		Name:                          name,
		ClusterDiscoveryType:          &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		LoadAssignment:                assigned(name, address(loopback, uint32(port.Port))), //nolint:gosec // a port
		ConnectTimeout:                duration(connectTimeout),
		CircuitBreakers:               circuitBreakers(),
		TypedExtensionProtocolOptions: overHTTP2(nil),
	}
}

func circuitBreakers() *clusterv3.CircuitBreakers {
	return &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
		MaxConnections: number(maxParallel), MaxPendingRequests: number(maxParallel), MaxRequests: number(maxParallel), MaxRetries: number(maxParallel),
	}}}
}

// outlierDetection passes over an endpoint that cannot be reached, for seconds. What an endpoint answers does not count:
// whether an UNAVAILABLE is its own fault only the application knows. Where most endpoints are out, all are tried again.
func outlierDetection() *clusterv3.OutlierDetection {
	return &clusterv3.OutlierDetection{
		SplitExternalLocalOriginErrors:     true,
		ConsecutiveLocalOriginFailure:      number(2),
		Interval:                           duration(time.Second),
		BaseEjectionTime:                   duration(5 * time.Second),
		MaxEjectionTime:                    duration(30 * time.Second),
		MaxEjectionPercent:                 number(100),
		EnforcingConsecutive_5Xx:           number(0),
		EnforcingSuccessRate:               number(0),
		EnforcingLocalOriginSuccessRate:    number(0),
		EnforcingConsecutiveGatewayFailure: number(0),
	}
}

func overHTTP2(keepalive *corev3.KeepaliveSettings) map[string]*anypb.Any {
	return httpOptions(&httpv3.HttpProtocolOptions{
		UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
			ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
				Http2ProtocolOptions: &corev3.Http2ProtocolOptions{ConnectionKeepalive: keepalive},
			},
		}},
	})
}

func httpOptions(options *httpv3.HttpProtocolOptions) map[string]*anypb.Any {
	return map[string]*anypb.Any{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": pack(options)}
}

func socket(context *anypb.Any) *corev3.TransportSocket {
	return &corev3.TransportSocket{Name: tlsSocket, ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: context}}
}

// addPeers renders the clusters of peers, each once, sorted by name.
func (r *Resources) addPeers(own identity, peers []peer) {
	slices.SortFunc(peers, func(x, y peer) int { return strings.Compare(x.clusterName(), y.clusterName()) })
	for _, p := range slices.Compact(peers) {
		cluster, ref := peerCluster(p, own)
		r.Clusters, r.Endpoints = append(r.Clusters, cluster), append(r.Endpoints, ref)
	}
}
