package config

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Check says what is wrong with a configuration that was made and not read: an InvalidError, with a line for each key.
func (c Config) Check() error { return c.problems().err() }

func (c Config) problems() problems {
	var p problems
	p.address("grpc.address", c.GRPC.Address)
	p.address("http.address", c.HTTP.Address)
	p.within("grpc.shutdown_timeout_seconds", c.GRPC.ShutdownTimeoutSeconds, 1, 3600)
	p.gateway(c.APIGateway)
	p.mesh(c)
	p.mtls(c.MTLS)
	p.services(c)
	p.callers(c)
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
	if g.CAFile != "" && !g.EnableTLS {
		p.add("api_gateway.enable_tls", "must be true where api_gateway.ca_file is set: without TLS nothing is verified")
	}
}

func (p *problems) mesh(c Config) {
	mesh := c.ServiceMesh
	p.discovery(c)
	if !c.MTLS.Enabled && !OnLoopback(c.GRPC.Address) {
		p.add("grpc.address", "is %q: without mtls.enabled want a loopback address, like 127.0.0.1:8081, since whoever can connect is believed", c.GRPC.Address)
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
}

func (p *problems) discovery(c Config) {
	discovery := c.ServiceMesh.Discovery
	switch discovery.Scheme {
	case "dns", "srv":
	case "xds":
		if c.MTLS.Enabled {
			p.add("service_mesh.discovery.scheme", "is xds: with mtls.enabled there is no sidecar that knows the endpoints; want dns or srv")
		}
	default:
		p.add("service_mesh.discovery.scheme", "is %q: want xds, dns or srv", discovery.Scheme)
	}
	if discovery.EnvoyAddress != "" {
		p.address("service_mesh.discovery.envoy_address", discovery.EnvoyAddress)
	}
	if discovery.Namespace != "" && !label.MatchString(discovery.Namespace) {
		p.add("service_mesh.discovery.namespace", "is %q: want the name of a namespace, or nothing", discovery.Namespace)
	}
}

var label = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// callers holds that it is written down once, and in one place, who may call.
func (p *problems) callers(c Config) {
	for i, id := range c.Auth.AllowedSPIFFEIDs {
		p.id(fmt.Sprintf("auth.allowed_spiffe_ids[%d]", i), id)
	}
	list, file := len(c.Auth.AllowedSPIFFEIDs) > 0, c.Auth.PolicyFile != ""
	switch {
	case list && file:
		p.add("auth.policy_file", "is set, and auth.allowed_spiffe_ids too: want one of them, since two lists of callers drift apart")
	case c.MTLS.Enabled && !list && !file:
		p.add("auth.policy_file", "is empty, and auth.allowed_spiffe_ids too: nobody may call; want who may, in one of them")
	case file && !c.ServiceMesh.Enabled:
		p.add("auth.policy_file", "needs service_mesh.enabled: without it no SPIFFE ID is looked at")
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

func (p *problems) services(c Config) {
	services := c.ExternalServices
	p.service(c, "external_services.contact_service", services.ContactService)
	names := map[string]string{services.ContactService.Name: "external_services.contact_service"}
	for _, optional := range []struct {
		key     string
		service ExternalService
	}{{"external_services.family_service", services.FamilyService}, {"external_services.document_service", services.DocumentService}} {
		if optional.service.Address == "" {
			continue
		}
		p.service(c, optional.key, optional.service)
		if other := names[optional.service.Name]; other != "" {
			p.add(optional.key+".name", "is %q, as that of %s: want names that tell them apart in messages and metrics", optional.service.Name, other)
		}
		names[optional.service.Name] = optional.key
	}
}

func (p *problems) service(c Config, key string, service ExternalService) {
	p.required(key+".name", service.Name)
	p.address(key+".address", service.Address)
	p.within(key+".timeout_seconds", service.TimeoutSeconds, 1, 60)
	if service.SPIFFEID != "" || c.MTLS.Enabled {
		p.id(key+".spiffe_id", service.SPIFFEID)
	}
	if c.ServiceMesh.TrustXFCC && !c.MTLS.Enabled && !OnLoopback(service.Address) {
		p.add(key+".address", "is %q: behind a sidecar want the sidecar's address for it on loopback, like 127.0.0.1:50051, since the process itself speaks plaintext", service.Address)
	}
}

// OnLoopback reports whether an address (host:port) is one of this machine alone. It takes no names: what "localhost" is, a
// file decides.
func OnLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}
