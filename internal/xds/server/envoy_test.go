package server

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/jia-app/paymesh/internal/xds"
	"github.com/jia-app/paymesh/test/lab"
)

// envoyBootstrap is what a sidecar starts with, but for the certificate: from files here.
const envoyBootstrap = `
admin: {address: {socket_address: {address: 127.0.0.1, port_value: %[1]d}}}
dynamic_resources:
  ads_config:
    api_type: %[2]s
    transport_api_version: V3
    set_node_on_first_message_only: true
    grpc_services: [{envoy_grpc: {cluster_name: xds, retry_policy: {retry_back_off: {base_interval: 0.1s, max_interval: 1s}}}}]
  lds_config: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 0s}
  cds_config: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 0s}
static_resources:
  clusters:
  - name: xds
    type: STATIC
    connect_timeout: 5s
    load_assignment: {cluster_name: xds, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %[3]d}}}}]}]}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {connection_keepalive: {interval: 30s, timeout: 5s}}}
    transport_socket:
      name: tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        common_tls_context:
          tls_params: {tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}
          tls_certificates: [{certificate_chain: {filename: %[4]s}, private_key: {filename: %[5]s}}]
          validation_context:
            trusted_ca: {filename: %[6]s}
            match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: "%[7]s"}}]
`

// startEnvoy starts a real Envoy as a pod of payKey's object.
func startEnvoy(t *testing.T, r *testReplica, api string) *lab.Envoy {
	t.Helper()
	cert, key, bundle := r.ca.issue("/pay", time.Hour).files(t, t.TempDir())
	admin := freePort(t)
	return lab.StartEnvoy(t, lab.EnvoyOptions{
		Bootstrap: fmt.Sprintf(envoyBootstrap, admin, api, netip.MustParseAddrPort(r.Address()).Port(), cert, key, bundle, r.options.Cluster.OperatorID()),
		Node:      payKey.NodeID("pay-1"), Cluster: "payments/pay", Admin: fmt.Sprintf("127.0.0.1:%d", admin), Arguments: []string{"--use-dynamic-base-id"},
	})
}

func freePort(t *testing.T) uint32 { return uint32(lab.FreePort(t)) }

// served is a listener at a port whose routes answer with a text, or with what a cluster answers.
type served struct {
	name, text, cluster string
	port                uint32
	bad                 bool
}

func (s served) add(r *xds.Resources) {
	l := newListener(s.name, s.port)
	if s.bad { // it passes every check that there is before Envoy's own
		l.AccessLog = []*accesslogv3.AccessLog{{Name: "stdout", ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: mustAny(&streamv3.StdoutAccessLog{
			AccessLogFormat: &streamv3.StdoutAccessLog_LogFormat{LogFormat: &corev3.SubstitutionFormatString{Format: &corev3.SubstitutionFormatString_TextFormatSource{
				TextFormatSource: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: "%NOPE%"}},
			}}},
		})}}}
	}
	r.Listeners = append(r.Listeners, l)
	route := &routev3.Route{Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}}}
	if s.cluster != "" {
		route.Action = &routev3.Route_Route{Route: &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: s.cluster}}}
	} else {
		route.Action = &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{
			Status: http.StatusOK, Body: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: s.text}},
		}}
	}
	routes := newRoutes(s.name+"-routes", "*")
	routes.VirtualHosts[0].Routes = []*routev3.Route{route}
	r.Routes = append(r.Routes, routes)
}

func serving(clusters []string, listeners ...served) xds.Resources {
	r := rendered(clusters, nil)
	for _, l := range listeners {
		l.add(&r)
	}
	return r
}

// answers waits until a port answers with a text.
func answers(t *testing.T, port uint32, want string) {
	t.Helper()
	lab.Eventually(t, within, func() error {
		got, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
		if err != nil {
			return err
		}
		defer got.Body.Close() //nolint:errcheck // read to the end
		body, err := io.ReadAll(got.Body)
		if err != nil {
			return err
		}
		if string(body) != want {
			return fmt.Errorf("port %d answers %d %q, want %q", port, got.StatusCode, body, want)
		}
		return nil
	})
}

