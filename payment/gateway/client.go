// Package gateway calls services through the API gateway, for processes outside the mesh: the settings of api_gateway go
// in, and calls come out that the gateway can tell from others. Inside the mesh services call each other without it.
package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/jia-app/paymesh/payment/config"
)

// maxReconnectDelay keeps gRPC from waiting two minutes for a gateway that is back.
const maxReconnectDelay = time.Second

// Options are what a process may set beside the configuration.
type Options struct {
	// Hosts are the host names under which the gateway exposes services (expose.hostnames), by the service's name. nil, all
	// are asked for under the host of api_gateway.address.
	Hosts map[string]string
	// Identity is shown to a gateway that asks for a client's certificate; nil, none is.
	Identity x509svid.Source
	// Dial are more options of each connection, as tracing has them.
	Dial []grpc.DialOption
}

// Client calls services through one gateway, with a connection for each host name.
type Client struct {
	config  config.APIGateway
	options Options
	host    string // of the address
	creds   credentials.TransportCredentials

	mu    sync.Mutex
	conns map[string]*grpc.ClientConn
}

// New makes a client; the first call connects. api_gateway.ca_file is read now.
func New(c config.APIGateway, o Options) (*Client, error) {
	host, _, err := net.SplitHostPort(c.Address)
	if err != nil {
		return nil, fmt.Errorf("api_gateway.address is %q: want host:port", c.Address)
	}
	if c.DialTimeoutSeconds < 1 || c.RequestTimeoutSeconds < 1 {
		return nil, errors.New("api_gateway.dial_timeout_seconds and request_timeout_seconds: want 1 or more, since no call would have the time")
	}
	creds, err := transport(c, o.Identity)
	if err != nil {
		return nil, err
	}
	return &Client{config: c, options: o, host: host, creds: creds, conns: map[string]*grpc.ClientConn{}}, nil
}

// transport is TLS with the gateway's own authorities: its certificate is for a host name and not of the mesh.
func transport(c config.APIGateway, identity x509svid.Source) (credentials.TransportCredentials, error) {
	if !c.EnableTLS {
		if !c.APIKey.IsZero() {
			return nil, errors.New("api_gateway.enable_tls must be true where api_gateway.api_key is set: the key would be sent in the clear")
		}
		return insecure.NewCredentials(), nil
	}
	settings := &tls.Config{MinVersion: tls.VersionTLS12} // a gateway may be somebody else's
	if c.CAFile != "" {
		text, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("api_gateway.ca_file: %w", err)
		}
		settings.RootCAs = x509.NewCertPool()
		if !settings.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("api_gateway.ca_file: %s has no certificate in PEM", c.CAFile)
		}
	}
	if identity != nil {
		settings.GetClientCertificate = tlsconfig.GetClientCertificate(identity)
	}
	return credentials.NewTLS(settings), nil
}

// fullMethod is a method as gRPC has it.
var fullMethod = regexp.MustCompile(`^/([A-Za-z_][A-Za-z0-9_]*\.)*[A-Za-z_][A-Za-z0-9_]*/[A-Za-z_][A-Za-z0-9_]*$`)

// CallService calls a method (/payment.v1.PaymentService/CreatePayment) of a service through the gateway, which must expose
// it as native gRPC (expose.protocols). It is routed by the host name and the method's path. It carries the API key, and the
// token of WithToken if there is one, and ends after api_gateway.request_timeout_seconds, or at the context's earlier
// deadline.
//
// It is never repeated once bytes have left: whoever gets UNAVAILABLE or DEADLINE_EXCEEDED does not know whether it had its
// effect, and asks again with the same idempotency-key.
func (c *Client) CallService(ctx context.Context, service, method string, request, response any, opts ...grpc.CallOption) error {
	if !fullMethod.MatchString(method) {
		return fmt.Errorf("the method %q: want /package.Service/Method", method)
	}
	conn, err := c.connect(service)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.config.RequestTimeout())
	defer cancel()
	return conn.Invoke(ctx, method, request, response, append(opts, grpc.PerRPCCredentials(c.proofs(ctx)))...)
}

func (c *Client) connect(service string) (*grpc.ClientConn, error) {
	host := c.host
	if c.options.Hosts != nil {
		if host = c.options.Hosts[service]; host == "" {
			return nil, fmt.Errorf("the API gateway exposes no service %q that is known here: add its host name", service)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conns == nil {
		return nil, errors.New("the client of the API gateway is closed")
	}
	if conn := c.conns[host]; conn != nil {
		return conn, nil
	}
	// The authority is also the name that the gateway's certificate must have.
	conn, err := grpc.NewClient("dns:///"+c.config.Address, append([]grpc.DialOption{
		grpc.WithTransportCredentials(c.creds), grpc.WithAuthority(host), grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: maxReconnectDelay},
			MinConnectTimeout: c.config.DialTimeout(),
		}),
	}, c.options.Dial...)...)
	if err != nil {
		return nil, fmt.Errorf("connect to the API gateway at %s: %w", c.config.Address, err)
	}
	c.conns[host] = conn
	return conn, nil
}

// Close ends all connections, and the calls on them.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, conn := range c.conns {
		errs = append(errs, conn.Close())
	}
	c.conns = nil
	return errors.Join(errs...)
}
