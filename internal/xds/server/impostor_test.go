package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statusv3 "github.com/envoyproxy/go-control-plane/envoy/service/status/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/test/lab"
)

func TestOnlyTheObjectsOwnIdentityGetsItsConfig(t *testing.T) {
	ca := newAuthority(t, "jia.app")
	for name, test := range map[string]struct {
		as     *source
		node   string
		reason string
	}{
		"another object's node ID":  {ca.issue("/contact", time.Hour), payKey.NodeID("pay-1"), reasonIdentity},
		"the operator's own ID":     {ca.issue("/paymesh/main/operator", time.Hour), payKey.NodeID("pay-1"), reasonIdentity},
		"a path below the ID":       {ca.issue("/pay/1", time.Hour), payKey.NodeID("pay-1"), reasonIdentity},
		"no node ID":                {ca.issue("/pay", time.Hour), "", reasonNodeID},
		"a node ID of another form": {ca.issue("/pay", time.Hour), "payments/pay", reasonNodeID},
		"a node ID with a path":     {ca.issue("/pay", time.Hour), payKey.NodeID("../pay/pay-1"), reasonNodeID},
	} {
		t.Run(name, func(t *testing.T) {
			r := startReplica(t, ca)
			r.set(payKey, "/pay", rendered([]string{"contact"}, nil))
			p := connect(t, r.dial(test.as), test.node, nil).subscribe(nil, nil)
			err := p.wantEnd()
			if status.Code(err) != codes.PermissionDenied {
				t.Errorf("the stream ended with %v, want PermissionDenied", err)
			}
			if strings.Contains(err.Error(), "spiffe://") {
				t.Errorf("the refusal tells an ID: %v", err)
			}
			if len(p.got) > 0 {
				t.Errorf("it was sent %s", describe(<-p.got))
			}
			if got := r.refused(test.reason); got != 1 {
				t.Errorf("%d refusals are counted as %s, want 1", got, test.reason)
			}
			if !r.logged("refused an xDS stream", test.as.svid.ID.String(), test.reason) {
				t.Errorf("the log has no such attempt: %v", r.log)
			}
		})
	}
}

func TestABoundStreamReachesNothingOfOthers(t *testing.T) {
	ca := newAuthority(t, "jia.app")
	r := startReplica(t, ca)
	r.set(payKey, "/pay", rendered([]string{"contact"}, []string{"in"}))
	r.set(otherKey, "/contact", rendered([]string{"vault"}, []string{"hidden"}))
	conn := r.dial(ca.issue("/pay", time.Hour))
	bound := func() *proxy {
		p := connect(t, conn, payKey.NodeID("pay-1"), nil)
		p.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resource.RouteType, Node: &corev3.Node{Id: p.node, Cluster: "people/contact"}})
		return p
	}
	t.Run("by the names of the other's resources", func(t *testing.T) {
		p := bound()
		for _, typeURL := range order {
			p.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesSubscribe: []string{"vault", "vault@1", "hidden", "hidden-routes", "*"}})
		}
		seen := ""
		for range order { // the wildcard brings what is its own
			seen += describe(p.next()) + "\n"
		}
		if strings.Contains(seen, "vault") || strings.Contains(seen, "hidden") {
			t.Errorf("it was sent\n%s", seen)
		}
	})
	t.Run("by another node ID later on", func(t *testing.T) {
		p := bound()
		p.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resource.ClusterType, Node: &corev3.Node{Id: otherKey.NodeID("contact-1")}})
		if err := p.wantEnd(); status.Code(err) != codes.PermissionDenied || r.refused(reasonNodeChanged) != 1 {
			t.Errorf("the stream ended with %v", err)
		}
	})
	t.Run("by secrets", func(t *testing.T) {
		p := bound()
		p.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resource.SecretType, ResourceNamesSubscribe: []string{ca.ID("/contact").String()}})
		if err := p.wantEnd(); status.Code(err) != codes.InvalidArgument || r.refused(reasonType) != 1 {
			t.Errorf("the stream ended with %v", err)
		}
	})
	t.Run("by the services of one type, or a fetch", func(t *testing.T) {
		for _, method := range []string{
			"/envoy.service.cluster.v3.ClusterDiscoveryService/FetchClusters", "/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters",
			"/envoy.service.listener.v3.ListenerDiscoveryService/DeltaListeners", "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets",
		} {
			err := conn.Invoke(t.Context(), method, &discoveryv3.DiscoveryRequest{Node: &corev3.Node{Id: payKey.NodeID("pay-1")}}, &discoveryv3.DiscoveryResponse{})
			if status.Code(err) != codes.Unimplemented {
				t.Errorf("%s: %v", method, err)
			}
		}
	})
}