func TestWhatARealEnvoyRejectsIsNamedAndHarmsNothingElse(t *testing.T) {
	for _, api := range []string{"DELTA_GRPC", "GRPC"} {
		t.Run(api, func(t *testing.T) {
			ca := newAuthority(t, "jia.app")
			r := startReplica(t, ca)
			one, two, three := freePort(t), freePort(t), freePort(t)
			r.set(payKey, "/pay", serving(nil, served{name: "one", port: one, text: "1"}, served{name: "two", port: two, text: "1"}))
			startEnvoy(t, r, api)
			eventuallyProxies(t, r, payKey, Proxy{Pod: "pay-1", Synced: true})
			answers(t, one, "1")
			answers(t, two, "1")

			r.set(payKey, "/pay", serving(nil, served{name: "one", port: one, text: "2"}, served{name: "three", port: three, text: "2"}, served{name: "two", port: two, text: "1", bad: true}))
			names := []string{"two"}
			if api == "GRPC" { // its responses cannot be taken apart
				names = []string{"three", "two"}
			}
			lab.Eventually(t, within, func() error {
				got := r.Proxies(payKey)
				if len(got) != 1 || got[0].Synced || got[0].NACK == nil || !strings.Contains(got[0].NACK.Message, "NOPE") ||
					got[0].NACK.TypeURL != resource.ListenerType || fmt.Sprint(got[0].NACK.Resources) != fmt.Sprint(names) {
					return fmt.Errorf("proxies: %s", show(got))
				}
				return nil
			})
			answers(t, two, "1") // its last good version
			answers(t, one, "2")
			answers(t, three, "2")
			nacks := testutil.ToFloat64(r.Server.metrics.nacks.WithLabelValues("Listener"))

			r.set(payKey, "/pay", serving(nil, served{name: "one", port: one, text: "3"}, served{name: "three", port: three, text: "3"}, served{name: "two", port: two, text: "3", bad: true}))
			answers(t, one, "3")
			answers(t, three, "3")
			if got := testutil.ToFloat64(r.Server.metrics.nacks.WithLabelValues("Listener")); got != nacks {
				t.Errorf("%v NACKs more: what was rejected is repeated", got-nacks)
			}
			r.set(payKey, "/pay", serving(nil, served{name: "one", port: one, text: "3"}, served{name: "two", port: two, text: "3"}))
			eventuallyProxies(t, r, payKey, Proxy{Pod: "pay-1", Synced: true})
			answers(t, two, "3")
		})
	}
}

func TestAFreshEnvoyStartsOnAConfigThatItRejectsAPartOf(t *testing.T) {
	for _, api := range []string{"DELTA_GRPC", "GRPC"} {
		t.Run(api, func(t *testing.T) {
			ca := newAuthority(t, "jia.app")
			r := startReplica(t, ca)
			one, two := freePort(t), freePort(t)
			r.set(payKey, "/pay", serving(nil, served{name: "one", port: one, text: "1"}, served{name: "two", port: two, text: "1", bad: true}))
			envoy := startEnvoy(t, r, api)
			answers(t, one, "1")
			names := []string{"two"}
			if api == "GRPC" { // its responses cannot be taken apart
				names = []string{"one", "two"}
			}
			lab.Eventually(t, within, func() error {
				got := r.Proxies(payKey)
				if len(got) != 1 || got[0].Synced || got[0].NACK == nil || !strings.Contains(got[0].NACK.Message, "NOPE") ||
					got[0].NACK.TypeURL != resource.ListenerType || fmt.Sprint(got[0].NACK.Resources) != fmt.Sprint(names) {
					return fmt.Errorf("proxies: %s", show(got))
				}
				return nil
			})
			listeners, err := envoy.Admin("/listeners")
			if err != nil || !strings.Contains(listeners, "one::") || strings.Contains(listeners, "two::") {
				t.Errorf("it has the listeners %q, %v", listeners, err)
			}
			r.set(payKey, "/pay", serving(nil, served{name: "one", port: one, text: "2"}, served{name: "two", port: two, text: "2"}))
			eventuallyProxies(t, r, payKey, Proxy{Pod: "pay-1", Synced: true})
			answers(t, one, "2")
			answers(t, two, "2")
		})
	}
}

