package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Check says what is wrong with a configuration that was made and not read: one line for each key.
func (c Config) Check() error { return errors.Join(c.problems()...) }

func (c Config) problems() []error {
	var p problems
	p.address("grpc.address", c.GRPC.Address)
	p.address("http.address", c.HTTP.Address)
	p.within("grpc.shutdown_timeout_seconds", c.GRPC.ShutdownTimeoutSeconds, 1, 3600)
	p.gateway(c.APIGateway)
	p.mesh(c)
	p.mtls(c.MTLS)
	p.contact(c)
	p.within("circuit_breaker.failure_threshold", c.CircuitBreaker.FailureThreshold, 1, 1000)
	p.within("circuit_breaker.open_seconds", c.CircuitBreaker.OpenSeconds, 1, 3600)
	p.required("store.path", c.Store.Path)
	p.within("store.idempotency_retention_hours", c.Store.IdempotencyRetentionHours, 24, 24*366)
	p.required("auth.jwt.issuer", c.Auth.JWT.Issuer)
	p.required("auth.jwt.audience", c.Auth.JWT.Audience)
	p.required("auth.jwt.jwks_file", c.Auth.JWT.JWKSFile)
	p.within("auth.jwt.leeway_seconds", c.Auth.JWT.LeewaySeconds, 0, 60)
	return p
}

type problems []error

func (p *problems) add(key, format string, args ...any) {
	*p = append(*p, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
}

func (p *problems) required(key, value string) {
	if value == "" {
		p.add(key, "is required")
	}
}

func (p *problems) within(key string, value, low, high int) {
	if value < low || value > high {
		p.add(key, "is %d: want %d to %d", value, low, high)
	}
}

func (p *problems) address(key, value string) {
	_, port, err := net.SplitHostPort(value)
	number, numeric := strconv.Atoi(port)
	if err != nil || numeric != nil || number < 0 || number > 65535 {
		p.add(key, "is %q: want host:port, or :port for all addresses", value)
	}
}

func (p *problems) id(key, value string) {
	if id, err := spiffeid.FromString(value); err != nil {
		p.add(key, "is %q: %v", value, err)
	} else if id.Path() == "" {
		p.add(key, "is %q: want the ID of a workload, with a path", value)
	}
}

func (p *problems) gateway(g APIGateway) {
	p.within("api_gateway.dial_timeout_seconds", g.DialTimeoutSeconds, 1, 3600)
	p.within("api_gateway.request_timeout_seconds", g.RequestTimeoutSeconds, 1, 3600)
	if g.Address != "" {
		p.address("api_gateway.address", g.Address)
	}
	if !g.APIKey.IsZero() && !g.EnableTLS {
		p.add("api_gateway.enable_tls", "must be true where api_gateway.api_key is set: the key would be sent in the clear")
	}
}

func (p *problems) mesh(c Config) {
	mesh := c.ServiceMesh
	if scheme := mesh.Discovery.Scheme; scheme != "xds" && scheme != "dns" {
		p.add("service_mesh.discovery.scheme", "is %q: want xds or dns", scheme)
	}
	if !c.MTLS.Enabled && !onLoopback(c.GRPC.Address) {
		p.add("grpc.address", "is %q: without mtls.enabled want a loopback address, like 127.0.0.1:8081, since whoever can connect is believed", c.GRPC.Address)
	}
	for i, id := range c.Auth.AllowedSPIFFEIDs {
		p.id(fmt.Sprintf("auth.allowed_spiffe_ids[%d]", i), id)
	}
	if !mesh.Enabled {
		if mesh.TrustXFCC || c.MTLS.Enabled {
			p.add("service_mesh.enabled", "must be true where service_mesh.trust_xfcc or mtls.enabled is: without it no SPIFFE ID is looked at")
		}
		return
	}
	p.id("service_mesh.spiffe_id", mesh.SPIFFEID)
	if mesh.TrustXFCC == c.MTLS.Enabled {
		p.add("service_mesh.trust_xfcc", "is %t: want exactly one of service_mesh.trust_xfcc (a sidecar says who calls) and mtls.enabled (the caller's certificate does)", mesh.TrustXFCC)
	}
	if len(c.Auth.AllowedSPIFFEIDs) == 0 {
		p.add("auth.allowed_spiffe_ids", "is empty: nobody may call; want the SPIFFE IDs of the callers")
	}
}

func (p *problems) mtls(m MTLS) {
	if !m.Enabled {
		return
	}
	files := 0
	for _, file := range []string{m.CertFile, m.KeyFile, m.CAFile} {
		if file != "" {
			files++
		}
	}
	if (m.WorkloadAPI == "" && files != 3) || (m.WorkloadAPI != "" && files != 0) {
		p.add("mtls", "want either workload_api, or cert_file, key_file and ca_file")
	}
}

func (p *problems) contact(c Config) {
	const key = "external_services.contact_service"
	contact := c.ExternalServices.ContactService
	p.required(key+".name", contact.Name)
	p.address(key+".address", contact.Address)
	p.within(key+".timeout_seconds", contact.TimeoutSeconds, 1, 60)
	if contact.SPIFFEID != "" || c.MTLS.Enabled {
		p.id(key+".spiffe_id", contact.SPIFFEID)
	}
}

// onLoopback takes no names: what "localhost" is, a file decides.
func onLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}
