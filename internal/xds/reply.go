package xds

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/jia-app/paymesh/internal/mesh"
)

// The proxy's operators for access logs and replies.
const (
	callerID = "%DOWNSTREAM_PEER_URI_SAN%"
	// method is the path of a call, which names the gRPC method. The caller chose it: it is cut, and has no query.
	method = "%PATH(NQ:PATH):256%"
)

// How a rule came near that did not admit a call.
const (
	nearCallerHint = " (this caller, other methods)"
	nearMethodHint = " (this method, other callers)"
)

func noted(key string) string { return "%DYNAMIC_METADATA(" + rbacMetadata + ":" + key + ")%" }

// denials explain a refusal in grpc-message: by which service, of whom to do what, and which of its rules came nearest.
func denials(s mesh.Service) *hcmv3.LocalReplyConfig {
	refused := "denied by MeshService " + s.Key.String() + ": no rule of allow admits " + callerID + " to " + method + "; "
	return &hcmv3.LocalReplyConfig{Mappers: []*hcmv3.ResponseMapper{
		{
			Filter:             all(statusIs(403), hasNote(nearCaller)),
			BodyFormatOverride: textFormat(refused + "nearest rule: " + noted(nearCaller) + nearCallerHint),
		},
		{
			Filter:             all(statusIs(403), hasNote(nearMethod)),
			BodyFormatOverride: textFormat(refused + "nearest rule: " + noted(nearMethod) + nearMethodHint),
		},
		{
			Filter:             statusIs(403),
			BodyFormatOverride: textFormat(refused + "no rule names this caller or this method"),
		},
	}}
}

func textFormat(format string) *corev3.SubstitutionFormatString {
	return &corev3.SubstitutionFormatString{Format: &corev3.SubstitutionFormatString_TextFormatSource{
		TextFormatSource: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: format}},
	}}
}

func statusIs(code uint32) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_StatusCodeFilter{StatusCodeFilter: &accesslogv3.StatusCodeFilter{
		Comparison: &accesslogv3.ComparisonFilter{Op: accesslogv3.ComparisonFilter_EQ, Value: &corev3.RuntimeUInt32{DefaultValue: code, RuntimeKey: "paymesh.none"}},
	}}}
}

// noteIs matches what the rule filters noted of a call; missing says whether one of which they noted nothing matches.
func noteIs(key string, value *matcherv3.StringMatcher, missing bool) *accesslogv3.AccessLogFilter {
	return metadata(rbacMetadata, []string{key}, &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_StringMatch{StringMatch: value}}, missing)
}

func hasNote(key string) *accesslogv3.AccessLogFilter {
	return metadata(rbacMetadata, []string{key}, &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_PresentMatch{PresentMatch: true}}, false)
}

// hasNoNote compares with the name that no rule has: Envoy does not heed a matcher's invert here.
func hasNoNote(key string) *accesslogv3.AccessLogFilter {
	return noteIs(key, exactly("(no rule)"), true)
}

// metadata matches what a filter noted; missing says whether a call of which it noted nothing matches.
func metadata(filter string, path []string, value *matcherv3.ValueMatcher, missing bool) *accesslogv3.AccessLogFilter {
	matcher := &matcherv3.MetadataMatcher{Filter: filter, Value: value}
	for _, key := range path {
		matcher.Path = append(matcher.Path, &matcherv3.MetadataMatcher_PathSegment{Segment: &matcherv3.MetadataMatcher_PathSegment_Key{Key: key}})
	}
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_MetadataFilter{
		MetadataFilter: &accesslogv3.MetadataFilter{Matcher: matcher, MatchIfKeyNotFound: wrapperspb.Bool(missing)},
	}}
}

func all(filters ...*accesslogv3.AccessLogFilter) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_AndFilter{AndFilter: &accesslogv3.AndFilter{Filters: filters}}}
}

func either(filters ...*accesslogv3.AccessLogFilter) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_OrFilter{OrFilter: &accesslogv3.OrFilter{Filters: filters}}}
}

func headerFilter(matcher *routev3.HeaderMatcher) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_HeaderFilter{HeaderFilter: &accesslogv3.HeaderFilter{Header: matcher}}}
}
