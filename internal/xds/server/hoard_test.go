package server

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/jia-app/paymesh/test/lab"
)

// names are n different ones of a length, with a version each.
func names(n, length int) map[string]string {
	of := map[string]string{}
	for i := range n {
		of[fmt.Sprintf("%0*d", length, i)] = "0123456789abcdef"
	}
	return of
}

func TestARequestWithTooMuchIsRefusedWhoeverSendsIt(t *testing.T) {
	ca := newAuthority(t, "jia.app")
	r := startReplica(t, ca)
	r.set(payKey, "/pay", rendered([]string{"contact"}, nil))
	many := make([]string, 2001)
	for i := range many {
		many[i] = fmt.Sprint(i)
	}
	for name, request := range map[string]*discoveryv3.DeltaDiscoveryRequest{
		"versions that it says it has": {InitialResourceVersions: names(2001, 8)},
		"names that it asks for":       {ResourceNamesSubscribe: many},
		"names that it takes back":     {ResourceNamesUnsubscribe: many},
		"both together":                {InitialResourceVersions: names(1001, 8), ResourceNamesSubscribe: many[:1000]},
		"half a megabyte":              {ResourceNamesSubscribe: []string{strings.Repeat("x", 512<<10)}},
	} {
		for whose, node := range map[string]string{"its own": payKey.NodeID("pay-1"), "an unknown": otherKey.NodeID("contact-1")} {
			t.Run(name+" for "+whose+" object", func(t *testing.T) {
				p := connect(t, r.dial(ca.issue("/pay", time.Hour)), node, nil)
				request.Node, request.TypeUrl = &corev3.Node{Id: node}, resource.EndpointType
				p.send(request)
				if err := p.wantEnd(); status.Code(err) != codes.ResourceExhausted {
					t.Errorf("the stream ended with %v, want ResourceExhausted", err)
				}
			})
		}
	}
	if got := r.refused(reasonNames); got != 8 { // the fifth is gRPC's own
		t.Errorf("%d refusals are counted, want 8", got)
	}
}

func TestNamesDoNotAddUpOverRequestsOrStreams(t *testing.T) {
	ca := newAuthority(t, "jia.app")
	r := startReplica(t, ca)
	r.set(payKey, "/pay", rendered([]string{"contact"}, nil))
	me := ca.issue("/pay", time.Hour)
	conn := r.dial(me)
	open := func() *proxy {
		p := connect(t, conn, payKey.NodeID("pay-1"), nil)
		p.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resource.EndpointType, Node: &corev3.Node{Id: p.node}, ResourceNamesSubscribe: []string{"*"}})
		p.wantNext("ClusterLoadAssignment contact@1")
		return p
	}
	batch := func(n int) (of []string) {
		for i := range 1000 {
			of = append(of, fmt.Sprintf("%d-%d", n, i))
		}
		return of
	}
	for name, send := range map[string]func(p *proxy, n int){
		"one request after the other": func(p *proxy, n int) {
			p.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resource.EndpointType, ResourceNamesSubscribe: batch(n)})
		},
		// The library keeps what is taken back under a wildcard, to send it once more.
		"asked for and taken back": func(p *proxy, n int) {
			p.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resource.EndpointType, ResourceNamesSubscribe: batch(n)})
			p.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resource.EndpointType, ResourceNamesUnsubscribe: batch(n)})
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := open()
			for n := range 10 {
				send(p, n)
			}
			if err := p.wantEnd(); status.Code(err) != codes.ResourceExhausted {
				t.Errorf("the stream ended with %v, want ResourceExhausted", err)
			}
		})
	}
	t.Run("on stream after stream", func(t *testing.T) {
		before := r.refused(reasonNames)
		for i := range 400 { // each of them within what a proxy may have
			if i%maxConnectionStreams == 0 {
				conn = r.dial(me)
			}
			p := connect(t, conn, payKey.NodeID("pay-1"), nil)
			p.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resource.RouteType, Node: &corev3.Node{Id: p.node}, InitialResourceVersions: names(1900, 80)})
			p.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resource.ClusterType})
			select {
			case err := <-p.ended:
				if status.Code(err) != codes.ResourceExhausted || r.refused(reasonNames) != before+1 {
					t.Errorf("the stream ended with %v, %d refusals", err, r.refused(reasonNames)-before)
				}
				return
			case <-p.got: // its clusters
			}
		}
		t.Error("no stream was refused")
	})
}

