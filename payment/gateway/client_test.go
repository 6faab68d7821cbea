package gateway

import (
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/jia-app/paymesh/payment/config"
	"github.com/jia-app/paymesh/payment/paymentv1"
	"github.com/jia-app/paymesh/test/authority"
)

const getPayment = "/payment.v1.PaymentService/GetPayment"

// door is what the client meets: a server with a gateway's certificate, which remembers what came.
type door struct {
	paymentv1.UnimplementedPaymentServiceServer
	mu    sync.Mutex
	seen  metadata.MD
	tls   credentials.TLSInfo
	calls int
	cut   func()
}

func (d *door) GetPayment(ctx context.Context, r *paymentv1.GetPaymentRequest) (*paymentv1.GetPaymentResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls++
	d.seen, _ = metadata.FromIncomingContext(ctx)
	if from, ok := peer.FromContext(ctx); ok {
		d.tls, _ = from.AuthInfo.(credentials.TLSInfo)
	}
	switch r.GetPaymentId() {
	case "cut":
		d.cut()
	case "slow":
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	return &paymentv1.GetPaymentResponse{Payment: &paymentv1.Payment{PaymentId: r.GetPaymentId()}}, nil
}

// count is how many calls came: one that the client gave up may still be on its way out.
func (d *door) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.calls
}

func start(t *testing.T, creds credentials.TransportCredentials) (d *door, address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d = &door{}
	conns := &remembering{Listener: listener}
	d.cut = conns.cut
	server := grpc.NewServer(grpc.Creds(creds))
	paymentv1.RegisterPaymentServiceServer(server, d)
	go server.Serve(conns) //nolint:errcheck // it ends with the test
	t.Cleanup(server.Stop)
	return d, listener.Addr().String()
}

// remembering keeps connections, to cut them.
type remembering struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

func (r *remembering) Accept() (net.Conn, error) {
	conn, err := r.Listener.Accept()
	if err == nil {
		r.mu.Lock()
		r.conns = append(r.conns, conn)
		r.mu.Unlock()
	}
	return conn, err
}

func (r *remembering) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, conn := range r.conns {
		_ = conn.Close()
	}
}

// certificate is one of its own authority, for a gateway's names or a workload.
func certificate(t *testing.T, change func(*x509.Certificate)) (pair tls.Certificate, leaf *x509.Certificate, file string) {
	t.Helper()
	template := &x509.Certificate{KeyUsage: x509.KeyUsageDigitalSignature}
	change(template)
	pair = authority.SelfSigned(t, template)
	file = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Leaf.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return pair, pair.Leaf, file
}

func secured(t *testing.T) (creds credentials.TransportCredentials, file string) {
	t.Helper()
	pair, _, file := certificate(t, func(c *x509.Certificate) {
		c.DNSNames, c.IPAddresses = []string{"pay.example.com"}, []net.IP{net.IPv4(127, 0, 0, 1)}
	})
	return credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, ClientAuth: tls.RequestClientCert}), file
}

func settings(address, ca string) config.APIGateway {
	c := config.Default().APIGateway
	c.Address, c.CAFile = address, ca
	return c
}

