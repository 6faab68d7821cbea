package xds_test

import (
	"context"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"k8s.io/apimachinery/pkg/types"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/xds"
	"github.com/jia-app/paymesh/payment/config"
	paymentserver "github.com/jia-app/paymesh/payment/server"
	"github.com/jia-app/paymesh/test/tokens"
)

const (
	hostname = "pay.example.com"
	issuer   = "https://issuer.jia.app"
	audience = "payments"
)

// door is a gateway, with the payment service and the contact service behind it, each with its sidecar.
type door struct {
	gateway  mesh.Gateway
	pod      *pod
	payment  mesh.Service
	payments *pod
	contacts contacts
	issuer   *tokens.Issuer
	tls      string // the folder of the listeners' Secrets
	dir      string
}

func newDoor(t *testing.T, change func(g *mesh.Gateway)) *door {
	t.Helper()
	d := &door{issuer: tokens.NewIssuer(t, issuer, audience), dir: t.TempDir()}
	d.gateway = mesh.Gateway{
		Key: types.NamespacedName{Namespace: "test", Name: newService(t, "gateway").Key.Name}, Trusted: true,
		Listeners: []mesh.GatewayListener{{Name: "https", Port: 443, TargetPort: mesh.FirstGatewayPort, SecretName: "tls"}},
		JWT:       []mesh.JWTProvider{{Name: "users", Issuer: issuer, Audiences: []string{audience}, JWKS: string(d.issuer.Keys())}},
	}
	d.gateway.ID = entry(t, "/door/"+d.gateway.Key.Name)
	d.startPayments(t)
	d.gateway.Routes = d.exposes(t, "CreatePayment, GetPayment")
	if change != nil {
		change(&d.gateway)
	}
	d.start(t)
	return d
}

// startPayments starts the payment service as a pod has it, and whom it asks.
func (d *door) startPayments(t *testing.T) {
	t.Helper()
	people, caller := newService(t, "contacts"), newService(t, "payments")
	d.contacts = startContacts(t)
	people.Ports = d.contacts.ports()
	people.Rules = []mesh.Rule{{Name: "payments", ID: caller.ID, Methods: []string{getUserInfo}, PortName: "grpc"}}
	caller.Upstreams = []mesh.Upstream{dependency(t, people)}
	keys := filepath.Join(d.dir, "jwks.json")
	if err := os.WriteFile(keys, d.issuer.Keys(), 0o600); err != nil {
		t.Fatal(err)
	}
	c := config.Default()
	c.GRPC.Address, c.HTTP.Address = "127.0.0.1:0", "127.0.0.1:0"
	c.ServiceMesh.Enabled, c.ServiceMesh.TrustXFCC, c.ServiceMesh.SPIFFEID = true, true, caller.ID.String()
	c.ExternalServices.ContactService.Address = fmt.Sprintf("127.0.0.1:%d", caller.Upstreams[0].LocalPort)
	c.Store.Path = filepath.Join(d.dir, "payments.db")
	c.Auth.AllowedSPIFFEIDs = []string{d.gateway.ID.String()}
	c.Auth.JWT.Issuer, c.Auth.JWT.Audience, c.Auth.JWT.JWKSFile = issuer, audience, keys
	process, err := paymentserver.New(t.Context(), c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- process.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the payment service ends with %v", err)
		}
	})
	port := netip.MustParseAddrPort(process.GRPCAddress()).Port()
	caller.Ports = []mesh.Port{{Name: "grpc", Port: int32(port), MeshPort: mesh.FirstMeshPort, Protocol: "GRPC"}}
	caller.Rules = []mesh.Rule{{
		Name: "expose:api", ID: d.gateway.ID, PortName: "grpc",
		Methods: []string{"payment.v1.PaymentService/CreatePayment", "payment.v1.PaymentService/GetPayment"},
	}}
	d.payment = caller
	peoplePod := startSidecar(t, people)
	d.payments = startSidecar(t, caller)
	manager.SetEndpoints(mesh.EndpointKey{Service: people.Key, PortName: "grpc"}, []netip.AddrPort{peoplePod.at(mesh.FirstMeshPort)})
	manager.SetEndpoints(mesh.EndpointKey{Service: caller.Key, PortName: "grpc"}, []netip.AddrPort{d.payments.at(mesh.FirstMeshPort)})
	peoplePod.awaitReady(t)
	d.payments.awaitReady(t)
}

func (d *door) start(t *testing.T) {
	t.Helper()
	d.launch(t, map[int32]map[string][]byte{mesh.FirstGatewayPort: newCertificate(t, 1)}, nil)
	d.pod.awaitReady(t)
}