func TestStreamsOfAnUnknownObjectKeepNextToNothing(t *testing.T) {
	ca := newAuthority(t, "jia.app")
	r := startReplica(t, ca)
	r.unboundPatience = time.Hour
	metadata := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for name := range names(6000, 8) {
		metadata.Fields[name] = structpb.NewStringValue("x")
	}
	frame, err := proto.Marshal(&discoveryv3.DeltaDiscoveryRequest{
		Node:    &corev3.Node{Id: otherKey.NodeID("contact-1"), Metadata: metadata},
		TypeUrl: resource.ClusterType, InitialResourceVersions: names(1000, 40),
	})
	if err != nil {
		t.Fatal(err)
	}
	const streams = 3 * maxEntering
	me := ca.issue("/wild", time.Hour)
	before := heapMB()
	var conn *grpc.ClientConn
	var opened []grpc.ClientStream
	for i := range streams {
		if i%maxConnectionStreams == 0 {
			conn = r.dial(me)
		}
		stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true},
			discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResources_FullMethodName, grpc.ForceCodec(rawCodec{}))
		if err != nil {
			t.Fatal(err)
		}
		opened = append(opened, stream)
		go func() {
			for stream.SendMsg(&frame) == nil { // it goes out as far as the server takes it
			}
		}()
	}
	lab.Eventually(t, within, func() error {
		if got := waiting(r); got < 32 {
			return fmt.Errorf("%d streams wait", got)
		}
		return nil
	})
	if got := waiting(r); got > 32 {
		t.Errorf("%d streams of one SPIFFE ID say that they are of an object that is not known, want 32 at most", got)
	}
	grown := heapMB() - before // with what the clients keep
	t.Logf("%d streams, each with requests of %d KB without end: %d MB", streams, len(frame)>>10, grown)
	if grown > 64 {
		t.Errorf("the heap grew by %d MB for %d streams", grown, streams)
	}
	// Nobody else waits for it.
	connect(t, r.dial(ca.issue("/contact", time.Hour)), otherKey.NodeID("contact-2"), nil).subscribe(nil, nil)
	lab.Eventually(t, within, func() error {
		if got := waiting(r); got != 33 {
			return fmt.Errorf("%d streams wait", got)
		}
		return nil
	})
	// The wild ones that wait are refused now, and those behind them.
	r.set(otherKey, "/contact", rendered([]string{"vault"}, nil))
	eventuallyProxies(t, r, otherKey, Proxy{Pod: "contact-2", Synced: true})
	for _, stream := range opened {
		if err := stream.RecvMsg(new([]byte)); status.Code(err) != codes.PermissionDenied {
			t.Errorf("a stream ended with %v", err)
		}
	}
}

// waiting are the streams that have said that they are of an object which is not known.
func waiting(r *testReplica) int {
	r.Server.mu.Lock()
	defer r.Server.mu.Unlock()
	return len(r.byKey[otherKey])
}

func heapMB() int {
	runtime.GC()
	runtime.GC() // what finalizers held
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc >> 20)
}

func TestNoStreamWaitsForEver(t *testing.T) {
	ca := newAuthority(t, "jia.app")
	r := startReplica(t, ca)
	r.unboundPatience = 50 * time.Millisecond
	ends := func(p *proxy) {
		t.Helper()
		if err := p.wantEnd(); status.Code(err) != codes.Unavailable {
			t.Errorf("the stream ended with %v, want Unavailable", err)
		}
	}
	me := ca.issue("/pay", time.Hour)
	for range 2 * maxEntering { // those that stand in line, too
		defer ends(connect(t, r.dial(me), payKey.NodeID("pay-1"), nil))
	}
	ends(connect(t, r.dial(ca.issue("/silent", time.Hour)), payKey.NodeID("pay-1"), nil))
	ends(connect(t, r.dial(ca.issue("/early", time.Hour)), otherKey.NodeID("contact-1"), nil).subscribe(nil, nil))
	r.set(otherKey, "/contact", rendered([]string{"vault"}, nil))
	p := connect(t, r.dial(ca.issue("/contact", time.Hour)), otherKey.NodeID("contact-1"), nil).subscribe(nil, nil)
	p.wantNext("Cluster vault")
	r.Remove(otherKey)
	ends(p)
}