func TestMalformedStreamsHarmNobody(t *testing.T) {
	ca := newAuthority(t, "jia.app")
	r := startReplica(t, ca)
	r.set(payKey, "/pay", rendered([]string{"contact"}, []string{"in"}))
	good := connect(t, r.dial(ca.issue("/pay", time.Hour)), payKey.NodeID("pay-1"), nil).subscribe([]string{"contact@1"}, []string{"in-routes"})
	good.wantNext("Cluster contact", "ClusterLoadAssignment contact@1", "Listener in", "RouteConfiguration in-routes")
	conn := r.dial(ca.issue("/pay", time.Hour))
	const methods = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"
	random := rand.New(rand.NewPCG(1, 2))
	node := &corev3.Node{Id: payKey.NodeID("pay-2")}
	many := make([]string, maxNames+1)
	for i := range many {
		many[i] = fmt.Sprint(i)
	}
	requests := []proto.Message{
		&discoveryv3.DeltaDiscoveryRequest{}, &discoveryv3.DiscoveryRequest{},
		&discoveryv3.DeltaDiscoveryRequest{Node: node}, &discoveryv3.DiscoveryRequest{Node: node},
		&discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: strings.Repeat("x", 1<<15)},
		&discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: resource.ClusterType, ResponseNonce: "9", ErrorDetail: status.New(codes.Internal, "no").Proto()},
		&discoveryv3.DiscoveryRequest{Node: node, TypeUrl: resource.ClusterType, ResponseNonce: "9", ErrorDetail: status.New(codes.Internal, "no").Proto()},
		&discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: resource.EndpointType, ResourceNamesSubscribe: many},
		&discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: resource.ClusterType, InitialResourceVersions: map[string]string{"": "", "*": "*", "contact": ""}, ResourceNamesSubscribe: []string{"", "*"}, ResourceNamesUnsubscribe: []string{"*", ""}},
	}
	var streaming sync.WaitGroup
	for i := range 1000 {
		var frame []byte
		if i%3 == 0 {
			frame = make([]byte, random.IntN(200))
			for j := range frame {
				frame[j] = byte(random.Uint32())
			}
		} else {
			frame, _ = proto.Marshal(requests[i%len(requests)])
		}
		method := methods + []string{"DeltaAggregatedResources", "StreamAggregatedResources"}[i%2]
		streaming.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), within)
			defer cancel()
			stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method, grpc.ForceCodec(rawCodec{}))
			if err != nil {
				t.Errorf("stream %d: %v", i, err)
				return
			}
			for range 3 {
				_ = stream.SendMsg(&frame)
			}
			_ = stream.CloseSend()
			var answer []byte
			for err == nil {
				err = stream.RecvMsg(&answer)
			}
		})
	}
	streaming.Wait()
	if got := r.refused(reasonPanic); got > 0 {
		t.Errorf("%d panics: %v", got, r.log)
	}
	r.SetEndpoints(contactKey, at("10.0.0.1:15443"))
	good.wantNext("ClusterLoadAssignment contact@1")
	eventuallyProxies(t, r, payKey, Proxy{Pod: "pay-1", Synced: true})
}

