package xds

import (
	"fmt"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const typePrefix = "type.googleapis.com/"

// marshal gives the same bytes for the same message, also where it holds maps. It fails for text that is not UTF-8, which
// an object of the API server cannot hold; text that comes from bytes is made valid where it is used.
func marshal(m proto.Message) []byte {
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("marshal %s: %v", m.ProtoReflect().Descriptor().FullName(), err))
	}
	return value
}

// pack is anypb.New with bytes that are always the same: else a resource would change with each rendering.
func pack(m proto.Message) *anypb.Any {
	return &anypb.Any{TypeUrl: typePrefix + string(m.ProtoReflect().Descriptor().FullName()), Value: marshal(m)}
}

func duration(d time.Duration) *durationpb.Duration { return durationpb.New(d) }

func number(n uint32) *wrapperspb.UInt32Value { return wrapperspb.UInt32(n) }

func yes() *wrapperspb.BoolValue { return wrapperspb.Bool(true) }

func text(s string) *structpb.Value { return structpb.NewStringValue(s) }

func address(ip string, port uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: ip, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}
}

func endpoint(ip string, port uint32) *endpointv3.LbEndpoint {
	return endpointAt(address(ip, port))
}

func endpointAt(at *corev3.Address) *endpointv3.LbEndpoint {
	return &endpointv3.LbEndpoint{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: at}}}
}

// assigned is an assignment of one endpoint, for clusters that never change it.
func assigned(cluster string, at ...*corev3.Address) *endpointv3.ClusterLoadAssignment {
	locality := &endpointv3.LocalityLbEndpoints{}
	for _, address := range at {
		locality.LbEndpoints = append(locality.LbEndpoints, endpointAt(address))
	}
	return &endpointv3.ClusterLoadAssignment{ClusterName: cluster, Endpoints: []*endpointv3.LocalityLbEndpoints{locality}}
}

// fromADS has a resource come by the aggregated stream. It is waited for without end: a proxy that went on without would
// be open, or closed, for no reason that anybody could see.
func fromADS() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ResourceApiVersion:    corev3.ApiVersion_V3,
		InitialFetchTimeout:   duration(0),
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
	}
}
