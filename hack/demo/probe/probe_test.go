package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/jia-app/paymesh/payment/contactv1"
)

// serverTLS is a certificate with a SPIFFE ID, for a server that wants one of its callers.
func serverTLS(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{{Scheme: "spiffe", Host: "jia.app", Path: "/payment-service"}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, ClientAuth: tls.RequireAnyClientCert, NextProtos: []string{"h2"}}
}

func serve(t *testing.T, options ...grpc.ServerOption) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(options...)
	contactv1.RegisterContactServiceServer(server, contacts{})
	go server.Serve(listener) //nolint:errcheck // it ends with the test
	t.Cleanup(server.Stop)
	return listener.Addr().String()
}

type contacts struct {
	contactv1.UnimplementedContactServiceServer
}

func (contacts) GetUserInfo(_ context.Context, r *contactv1.GetUserInfoRequest) (*contactv1.GetUserInfoResponse, error) {
	if r.GetUserId() != "user_123" {
		return nil, status.Error(codes.NotFound, "no such user")
	}
	return &contactv1.GetUserInfoResponse{User: &contactv1.User{UserId: r.GetUserId()}}, nil
}

func TestAProbePrintsWhatCameBack(t *testing.T) {
	plain, mutual := serve(t), serve(t, grpc.Creds(credentials.NewTLS(serverTLS(t))))
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().String()
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	const getUser = "contact.v1.ContactService/GetUserInfo"
	for name, c := range map[string]struct {
		args string
		want string
	}{
		"a port that is open":         {"dial " + plain, "dial " + plain + ": open"},
		"a port where nobody listens": {"dial --wait 10ms " + nobody, ": refused"},
		"a certificate":               {"certificate " + mutual, `"spiffeID":"spiffe://jia.app/payment-service"`},
		"a call that is answered":     {`call --plaintext ` + plain + " " + getUser + ` {"user_id":"user_123"}`, `in plaintext: OK {"user":{"userId":"user_123"}}`},
		"a call that is refused":      {`call --plaintext ` + plain + " " + getUser + ` {"user_id":"x"}`, "NotFound: no such user"},
		// With TLS 1.3 the server's alert may come after the client has met the closed connection.
		"a call without a certificate":      {`call --anonymous ` + mutual + " " + getUser + ` {}`, "as nobody, without a certificate: Unavailable"},
		"plaintext where TLS is spoken":     {`call --plaintext ` + mutual + " " + getUser + ` {}`, "in plaintext: Unavailable"},
		"a call where nobody listens":       {`call --plaintext --wait 10ms ` + nobody + " " + getUser + ` {}`, "is refused"},
		"a method that does not exist":      {`call --plaintext ` + plain + ` contact.v1.ContactService/Nope {}`, "method contact.v1.ContactService/Nope"},
		"a request with an unknown field":   {`call --plaintext ` + plain + " " + getUser + ` {"user":1}`, "unknown field"},
		"no command":                        {"", "probe dial"},
		"a pod without the Workload API":    {"call " + plain + " " + getUser + ` {}`, "wait for an SVID"},
		"watching without the Workload API": {"watch", "set SPIFFE_ENDPOINT_SOCKET"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("SPIFFE_ENDPOINT_SOCKET", "")
			var out strings.Builder
			if err := run(t.Context(), strings.Fields(c.args), &out); err != nil {
				out.WriteString(err.Error())
			}
			if !strings.Contains(out.String(), c.want) {
				t.Errorf("got %q, want %q", out.String(), c.want)
			}
		})
	}
}