// rawCodec sends bytes as they are.
type rawCodec struct{}

func (rawCodec) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }

func (rawCodec) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = bytes.Clone(data)
	return nil
}

func (rawCodec) Name() string { return "proto" }

func TestAPanicEndsItsStreamAlone(t *testing.T) {
	ca := newAuthority(t, "jia.app")
	r := startReplica(t, ca)
	r.set(payKey, "/pay", rendered([]string{"contact"}, nil))
	r.Notify(func(key mesh.ProxyKey) {
		if key == otherKey {
			panic("a bug")
		}
	})
	r.Server.mu.Lock()
	r.configs[otherKey] = &objectConfig{id: ca.ID("/contact")}
	r.Server.mu.Unlock()
	p := connect(t, r.dial(ca.issue("/contact", time.Hour)), otherKey.NodeID("contact-1"), nil).subscribe(nil, nil)
	if err := p.wantEnd(); status.Code(err) != codes.Internal {
		t.Errorf("the stream ended with %v", err)
	}
	connect(t, r.dial(ca.issue("/pay", time.Hour)), payKey.NodeID("pay-1"), nil).subscribe(nil, nil).wantNext("Cluster contact")
	if r.refused(reasonPanic) == 0 {
		t.Error("no panic is counted")
	}
	if got := r.Proxies(otherKey); len(got) > 0 {
		t.Errorf("the stream is still there: %s", show(got))
	}
}

func TestNobodyConnectsWithoutAGoodCertificate(t *testing.T) {
	ca := newAuthority(t, "jia.app")
	for name, as := range map[string]*source{
		"an expired certificate":        ca.issue("/pay", -time.Minute),
		"a certificate of another root": {svid: newAuthority(t, "jia.app").issue("/pay", time.Hour).svid, of: ca.Bundle()},
		"another trust domain":          {svid: newAuthority(t, "evil.example").issue("/pay", time.Hour).svid, of: ca.Bundle()},
	} {
		t.Run(name, func(t *testing.T) {
			r := startReplica(t, ca)
			if _, err := ask(r, as); status.Code(err) != codes.Unavailable {
				t.Errorf("got %v, want no connection", err)
			}
			lab.Eventually(t, within, func() error {
				if r.refused(reasonHandshake) == 0 {
					return errors.New("no refused handshake is counted")
				}
				return nil
			})
		})
	}
}

func TestNobodyConnectsWithoutACertificateOrWithOlderTLS(t *testing.T) {
	ca := newAuthority(t, "jia.app")
	r := startReplica(t, ca)
	me := ca.issue("/pay", time.Hour)
	bare, old := me.tls(r.options.Cluster.OperatorID()), me.tls(r.options.Cluster.OperatorID())
	bare.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil }
	old.MaxVersion = tls.VersionTLS12
	for name, credentials := range map[string]credentials.TransportCredentials{
		"no certificate": credentials.NewTLS(bare), "TLS 1.2": credentials.NewTLS(old), "no TLS": insecure.NewCredentials(),
	} {
		t.Run(name, func(t *testing.T) {
			before := r.refused(reasonHandshake)
			conn, err := grpc.NewClient("passthrough:///"+r.Address(), grpc.WithTransportCredentials(credentials))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close() //nolint:errcheck // it never was
			ctx, cancel := context.WithTimeout(t.Context(), within)
			defer cancel()
			if _, err := statusv3.NewClientStatusDiscoveryServiceClient(conn).FetchClientStatus(ctx, &statusv3.ClientStatusRequest{}); status.Code(err) != codes.Unavailable {
				t.Errorf("got %v, want no connection", err)
			}
			lab.Eventually(t, within, func() error {
				if r.refused(reasonHandshake) == before {
					return errors.New("no refused handshake is counted")
				}
				return nil
			})
		})
	}
}
