package xds

import (
	"slices"

	bufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/buffer/v3"
	transcoderv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_json_transcoder/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/jia-app/paymesh/internal/mesh"
)

const (
	transcoderName = "envoy.filters.http.grpc_json_transcoder"
	bufferName     = "envoy.filters.http.buffer"
)

// transcodeFilter knows no services: what a route translates comes with the route.
func transcodeFilter() *hcmv3.HttpFilter {
	return httpFilter(transcoderName, &transcoderv3.GrpcJsonTranscoder{DescriptorSet: &transcoderv3.GrpcJsonTranscoder_ProtoDescriptorBin{}})
}

// bufferFilter holds a body until it is whole, where a route says so, and so refuses one that is too long: the transcoder
// would pass it on piece by piece. It is off for gRPC, which may stream.
func bufferFilter() *hcmv3.HttpFilter {
	filter := httpFilter(bufferName, &bufferv3.Buffer{MaxRequestBytes: number(maxBody)})
	filter.Disabled = true
	return filter
}

func buffered() *anypb.Any {
	return pack(&bufferv3.BufferPerRoute{Override: &bufferv3.BufferPerRoute_Buffer{Buffer: &bufferv3.Buffer{MaxRequestBytes: number(maxBody)}}})
}

// transcoder translates methods, by descriptors that have no others. What it cannot make sense of in a request it refuses, but for unknown fields
// of a JSON body: Envoy drops those.
func transcoder(descriptors []byte, methods []mesh.Method) *transcoderv3.GrpcJsonTranscoder {
	return &transcoderv3.GrpcJsonTranscoder{
		DescriptorSet:             &transcoderv3.GrpcJsonTranscoder_ProtoDescriptorBin{ProtoDescriptorBin: descriptors},
		Services:                  services(methods),
		MatchIncomingRequestRoute: true,
		ConvertGrpcStatus:         true,
		RequestValidationOptions: &transcoderv3.GrpcJsonTranscoder_RequestValidationOptions{
			RejectUnknownMethod: true, RejectUnknownQueryParameters: true, RejectBindingBodyFieldCollisions: true,
		},
		MaxRequestBodySize:  number(maxBody),
		MaxResponseBodySize: number(maxResponse),
	}
}

func services(methods []mesh.Method) []string {
	var names []string
	for _, method := range methods {
		names = append(names, method.Service)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