func TestAFreshEnvoyWhoseRoutesAreRejectedAnswersNothingUntilTheyAreMended(t *testing.T) {
	ca := newAuthority(t, "jia.app")
	r := startReplica(t, ca)
	port := freePort(t)
	bad := serving(nil, served{name: "in", port: port, text: "1"})
	bad.Routes[0].VirtualHosts = append(bad.Routes[0].VirtualHosts, bad.Routes[0].VirtualHosts[0]) // a name and a domain twice
	r.set(payKey, "/pay", bad)
	startEnvoy(t, r, "DELTA_GRPC")
	lab.Eventually(t, within, func() error {
		got := r.Proxies(payKey)
		if len(got) != 1 || got[0].Synced || got[0].NACK == nil || got[0].NACK.TypeURL != resource.RouteType || fmt.Sprint(got[0].NACK.Resources) != "[in-routes]" {
			return fmt.Errorf("proxies: %s", show(got))
		}
		return nil
	})
	answers(t, port, "") // 404: the listener is there, and has no routes
	r.set(payKey, "/pay", serving(nil, served{name: "in", port: port, text: "2"}))
	eventuallyProxies(t, r, payKey, Proxy{Pod: "pay-1", Synced: true})
	answers(t, port, "2")
}

func TestARealEnvoyMovesToAnotherReplicaAndIsSentNothing(t *testing.T) {
	ca := newAuthority(t, "jia.app")
	r := startReplica(t, ca)
	port := freePort(t)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "contact") }))
	defer upstream.Close()
	of := func() xds.Resources {
		return serving([]string{"contact"}, served{name: "out", port: port, cluster: "contact"})
	}
	endpoints := at(strings.TrimPrefix(upstream.URL, "http://"))
	r.set(payKey, "/pay", of())
	envoy := startEnvoy(t, r, "DELTA_GRPC")
	eventuallyProxies(t, r, payKey, Proxy{Pod: "pay-1", Synced: true})
	answers(t, port, "no healthy upstream")
	r.SetEndpoints(contactKey, endpoints)
	answers(t, port, "contact")

	next := New(Options{Address: r.Address(), Source: r.operator(), Cluster: r.options.Cluster, Log: discard})
	if err := next.Set(payKey, ca.ID("/pay"), of()); err != nil {
		t.Fatal(err)
	}
	next.SetEndpoints(contactKey, endpoints)
	r.stop()
	other := &testReplica{t: t, ca: ca, Server: next}
	other.run()
	eventuallyProxies(t, other, payKey, Proxy{Pod: "pay-1", Synced: true})
	answers(t, port, "contact")

	// A cluster that takes another's place, and the routes with it: no call falls between.
	changed := serving([]string{"people"}, served{name: "out", port: port, cluster: "people"})
	stop, failed := make(chan struct{}), make(chan string, 1)
	go func() {
		failures := 0
		for calls := 0; ; calls++ {
			select {
			case <-stop:
				failed <- fmt.Sprintf("%d of some calls failed", failures)
				return
			default:
			}
			if got, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", port)); err != nil || got.StatusCode != http.StatusOK {
				failures++
			} else {
				_, _ = io.Copy(io.Discard, got.Body)
				_ = got.Body.Close()
			}
		}
	}()
	for _, typeName := range []string{"Cluster", "ClusterLoadAssignment", "Listener", "RouteConfiguration"} {
		if n := testutil.ToFloat64(next.metrics.pushes.WithLabelValues(typeName)); n != 0 {
			t.Errorf("after the move %v responses were sent of %s", n, typeName)
		}
	}
	other.set(payKey, "/pay", changed)
	eventuallyProxies(t, other, payKey, Proxy{Pod: "pay-1", Synced: true})
	close(stop)
	if got := <-failed; got != "0 of some calls failed" {
		t.Error(got)
	}
	clusters, err := envoy.Admin("/clusters")
	if err != nil || strings.Contains(clusters, "contact::") {
		t.Errorf("the old cluster stays: %v\n%s", err, clusters)
	}
}