func newClient(t *testing.T, c config.APIGateway, o Options) *Client {
	t.Helper()
	client, err := New(c, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func call(ctx context.Context, c *Client, service, payment string) error {
	return c.CallService(ctx, service, getPayment, &paymentv1.GetPaymentRequest{PaymentId: payment}, &paymentv1.GetPaymentResponse{})
}

func TestACallCarriesTheKeyTheTokenAndTheHostOfItsService(t *testing.T) {
	creds, ca := secured(t)
	d, address := start(t, creds)
	c := settings(address, ca)
	c.APIKey = config.NewSecret("key-1")
	client := newClient(t, c, Options{Hosts: map[string]string{"payment-service": "pay.example.com"}})
	answer := &paymentv1.GetPaymentResponse{}
	ctx := metadata.AppendToOutgoingContext(WithToken(t.Context(), config.NewSecret("a.b.c")), "idempotency-key", "k")
	if err := client.CallService(ctx, "payment-service", getPayment, &paymentv1.GetPaymentRequest{PaymentId: "pay_1"}, answer); err != nil || answer.GetPayment().GetPaymentId() != "pay_1" {
		t.Fatalf("got %v, %v", answer, err)
	}
	got := fmt.Sprint(d.seen.Get(":authority"), d.seen.Get("x-api-key"), d.seen.Get("authorization"), d.seen.Get("idempotency-key"), d.tls.State.ServerName)
	if want := "[pay.example.com] [key-1] [Bearer a.b.c] [k]pay.example.com"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if err := call(t.Context(), client, "payment-service", "pay_1"); err != nil || d.seen.Get("authorization") != nil {
		t.Errorf("without a token: %v, %v", err, d.seen)
	}
	if err := call(t.Context(), client, "contact-service", "pay_1"); err == nil || !strings.Contains(err.Error(), `no service "contact-service" that is known here`) {
		t.Errorf("another service: %v", err)
	}
	if err := client.CallService(t.Context(), "payment-service", "GetPayment", nil, nil); err == nil || !strings.Contains(err.Error(), "want /package.Service/Method") {
		t.Errorf("no method: %v", err)
	}
}

func TestWithoutHostNamesTheGatewaysOwnIsAskedFor(t *testing.T) {
	creds, ca := secured(t)
	d, address := start(t, creds)
	if err := call(t.Context(), newClient(t, settings(address, ca), Options{}), "payment-service", "pay_1"); err != nil || d.seen.Get(":authority")[0] != "127.0.0.1" {
		t.Errorf("got %v, %v", err, d.seen)
	}
}

func TestTheGatewayProvesItsName(t *testing.T) {
	creds, ca := secured(t)
	d, address := start(t, creds)
	_, others := secured(t)
	for name, c := range map[string]struct{ ca, host string }{"another authority": {others, "pay.example.com"}, "another name": {ca, "other.example.com"}, "the system's authorities": {"", "pay.example.com"}} {
		client := newClient(t, settings(address, c.ca), Options{Hosts: map[string]string{"payment-service": c.host}})
		if err := call(t.Context(), client, "payment-service", "pay_1"); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if d.count() > 0 {
		t.Error("a call came")
	}
}

type identity struct{ svid *x509svid.SVID }

func (i identity) GetX509SVID() (*x509svid.SVID, error) { return i.svid, nil }

func TestTheProcessShowsItsIdentityToAGatewayThatAsks(t *testing.T) {
	creds, ca := secured(t)
	d, address := start(t, creds)
	pair, leaf, _ := certificate(t, func(c *x509.Certificate) { c.URIs = []*url.URL{{Scheme: "spiffe", Host: "jia.app", Path: "/till"}} })
	client := newClient(t, settings(address, ca), Options{Identity: identity{&x509svid.SVID{Certificates: []*x509.Certificate{leaf}, PrivateKey: pair.PrivateKey.(*ecdsa.PrivateKey)}}})
	if err := call(t.Context(), client, "payment-service", "pay_1"); err != nil || len(d.tls.State.PeerCertificates) != 1 || d.tls.State.PeerCertificates[0].URIs[0].String() != "spiffe://jia.app/till" {
		t.Errorf("got %v, %v", err, d.tls.State.PeerCertificates)
	}
}

func TestNoProofIsSentInTheClear(t *testing.T) {
	d, address := start(t, insecure.NewCredentials())
	c := settings(address, "")
	c.EnableTLS = false
	client := newClient(t, c, Options{})
	if err := call(WithToken(t.Context(), config.NewSecret("a.b.c")), client, "payment-service", "pay_1"); status.Code(err) != codes.Unauthenticated || d.count() > 0 {
		t.Errorf("a token: got %v, after %d calls", err, d.count())
	}
	if err := call(t.Context(), client, "payment-service", "pay_1"); err != nil {
		t.Errorf("no proof: got %v", err)
	}
	c.APIKey = config.NewSecret("key-1")
	if _, err := New(c, Options{}); err == nil || !strings.Contains(err.Error(), "api_gateway.enable_tls must be true") {
		t.Errorf("a key: got %v", err)
	}
}

func TestACallIsNotRepeatedAndEndsInTime(t *testing.T) {
	creds, ca := secured(t)
	d, address := start(t, creds)
	c := settings(address, ca)
	c.RequestTimeoutSeconds = 1
	client := newClient(t, c, Options{})
	if err := call(t.Context(), client, "payment-service", "cut"); status.Code(err) != codes.Unavailable || d.count() != 1 {
		t.Errorf("got %v, after %d calls", err, d.count())
	}
	if err := call(t.Context(), client, "payment-service", "slow"); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v", err)
	}
	if err := client.Close(); err != nil {
		t.Error(err)
	}
	if err := call(t.Context(), client, "payment-service", "pay_1"); err == nil || !strings.Contains(err.Error(), "is closed") {
		t.Errorf("got %v", err)
	}
}

func TestSettingsThatCannotWorkAreNamed(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for want, c := range map[string]config.APIGateway{
		`api_gateway.address is "": want host:port`: settings("", ""),
		"request_timeout_seconds: want 1 or more":   {Address: "gateway:1", EnableTLS: true, DialTimeoutSeconds: 1},
		"api_gateway.ca_file: open /none":           settings("gateway:1", "/none"),
		"has no certificate in PEM":                 settings("gateway:1", empty),
	} {
		if _, err := New(c, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
