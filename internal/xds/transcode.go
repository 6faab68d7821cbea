package xds

import (
	"slices"

	bufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/buffer/v3"
	transcoderv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_json_transcoder/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
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

// transcoder translates an exposure's methods. What it cannot make sense of in a request it refuses, but for unknown fields
// of a JSON body: Envoy drops those.
func transcoder(r mesh.Route) *transcoderv3.GrpcJsonTranscoder {
	return &transcoderv3.GrpcJsonTranscoder{
		DescriptorSet:             &transcoderv3.GrpcJsonTranscoder_ProtoDescriptorBin{ProtoDescriptorBin: only(r)},
		Services:                  services(r),
		MatchIncomingRequestRoute: true,
		ConvertGrpcStatus:         true,
		RequestValidationOptions: &transcoderv3.GrpcJsonTranscoder_RequestValidationOptions{
			RejectUnknownMethod: true, RejectUnknownQueryParameters: true, RejectBindingBodyFieldCollisions: true,
		},
		MaxRequestBodySize:  number(maxBody),
		MaxResponseBodySize: number(maxResponse),
	}
}

func services(r mesh.Route) []string {
	var names []string
	for _, method := range r.Methods {
		names = append(names, method.Service)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// only is the exposure's descriptor set without comments, and with its methods alone: the transcoder finds a method by the
// path on its own, and could find one that is not exposed where their templates overlap. All messages stay, since any of
// them may be in an error's details.
func only(r mesh.Route) []byte {
	exposed := map[string]bool{}
	for _, method := range r.Methods {
		exposed[method.Service+"/"+method.Name] = true
	}
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(r.Descriptors, set); err != nil {
		return nil // it has been read when the Mesh was built
	}
	for _, file := range set.GetFile() {
		file.SourceCodeInfo = nil
		for _, service := range file.GetService() {
			name := service.GetName()
			if file.GetPackage() != "" {
				name = file.GetPackage() + "." + name
			}
			service.Method = slices.DeleteFunc(service.Method, func(method *descriptorpb.MethodDescriptorProto) bool {
				return !exposed[name+"/"+method.GetName()] && !exposed[name+"/*"]
			})
		}
		file.Service = slices.DeleteFunc(file.Service, func(service *descriptorpb.ServiceDescriptorProto) bool { return len(service.GetMethod()) == 0 })
	}
	return marshal(set)
}
