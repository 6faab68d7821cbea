package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/jia-app/paymesh/hack/cluster/internal/state"
)

// apiClient asks the API server the few things that the start of a node waits for.
type apiClient struct {
	http *http.Client
}

func newAPIClient(f state.Folder) (*apiClient, error) {
	authority, err := os.ReadFile(f.Etc("pki", "ca.crt"))
	if err != nil {
		return nil, fmt.Errorf("client of the API server: %w", err)
	}
	pair, err := tls.LoadX509KeyPair(f.Etc("pki", "admin.crt"), f.Etc("pki", "admin.key"))
	if err != nil {
		return nil, fmt.Errorf("client of the API server: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		return nil, errors.New("client of the API server: the certificate authority is not readable")
	}
	return &apiClient{http: &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13},
	}}}, nil
}

func (c *apiClient) get(ctx context.Context, path string) ([]byte, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+APIAddress+path, nil)
	if err != nil {
		return nil, err
	}
	r, err := c.http.Do(q)
	if err != nil {
		return nil, fmt.Errorf("ask the API server: %w", err)
	}
	defer func() { _ = r.Body.Close() }()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, fmt.Errorf("ask the API server: %w", err)
	}
	if r.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the API server answers %s to %s: %.300s", r.Status, path, body)
	}
	return body, nil
}

func (c *apiClient) ready(ctx context.Context) error {
	_, err := c.get(ctx, "/readyz")
	return err
}

func (c *apiClient) nodeExists(ctx context.Context, name string) error {
	_, err := c.get(ctx, "/api/v1/nodes/"+name)
	return err
}

func (c *apiClient) nodeReady(ctx context.Context, name string) error {
	raw, err := c.get(ctx, "/api/v1/nodes/"+name)
	if err != nil {
		return err
	}
	return judgeNode(name, raw)
}

// judgeNode says why a Node object is not ready.
func judgeNode(name string, raw []byte) error {
	var n struct {
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := json.Unmarshal(raw, &n); err != nil {
		return fmt.Errorf("node %s: %w", name, err)
	}
	for _, c := range n.Status.Conditions {
		if c.Type == "Ready" && c.Status == "True" {
			return nil
		}
		if c.Type == "Ready" {
			return fmt.Errorf("node %s is not Ready: %s", name, c.Message)
		}
	}
	return fmt.Errorf("node %s has no Ready condition yet", name)
}

// clusterResolver asks CoreDNS by the address of its Service, as pods do.
func clusterResolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, net.JoinHostPort(dnsService, "53"))
	}}
}

func dnsAnswers(ctx context.Context) error {
	const name = "kubernetes.default.svc.cluster.local."
	// A question that was lost before the Service had its rules is better asked again than waited for.
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	addresses, err := clusterResolver().LookupHost(ctx, name)
	if err != nil {
		return fmt.Errorf("CoreDNS does not answer for %s: %w", name, err)
	}
	if len(addresses) != 1 || addresses[0] != apiService {
		return fmt.Errorf("CoreDNS says that %s is %v, not %s", name, addresses, apiService)
	}
	return nil
}

// reachable says whether something listens on a TCP address.
func reachable(ctx context.Context, network, address string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return err
	}
	return conn.Close()
}
