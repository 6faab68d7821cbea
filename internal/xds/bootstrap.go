package xds

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"sigs.k8s.io/yaml"

	"github.com/jia-app/paymesh/internal/mesh"
)

const (
	// bootstrapFile is the one that a proxy starts with; the files are mounted in mesh.ProxyDir.
	bootstrapFile = "envoy.yaml"

	managerCluster = "xds"
	adminCluster   = "admin"
)

// A manager whose node lost power is noticed after these: pings that it does not answer. It takes pings as often as that.
const (
	managerPingInterval = 30 * time.Second
	managerPingTimeout  = 5 * time.Second
)

// regexSteps is how large a regular expression may become, in RE2's instructions. Envoy's own limit is 100, and a path template
// of some 100 characters is larger: the proxy would reject the routes of everybody. What a template can be the model bounds.
const regexSteps = 32768

// BootstrapOptions are what the files hold beside the object itself.
type BootstrapOptions struct {
	Cluster mesh.ClusterID
	// XDSAddress is host:port of the managers.
	XDSAddress string
	// WorkloadAPI is the path of the SPIRE agent's socket as the proxy sees it.
	WorkloadAPI string
}

// SidecarFiles are the files that the proxies of a service start with. The node's ID and cluster are no part of them: they
// differ from pod to pod, and come by the command line.
func SidecarFiles(s mesh.Service, o BootstrapOptions) map[string]string {
	return map[string]string{bootstrapFile: toYAML(bootstrap(s.ID, o))}
}

// GatewayFiles are those of a gateway, with a file for each target port, whether a listener is there or not, that says where
// its certificate is: a proxy rejects a listener that names a file which is not there, and the proxies that run when a
// listener is added have the files of their start. A certificate is waited for.
func GatewayFiles(g mesh.Gateway, o BootstrapOptions) map[string]string {
	files := map[string]string{bootstrapFile: toYAML(bootstrap(g.ID, o))}
	for port := int32(mesh.FirstGatewayPort); port < mesh.FirstGatewayPort+mesh.GatewayPorts; port++ {
		files[certificateFile(port)] = certificateSource(port)
	}
	return files
}

// bootstrap has the manager and the SPIRE agent in it, and nothing that could be had from them.
func bootstrap(id spiffeid.ID, o BootstrapOptions) *bootstrapv3.Bootstrap {
	host, port := splitAddress(o.XDSAddress)
	manager := &clusterv3.Cluster{
		Name:                          managerCluster,
		ClusterDiscoveryType:          &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STRICT_DNS},
		LoadAssignment:                assigned(managerCluster, address(host, port)),
		ConnectTimeout:                duration(connectTimeout),
		TransportSocket:               identity{id: id}.toPeer(o.Cluster.OperatorID()),
		TypedExtensionProtocolOptions: overHTTP2(&corev3.KeepaliveSettings{Interval: duration(managerPingInterval), Timeout: duration(managerPingTimeout)}),
	}
	pipe := &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: strings.TrimPrefix(o.WorkloadAPI, "unix://")}}}
	return &bootstrapv3.Bootstrap{
		Admin: &bootstrapv3.Admin{Address: address(loopback, mesh.AdminPort)},
		LayeredRuntime: &bootstrapv3.LayeredRuntime{Layers: []*bootstrapv3.RuntimeLayer{{
			Name: "static", LayerSpecifier: &bootstrapv3.RuntimeLayer_StaticLayer{StaticLayer: &structpb.Struct{Fields: map[string]*structpb.Value{
				"re2.max_program_size.error_level": structpb.NewNumberValue(regexSteps),
			}}},
		}}},
		DynamicResources: &bootstrapv3.Bootstrap_DynamicResources{
			LdsConfig: fromADS(),
			CdsConfig: fromADS(),
			AdsConfig: &corev3.ApiConfigSource{
				ApiType:                   corev3.ApiConfigSource_DELTA_GRPC,
				TransportApiVersion:       corev3.ApiVersion_V3,
				SetNodeOnFirstMessageOnly: true,
				GrpcServices:              []*corev3.GrpcService{grpcService(managerCluster)},
			},
		},
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{
			Listeners: []*listenerv3.Listener{statsListener()},
			Clusters: []*clusterv3.Cluster{
				{
					Name:                 adminCluster,
					ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
					LoadAssignment:       assigned(adminCluster, address(loopback, mesh.AdminPort)),
				},
				{
					Name:                          agentCluster,
					ClusterDiscoveryType:          &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
					LoadAssignment:                assigned(agentCluster, pipe),
					ConnectTimeout:                duration(connectTimeout),
					TypedExtensionProtocolOptions: overHTTP2(nil),
				},
				manager,
			},
		},
	}
}

// statsListener shows of the admin endpoint the one page that Prometheus reads, and nothing that changes anything.
func statsListener() *listenerv3.Listener {
	manager := connectionManager("stats", hcmv3.HttpConnectionManager_AUTO)
	manager.HttpFilters = []*hcmv3.HttpFilter{router()}
	manager.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{
		Name: "stats",
		VirtualHosts: []*routev3.VirtualHost{{
			Name: "stats", Domains: []string{"*"},
			Routes: []*routev3.Route{{
				Match: &routev3.RouteMatch{
					PathSpecifier: &routev3.RouteMatch_Path{Path: "/stats/prometheus"},
					Headers: []*routev3.HeaderMatcher{{
						Name: ":method", HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: exactly("GET")},
					}},
				},
				Action: &routev3.Route_Route{Route: &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: adminCluster}}},
			}},
		}},
	}}
	return &listenerv3.Listener{
		Name: "stats", Address: address(anyAddress, mesh.StatsPort), FilterChains: []*listenerv3.FilterChain{{Filters: networkFilters(manager)}},
	}
}

func certificateName(port int32) string { return fmt.Sprintf("tls-%d", port) }

func certificateFile(port int32) string { return certificateName(port) + ".yaml" }

// certificateSource names the files of the Secret of a target port. Only as a Secret of its own is a certificate read again
// when the kubelet has replaced its files; what is watched is the volume, which is there before the Secret is.
func certificateSource(port int32) string {
	file := func(name string) *corev3.DataSource {
		return &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: fmt.Sprintf("%s/%d/%s", mesh.TLSDir, port, name)}}
	}
	secret := pack(&tlsv3.Secret{Name: certificateName(port), Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
		CertificateChain: file("tls.crt"), PrivateKey: file("tls.key"), WatchedDirectory: &corev3.WatchedDirectory{Path: mesh.TLSDir},
	}}})
	// It is a DiscoveryResponse, whose Go package holds gRPC's: a renderer does without.
	return "resources:\n- " + strings.ReplaceAll(strings.TrimSuffix(toYAML(secret), "\n"), "\n", "\n  ") + "\n"
}

// toYAML is the same text for the same message: protojson varies its spaces on purpose, and the YAML is made of what it
// says.
func toYAML(m proto.Message) string {
	json, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("marshal %s: %v", m.ProtoReflect().Descriptor().FullName(), err))
	}
	text, err := yaml.JSONToYAML(json)
	if err != nil {
		panic(fmt.Sprintf("marshal %s: %v", m.ProtoReflect().Descriptor().FullName(), err))
	}
	return string(text)
}

// splitAddress takes host:port apart; without a port it is the manager's usual one.
func splitAddress(address string) (host string, port uint32) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return address, mesh.XDSPort
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return host, mesh.XDSPort
	}
	return host, uint32(n)
}