func (d *door) set(t *testing.T) {
	t.Helper()
	d.setChanged(t, nil)
}

func (d *door) setChanged(t *testing.T, change func(xds.Resources)) {
	t.Helper()
	r := xds.Gateway(d.gateway)
	if change != nil {
		change(r)
	}
	for _, l := range r.Listeners {
		refile(t, l, d.dir)
	}
	d.pod.serve(t, d.gateway.ID, r)
}

// refile has a listener find its certificate in a folder of the test.
func refile(t *testing.T, l *listenerv3.Listener, dir string) {
	t.Helper()
	for _, chain := range l.GetFilterChains() {
		config := chain.GetTransportSocket().GetTypedConfig()
		if config == nil {
			continue
		}
		context := &tlsv3.DownstreamTlsContext{}
		if err := config.UnmarshalTo(context); err != nil {
			t.Fatal(err)
		}
		for _, secret := range context.GetCommonTlsContext().GetTlsCertificateSdsSecretConfigs() {
			source := secret.GetSdsConfig().GetPathConfigSource()
			if source == nil {
				continue // it comes from the agent
			}
			source.Path = strings.ReplaceAll(source.GetPath(), mesh.ProxyDir, dir)
		}
		packed, err := anypb.New(context)
		if err != nil {
			t.Fatal(err)
		}
		chain.TransportSocket.ConfigType = &corev3.TransportSocket_TypedConfig{TypedConfig: packed}
	}
}

// writeSecret makes the Secret of the first listener the only one that is mounted.
func (d *door) writeSecret(t *testing.T, files map[string][]byte) {
	t.Helper()
	d.mount(t, map[int32]map[string][]byte{mesh.FirstGatewayPort: files})
}

// mount replaces the files of the volume with the Secrets, each by its listener's target port, as the kubelet does: a new
// folder, and a link that is renamed.
func (d *door) mount(t *testing.T, secrets map[int32]map[string][]byte) {
	t.Helper()
	version := filepath.Join(d.tls, fmt.Sprintf("..%d", time.Now().UnixNano()))
	if err := os.MkdirAll(version, 0o700); err != nil {
		t.Fatal(err)
	}
	for port, files := range secrets {
		folder := fmt.Sprint(port)
		if err := os.Mkdir(filepath.Join(version, folder), 0o700); err != nil {
			t.Fatal(err)
		}
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(version, folder, name), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		_ = os.Symlink(filepath.Join("..data", folder), filepath.Join(d.tls, folder))
	}
	link := filepath.Join(d.tls, "..data_tmp")
	if err := os.Symlink(filepath.Base(version), link); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(link, filepath.Join(d.tls, "..data")); err != nil {
		t.Fatal(err)
	}
}

// at is where the gateway's HTTPS is.
func (d *door) at() string { return d.pod.at(mesh.FirstGatewayPort).String() }

// client speaks HTTPS to the gateway, whatever host is asked for.
func (d *door) client(http2 bool) *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", d.at())
		},
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		ForceAttemptHTTP2: http2,
	}}
}

type reply struct {
	status int
	header http.Header
	body   string
}

// call is a request with these headers, as "name: value".
func (d *door) call(t *testing.T, method, url, body string, headers ...string) reply {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		request.Header.Add(name, value)
	}
	client := d.client(true)
	defer client.CloseIdleConnections()
	answer, err := client.Do(request)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer answer.Body.Close() //nolint:errcheck // read to the end
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	return reply{answer.StatusCode, answer.Header, string(text)}
}

// token is a header with a token of the issuer.
func (d *door) token(change func(jwt.MapClaims)) string {
	return "Authorization: Bearer " + d.issuer.Token(change)
}

// newCertificate is what a TLS Secret holds.
func newCertificate(t *testing.T, serial int64) map[string][]byte {
	t.Helper()
	return certificateOf(t, ecKey(t, elliptic.P256()), func(c *x509.Certificate) { c.SerialNumber = big.NewInt(serial) })
}

// descriptors are a FileDescriptorSet with all imports, each before what imports it.
func descriptors(t *testing.T, files ...protoreflect.FileDescriptor) []byte {
	t.Helper()
	set, seen := &descriptorpb.FileDescriptorSet{}, map[string]bool{}
	var add func(file protoreflect.FileDescriptor)
	add = func(file protoreflect.FileDescriptor) {
		if seen[file.Path()] {
			return
		}
		seen[file.Path()] = true
		for i := range file.Imports().Len() {
			add(file.Imports().Get(i).FileDescriptor)
		}
		set.File = append(set.File, protodesc.ToFileDescriptorProto(file))
	}
	for _, file := range files {
		add(file)
	}
	raw, err := proto.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
