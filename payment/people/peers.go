package people

import (
	"fmt"
	"net"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"

	"github.com/jia-app/paymesh/payment/config"
	"github.com/jia-app/paymesh/payment/discovery"
	"github.com/jia-app/paymesh/payment/interceptor"
	"github.com/jia-app/paymesh/payment/policy"
	"github.com/jia-app/paymesh/payment/services"
)

// familyTimeoutSeconds is less than callers of the contact service wait for it: they get its own answer where the family
// service hangs.
const familyTimeoutSeconds = 1

// check holds that plaintext stays on this machine, where there is a sidecar to speak it to.
func (o Options) check() error {
	for flag, address := range map[string]string{"address": o.Address, "family-service": o.FamilyAddress} {
		if !o.TrustXFCC || address == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(address); err != nil {
			return fmt.Errorf("%s is %q: want host:port", flag, address)
		}
		if !config.OnLoopback(address) {
			return fmt.Errorf("%s is %q: behind a sidecar want an address on loopback, like 127.0.0.1:50051, since the process speaks plaintext", flag, address)
		}
	}
	return nil
}

// connect makes the connection to the family service, if there is one.
func (s *Server) connect() (err error) {
	family := config.ExternalService{Name: "family-service", Address: s.options.FamilyAddress, TimeoutSeconds: familyTimeoutSeconds}
	s.services, err = services.New(services.Options{
		Services: config.ExternalServices{FamilyService: family}, Discovery: config.Discovery{Scheme: discovery.XDS},
		CircuitBreaker: config.Default().CircuitBreaker, Registerer: s.process.Registry, Log: s.options.Log, Dial: []grpc.DialOption{s.process.Tracer.Client()},
	})
	if err != nil {
		return err
	}
	s.process.OnClose(s.services.Close)
	return nil
}

// newAuth asks who calls, where a sidecar says so. Health is open, as it is behind the payment service's sidecar.
func (s *Server) newAuth() (*interceptor.Auth, error) {
	denied, err := interceptor.NewDenials(s.process.Registry)
	if err != nil {
		return nil, fmt.Errorf("register the metrics of denials: %w", err)
	}
	auth := &interceptor.Auth{
		Service: s.options.Service, TrustXFCC: s.options.TrustXFCC, Denied: denied, Log: s.options.Log,
		Methods: interceptor.HealthMethods(interceptor.Nothing),
	}
	if s.options.TrustXFCC {
		auth.Rules = whoeverTheSidecarLetIn{}
	}
	return auth, nil
}

// whoeverTheSidecarLetIn lets each caller with a SPIFFE ID call every method: the sidecar has judged by its rules, which may
// name callers of other trust domains.
type whoeverTheSidecarLetIn struct{}

func (whoeverTheSidecarLetIn) Decide(spiffeid.ID, string) policy.Verdict {
	return policy.Verdict{Allowed: true, Rule: "the sidecar's"}
}
