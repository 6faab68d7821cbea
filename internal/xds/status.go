package xds

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/protobuf/types/known/structpb"
)

// What a client reads where a service does not answer. Why is in the access log, and no client's business.
const (
	unavailable = "the service does not answer: try again later"
	tooLate     = "the service did not answer in time"
)

const ownText = "%LOCAL_REPLY_BODY%"

// codes are the google.rpc.Code of what the gateway itself answers, by HTTP status.
var codes = []struct {
	http uint32
	rpc  code.Code
}{
	{400, code.Code_INVALID_ARGUMENT},
	{401, code.Code_UNAUTHENTICATED},
	{403, code.Code_PERMISSION_DENIED},
	{404, code.Code_NOT_FOUND},
	{408, code.Code_DEADLINE_EXCEEDED},
	{413, code.Code_RESOURCE_EXHAUSTED},
	{415, code.Code_INVALID_ARGUMENT},
	{429, code.Code_RESOURCE_EXHAUSTED},
	{431, code.Code_INVALID_ARGUMENT},
	{500, code.Code_INTERNAL},
	{501, code.Code_UNIMPLEMENTED},
	{502, code.Code_UNAVAILABLE},
	{503, code.Code_UNAVAILABLE},
	{504, code.Code_DEADLINE_EXCEEDED},
}

// statusReplies has the gateway's own answers in the form that the services' have: google.rpc.Status as JSON, and for gRPC
// the message alone. A token for somebody else is as good as none, which Envoy does not say by itself: 401.
func statusReplies() *hcmv3.LocalReplyConfig {
	foreign := all(statusIs(403), tokenRefused())
	mappers := []*hcmv3.ResponseMapper{
		{Filter: all(foreign, native()), StatusCode: number(401), BodyFormatOverride: textFormat(ownText)},
		{Filter: all(statusIs(503), native()), BodyFormatOverride: textFormat(unavailable)},
		{Filter: all(statusIs(504), native()), BodyFormatOverride: textFormat(tooLate)},
		{Filter: native(), BodyFormatOverride: textFormat(ownText)},
		{Filter: foreign, StatusCode: number(401), BodyFormatOverride: statusFormat(code.Code_UNAUTHENTICATED, ownText)},
	}
	for _, c := range codes {
		message := ownText
		switch c.http {
		case 503:
			message = unavailable
		case 504:
			message = tooLate
		}
		mappers = append(mappers, &hcmv3.ResponseMapper{Filter: statusIs(c.http), BodyFormatOverride: statusFormat(c.rpc, message)})
	}
	return &hcmv3.LocalReplyConfig{Mappers: mappers, BodyFormat: statusFormat(code.Code_UNKNOWN, ownText)}
}

func statusFormat(c code.Code, message string) *corev3.SubstitutionFormatString {
	return &corev3.SubstitutionFormatString{Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: &structpb.Struct{Fields: map[string]*structpb.Value{
		"code": structpb.NewNumberValue(float64(c)), "message": text(message), "details": structpb.NewListValue(&structpb.ListValue{}),
	}}}}
}

// native matches gRPC as it came. What was JSON looks like gRPC, too, once it is translated, but has its path kept.
func native() *accesslogv3.AccessLogFilter {
	untranslated := translated()
	untranslated.InvertMatch = true
	return all(headerFilter(isGRPC()), headerFilter(untranslated))
}

func notNative() *accesslogv3.AccessLogFilter {
	return either(headerFilter(notGRPC()), headerFilter(translated()))
}

// translated matches what the transcoder leaves in a request; a client cannot put it there.
func translated() *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{Name: "x-envoy-original-path", HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}}
}

// tokenRefused matches where a token was looked at and refused.
func tokenRefused() *accesslogv3.AccessLogFilter {
	anyCode := &matcherv3.DoubleMatcher{MatchPattern: &matcherv3.DoubleMatcher_Range{Range: &typev3.DoubleRange{Start: 1, End: 1000}}}
	return metadata(jwtName, []string{jwtFailure, "code"}, &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_DoubleMatch{DoubleMatch: anyCode}}, false)
}
