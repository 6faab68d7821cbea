package xds

import (
	"maps"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	celv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/jia-app/paymesh/internal/mesh"
)

// fields are a line of an access log: an allow-list of names and operators. No header is in it but the path, without its
// query, and nothing that a caller could put a secret into.
type fields map[string]string

// line writes a line of JSON to stdout for what the filter matches; for everything where it is nil.
func line(f fields, filter *accesslogv3.AccessLogFilter) *accesslogv3.AccessLog {
	format := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for name, operator := range f {
		format.Fields[name] = text(operator)
	}
	return &accesslogv3.AccessLog{
		Name:   "envoy.access_loggers.stdout",
		Filter: filter,
		ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: pack(&streamv3.StdoutAccessLog{
			AccessLogFormat: &streamv3.StdoutAccessLog_LogFormat{LogFormat: &corev3.SubstitutionFormatString{
				Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: format}, OmitEmptyValues: true,
			}},
		})},
	}
}

// inboundLog has a line for each call: who called what, and which rule let it in, or came nearest. An operator cannot tell
// apart what it finds from what it does not, hence a logger for each case.
func inboundLog(s mesh.Service) []*accesslogv3.AccessLog {
	common := fields{
		"log": "inbound", "time": "%START_TIME%", "mesh_service": s.Key.String(), "caller": callerID, "method": method,
		"grpc_status": "%GRPC_STATUS_NUMBER%", "duration_ms": "%DURATION%", "details": "%RESPONSE_CODE_DETAILS%",
	}
	denied := noteIs("enforced_engine_result", exactly("denied"), false)
	return []*accesslogv3.AccessLog{
		// Calls that no rule has judged, since they broke the protocol, are among these.
		line(common.with("rule", noted("enforced_effective_policy_id")), noteIs("enforced_engine_result", exactly("allowed"), true)),
		line(common.with("nearest_rule", noted(nearCaller)+nearCallerHint), all(denied, hasNote(nearCaller))),
		line(common.with("nearest_rule", noted(nearMethod)+nearMethodHint), all(denied, hasNoNote(nearCaller), hasNote(nearMethod))),
		line(common.with("nearest_rule", "none"), all(denied, hasNoNote(nearCaller), hasNoNote(nearMethod))),
	}
}

func (f fields) with(name, operator string) fields {
	f = maps.Clone(f)
	f[name] = operator
	return f
}

// handshakeLog has a line for each connection that ended before its caller had proved who it is.
func handshakeLog(s mesh.Service) []*accesslogv3.AccessLog {
	return []*accesslogv3.AccessLog{line(fields{
		"log": "handshake", "time": "%START_TIME%", "mesh_service": s.Key.String(), "remote": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
		"claimed_caller": callerID, "failure": "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%",
	}, expression("connection.transport_failure_reason != ''"))}
}

// outboundLog has a line for each call that failed on its way, and not by the callee's answer.
func outboundLog(s mesh.Service, u mesh.Upstream) []*accesslogv3.AccessLog {
	failed := either(
		&accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ResponseFlagFilter{ResponseFlagFilter: &accesslogv3.ResponseFlagFilter{}}}, // any
		&accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_GrpcStatusFilter{GrpcStatusFilter: &accesslogv3.GrpcStatusFilter{
			Statuses: []accesslogv3.GrpcStatusFilter_Status{accesslogv3.GrpcStatusFilter_DEADLINE_EXCEEDED}, // which has no flag
		}}},
	)
	return []*accesslogv3.AccessLog{line(fields{
		"log": "outbound", "time": "%START_TIME%", "mesh_service": s.Key.String(), "dependency": u.Name, "callee": u.ID.String(), "method": method,
		"grpc_status": "%GRPC_STATUS_NUMBER%", "duration_ms": "%DURATION%", "flags": "%RESPONSE_FLAGS%", "details": "%RESPONSE_CODE_DETAILS%",
		"endpoint": "%UPSTREAM_HOST%", "upstream_failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
	}, failed)}
}

// gatewayLog has a line for each request but the kubelet's. Neither the token nor the idempotency key is in it. The gRPC status is there for
// what came as gRPC: of other answers it would be guessed from the HTTP status.
func gatewayLog(g mesh.Gateway, l mesh.GatewayListener) []*accesslogv3.AccessLog {
	common := fields{
		"log": "gateway", "time": "%START_TIME%", "mesh_gateway": g.Key.String(), "listener": l.Name,
		"remote": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "host": "%REQ(:AUTHORITY):128%", "http_method": "%REQ(X-ENVOY-ORIGINAL-METHOD?:METHOD):16%", "path": "%PATH(NQ:ORIG_OR_PATH):256%",
		"code": "%RESPONSE_CODE%", "details": "%RESPONSE_CODE_DETAILS%", "flags": "%RESPONSE_FLAGS%", "duration_ms": "%DURATION%",
		"jwt_failure": "%DYNAMIC_METADATA(" + jwtName + ":" + jwtFailure + ":message)%", "jwt_failure_code": "%DYNAMIC_METADATA(" + jwtName + ":" + jwtFailure + ":code)%",
		"route": "%ROUTE_NAME%", "service": "%METADATA(ROUTE:" + routeMetadata + ":service)%",
		"endpoint": "%UPSTREAM_HOST%", "upstream_failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
	}
	return []*accesslogv3.AccessLog{
		line(common, all(notProbe(), notNative())),
		line(common.with("grpc_status", "%GRPC_STATUS_NUMBER%"), all(notProbe(), native())),
	}
}

// notProbe keeps what the kubelet asks every other second out of a log. Whoever asks the same learns and does nothing more.
func notProbe() *accesslogv3.AccessLogFilter {
	h := header(":authority", exactly(mesh.ReadyHost))
	h.InvertMatch, h.TreatMissingHeaderAsEmpty = true, true
	return headerFilter(h)
}

func expression(cel string) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ExtensionFilter{ExtensionFilter: &accesslogv3.ExtensionFilter{
		Name:       "envoy.access_loggers.extension_filters.cel",
		ConfigType: &accesslogv3.ExtensionFilter_TypedConfig{TypedConfig: pack(&celv3.ExpressionFilter{Expression: cel})},
	}}}
}
