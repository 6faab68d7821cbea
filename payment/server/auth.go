package server

import (
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"

	"github.com/jia-app/paymesh/payment/interceptor"
	"github.com/jia-app/paymesh/payment/paymentv1"
	"github.com/jia-app/paymesh/payment/policy"
)

// newAuth says what each method asks of its callers.
func (s *Server) newAuth() (*interceptor.Auth, error) {
	c := s.config
	tokens, err := interceptor.NewTokens(interceptor.TokenOptions{
		Issuer: c.Auth.JWT.Issuer, Audience: c.Auth.JWT.Audience, KeysFile: c.Auth.JWT.JWKSFile, Leeway: c.Auth.JWT.Leeway(), Log: s.log,
	})
	if err != nil {
		return nil, err
	}
	denied, err := interceptor.NewDenials(s.process.Registry)
	if err != nil {
		return nil, fmt.Errorf("register the metrics of denials: %w", err)
	}
	rules, err := s.rules()
	if err != nil {
		return nil, err
	}
	return &interceptor.Auth{
		Service: c.ServiceMesh.SPIFFEID, Methods: s.methods(), Rules: rules, TrustXFCC: c.ServiceMesh.TrustXFCC,
		Tokens: tokens, Denied: denied, Log: s.log,
	}, nil
}

func (s *Server) methods() map[string]interceptor.Proof {
	// Behind a sidecar, which has judged the call, health is open: it says nothing but whether the process serves. A process
	// that is its own endpoint asks for a rule, as a sidecar does, so that a policy means the same with either; the kubelet
	// asks /health. It is about nobody's payments: no user.
	health := interceptor.Nothing
	if s.identity != nil {
		health = interceptor.Workload
	}
	methods := interceptor.HealthMethods(health)
	methods[paymentv1.PaymentService_CreatePayment_FullMethodName] = interceptor.WorkloadAndUser
	methods[paymentv1.PaymentService_GetPayment_FullMethodName] = interceptor.WorkloadAndUser
	methods[paymentv1.PaymentService_ListPayments_FullMethodName] = interceptor.WorkloadAndUser
	// Reflection shows the API: whoever may see it has the same proofs as whoever may use it.
	if s.config.GRPC.EnableReflection {
		methods[reflectionv1.ServerReflection_ServerReflectionInfo_FullMethodName] = interceptor.WorkloadAndUser
		methods[reflectionv1alpha.ServerReflection_ServerReflectionInfo_FullMethodName] = interceptor.WorkloadAndUser
	}
	return methods
}

// rules are who may call: of the watched file, of the list, or, behind a sidecar that has judged, whoever has an ID of the
// own trust domain. Nil, in development, is everybody.
func (s *Server) rules() (interceptor.Rules, error) {
	c := s.config
	switch {
	case !c.ServiceMesh.Enabled:
		return nil, nil
	case c.Auth.PolicyFile != "":
		file, err := policy.Open(policy.Options{Path: c.Auth.PolicyFile, Log: s.log, Registerer: s.process.Registry})
		s.policy = file
		return file, err
	case len(c.Auth.AllowedSPIFFEIDs) > 0 || s.identity != nil:
		var callers policy.Callers
		for _, text := range c.Auth.AllowedSPIFFEIDs {
			id, err := spiffeid.FromString(text)
			if err != nil {
				return nil, fmt.Errorf("auth.allowed_spiffe_ids: %w", err)
			}
			callers = append(callers, id)
		}
		return callers, nil
	}
	own, err := spiffeid.FromString(c.ServiceMesh.SPIFFEID)
	if err != nil {
		return nil, fmt.Errorf("service_mesh.spiffe_id: %w", err)
	}
	return policy.Domain(own.TrustDomain()), nil
}
