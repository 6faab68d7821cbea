// Package config defines the payment service's config.yaml: the file and the environment go in, a checked Config comes
// out. The process reads it and the operator writes it, so that the two cannot drift apart.
package config

import (
	"time"
)

// Config is the whole of config.yaml. A key that is missing has the value of Default.
type Config struct {
	APIGateway       APIGateway       `yaml:"api_gateway"`
	GRPC             GRPC             `yaml:"grpc"`
	HTTP             HTTP             `yaml:"http"`
	ServiceMesh      ServiceMesh      `yaml:"service_mesh"`
	MTLS             MTLS             `yaml:"mtls"`
	ExternalServices ExternalServices `yaml:"external_services"`
	CircuitBreaker   CircuitBreaker   `yaml:"circuit_breaker"`
	Store            Store            `yaml:"store"`
	Auth             Auth             `yaml:"auth"`
}

// APIGateway is for clients that call other services through the API gateway.
type APIGateway struct {
	// Address is host:port; empty where nothing is called through the gateway.
	Address   string `yaml:"address"`
	EnableTLS bool   `yaml:"enable_tls"`
	// APIKey is sent with each call, and over TLS only.
	APIKey Secret `yaml:"api_key"`
	// CAFile has the authorities of the gateway's certificate, as PEM; the system's where it is empty.
	CAFile string `yaml:"ca_file"`
	// DialTimeoutSeconds is how long one attempt to connect may take.
	DialTimeoutSeconds int `yaml:"dial_timeout_seconds"`
	// RequestTimeoutSeconds is how long one call may take whose context has no earlier deadline.
	RequestTimeoutSeconds int `yaml:"request_timeout_seconds"`
}

// GRPC is the server of the payment API.
type GRPC struct {
	// Address is host:port. Without mtls.enabled it must be on loopback: in front of it there is a sidecar, or nobody.
	Address string `yaml:"address"`
	// EnableReflection shows the API to everybody who may connect. Leave it off in production.
	EnableReflection bool `yaml:"enable_reflection"`
	// ShutdownTimeoutSeconds bounds how long calls under way may take to end when the process is told to.
	ShutdownTimeoutSeconds int `yaml:"shutdown_timeout_seconds"`
}

// HTTP is the server of /health, /health/services and /metrics, in plaintext and without secrets.
type HTTP struct {
	Address string `yaml:"address"`
}

// ServiceMesh says who the process is and whether its peers prove who they are.
type ServiceMesh struct {
	// Enabled makes SPIFFE IDs mandatory: callers have one, and the process has SPIFFEID. It is off in development only.
	Enabled bool `yaml:"enabled"`
	// SPIFFEID is the process's own, as in spiffe://jia.app/payment-service.
	SPIFFEID string `yaml:"spiffe_id"`
	// TrustXFCC takes the caller's SPIFFE ID from the header x-forwarded-client-cert, which a sidecar on this machine's
	// loopback sets. grpc.address must then be on loopback: everybody who can connect is believed.
	TrustXFCC bool      `yaml:"trust_xfcc"`
	Discovery Discovery `yaml:"discovery"`
}

// Discovery says how the addresses of external_services are found.
type Discovery struct {
	// EnvoyAddress is host:port of the sidecar's admin endpoint: /health/services tells what it says of itself.
	EnvoyAddress string `yaml:"envoy_address"`
	// Namespace is that of peers whose host is a name without a dot; empty, the resolver's search list decides.
	Namespace string `yaml:"namespace"`
	// Scheme is xds (the addresses are the sidecar's, which knows the endpoints by xDS), dns (A and AAAA records), or srv
	// (SRV records of _grpc._tcp, which carry the port; A and AAAA records where there are none).
	Scheme string `yaml:"scheme"`
}

// MTLS is for a process that speaks SPIFFE mTLS itself, with no sidecar.
type MTLS struct {
	Enabled bool `yaml:"enabled"`
	// WorkloadAPI is the SPIFFE Workload API that gives and rotates the certificates, as in
	// unix:///run/spire/agent-sockets/spire-agent.sock. Either this or the three files.
	WorkloadAPI string `yaml:"workload_api"`
	// CertFile, KeyFile and CAFile are PEM; whoever rotates them replaces the files, which are read at each handshake.
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
	CAFile   string `yaml:"ca_file"`
}

// ExternalServices are the services that payments need. Those without an address are not used; the contact service is.
type ExternalServices struct {
	ContactService  ExternalService `yaml:"contact_service"`
	FamilyService   ExternalService `yaml:"family_service"`
	DocumentService ExternalService `yaml:"document_service"`
}

