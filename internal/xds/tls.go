package xds

import (
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

const tlsSocket = "envoy.transport_sockets.tls"

// agentCluster is the bootstrap's cluster of the SPIRE agent.
const agentCluster = "spire-agent"

// The agent is asked again this soon. Envoy's own back-off grows with the wait, to many seconds after an identity is there.
const (
	retryBase = 100 * time.Millisecond
	retryMax  = time.Second
)

// identity is the certificate that a proxy shows, and the trust domain whose certificates it takes.
type identity struct {
	id spiffeid.ID
}

// toPeer is mTLS towards whoever has the peer's SPIFFE ID, and nobody else.
func (i identity) toPeer(peer spiffeid.ID) *corev3.TransportSocket {
	return socket(pack(&tlsv3.UpstreamTlsContext{CommonTlsContext: i.context(peer)}))
}

// fromPeers is mTLS for callers with any SPIFFE ID of the trust domain: RBAC says which of them may do what.
func (i identity) fromPeers() *corev3.TransportSocket {
	return socket(pack(&tlsv3.DownstreamTlsContext{CommonTlsContext: i.context(spiffeid.ID{}), RequireClientCertificate: yes()}))
}

func (i identity) context(peer spiffeid.ID) *tlsv3.CommonTlsContext {
	validation := &tlsv3.CertificateValidationContext{}
	if !peer.IsZero() {
		validation.MatchTypedSubjectAltNames = []*tlsv3.SubjectAltNameMatcher{{
			SanType: tlsv3.SubjectAltNameMatcher_URI,
			Matcher: exactly(peer.String()),
		}}
	}
	return &tlsv3.CommonTlsContext{
		TlsParams:                      atLeastTLS12(),
		AlpnProtocols:                  []string{"h2"},
		TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{fromAgent(i.id.String())},
		ValidationContextType: &tlsv3.CommonTlsContext_CombinedValidationContext{CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
			DefaultValidationContext:         validation,
			ValidationContextSdsSecretConfig: fromAgent(i.id.TrustDomain().IDString()),
		}},
	}
}

// fromAgent has a secret come from the SPIRE agent, which has no delta protocol. It is waited for without end.
func fromAgent(name string) *tlsv3.SdsSecretConfig {
	return &tlsv3.SdsSecretConfig{Name: name, SdsConfig: &corev3.ConfigSource{
		ResourceApiVersion:  corev3.ApiVersion_V3,
		InitialFetchTimeout: duration(0),
		ConfigSourceSpecifier: &corev3.ConfigSource_ApiConfigSource{ApiConfigSource: &corev3.ApiConfigSource{
			ApiType:                   corev3.ApiConfigSource_GRPC,
			TransportApiVersion:       corev3.ApiVersion_V3,
			SetNodeOnFirstMessageOnly: true,
			GrpcServices:              []*corev3.GrpcService{grpcService(agentCluster)},
		}},
	}}
}

func grpcService(cluster string) *corev3.GrpcService {
	return &corev3.GrpcService{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{
		ClusterName: cluster,
		RetryPolicy: &corev3.RetryPolicy{RetryBackOff: &corev3.BackoffStrategy{BaseInterval: duration(retryBase), MaxInterval: duration(retryMax)}},
	}}}
}

// atLeastTLS12 says so: what a proxy takes by default depends on its version and its side.
func atLeastTLS12() *tlsv3.TlsParameters {
	return &tlsv3.TlsParameters{TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_2, TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3}
}

func exactly(value string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: value}}
}