// Used are those with an address.
func (e ExternalServices) Used() []ExternalService {
	var used []ExternalService
	for _, service := range []ExternalService{e.ContactService, e.FamilyService, e.DocumentService} {
		if service.Address != "" {
			used = append(used, service)
		}
	}
	return used
}

// ExternalService is one of them.
type ExternalService struct {
	Name string `yaml:"name"`
	// Address is host:port: of the sidecar's listener for it on loopback, or of the service itself.
	Address string `yaml:"address"`
	// SPIFFEID is who must answer where the process speaks mTLS itself.
	SPIFFEID       string `yaml:"spiffe_id"`
	TimeoutSeconds int    `yaml:"timeout_seconds"`
}

// CircuitBreaker opens after failures in a row, so that calls to a service that is down fail at once.
type CircuitBreaker struct {
	Enabled bool `yaml:"enabled"`
	// FailureThreshold is how many calls in a row must fail.
	FailureThreshold int `yaml:"failure_threshold"`
	// OpenSeconds is how long it stays open before one call may try again.
	OpenSeconds int `yaml:"open_seconds"`
}

// Store is where payments are kept.
type Store struct {
	// Path is the SQLite file; its folder must exist. One process at a time has it open.
	Path string `yaml:"path"`
	// IdempotencyRetentionHours is how long a key's answer is replayed, at least 24.
	IdempotencyRetentionHours int `yaml:"idempotency_retention_hours"`
}

// Auth says which calls are let in. Whatever is not named here is refused.
type Auth struct {
	// AllowedSPIFFEIDs are the callers that may call every method. Behind a sidecar it may be empty: then whoever the
	// sidecar let in may call, if the ID is of the own trust domain.
	AllowedSPIFFEIDs []string `yaml:"allowed_spiffe_ids"`
	// PolicyFile says who may call which method. A changed file is in force within a second; one that is broken or missing
	// leaves the rules as they are. With mtls.enabled exactly one of the two is required, behind a sidecar one at most.
	PolicyFile string `yaml:"policy_file"`
	JWT        JWT    `yaml:"jwt"`
}

// JWT is how the end user's token is verified (RFC 7519, RFC 8725).
type JWT struct {
	Issuer   string `yaml:"issuer"`
	Audience string `yaml:"audience"`
	// JWKSFile has the issuer's public keys (RFC 7517); a changed file is read again.
	JWKSFile string `yaml:"jwks_file"`
	// LeewaySeconds is for clocks that differ, at most 60.
	LeewaySeconds int `yaml:"leeway_seconds"`
}

// Default is what a missing key means.
func Default() Config {
	return Config{
		APIGateway:  APIGateway{EnableTLS: true, DialTimeoutSeconds: 30, RequestTimeoutSeconds: 30},
		GRPC:        GRPC{Address: "127.0.0.1:8081", ShutdownTimeoutSeconds: 20},
		HTTP:        HTTP{Address: ":9090"},
		ServiceMesh: ServiceMesh{Discovery: Discovery{Scheme: "dns"}},
		ExternalServices: ExternalServices{
			ContactService:  ExternalService{Name: "contact-service", TimeoutSeconds: 2},
			FamilyService:   ExternalService{Name: "family-service", TimeoutSeconds: 2},
			DocumentService: ExternalService{Name: "document-service", TimeoutSeconds: 2},
		},
		CircuitBreaker: CircuitBreaker{Enabled: true, FailureThreshold: 5, OpenSeconds: 5},
		Store:          Store{IdempotencyRetentionHours: 24},
		Auth:           Auth{JWT: JWT{LeewaySeconds: 30}},
	}
}

// DialTimeout is how long one attempt to connect may take.
func (g APIGateway) DialTimeout() time.Duration { return seconds(g.DialTimeoutSeconds) }

// RequestTimeout is how long one call may take.
func (g APIGateway) RequestTimeout() time.Duration { return seconds(g.RequestTimeoutSeconds) }

// Timeout is how long one call may take.
func (s ExternalService) Timeout() time.Duration { return seconds(s.TimeoutSeconds) }

// ShutdownTimeout bounds the end of calls under way.
func (g GRPC) ShutdownTimeout() time.Duration { return seconds(g.ShutdownTimeoutSeconds) }

// Leeway is for clocks that differ.
func (j JWT) Leeway() time.Duration { return seconds(j.LeewaySeconds) }

// IdempotencyRetention is how long a key's answer is replayed.
func (s Store) IdempotencyRetention() time.Duration {
	return time.Duration(s.IdempotencyRetentionHours) * time.Hour
}

// OpenTimeout is how long the breaker stays open.
func (c CircuitBreaker) OpenTimeout() time.Duration { return seconds(c.OpenSeconds) }

func seconds(n int) time.Duration { return time.Duration(n) * time.Second }
