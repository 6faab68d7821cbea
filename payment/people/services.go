package people

import (
	"fmt"
	"strings"

	"buf.build/go/protovalidate"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/jia-app/paymesh/payment/contactv1"
	"github.com/jia-app/paymesh/payment/documentv1"
	"github.com/jia-app/paymesh/payment/familyv1"
)

// service is one of the services, as a process serves it.
type service struct {
	register func(grpc.ServiceRegistrar)
	requests []proto.Message // what it is asked with
}

// chosen are the services that the options name.
func (s *Server) chosen() ([]service, error) {
	var all []service
	named := map[string]bool{}
	for name := range strings.SplitSeq(s.options.Service, ",") {
		if named[name] {
			return nil, fmt.Errorf("the service %q is named twice", name)
		}
		named[name] = true
		one, err := s.service(name)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

// validatorOf knows the rules of all requests.
func validatorOf(all []service) (protovalidate.Validator, error) {
	var requests []proto.Message
	for _, one := range all {
		requests = append(requests, one.requests...)
	}
	validator, err := protovalidate.New(protovalidate.WithMessages(requests...))
	if err != nil {
		return nil, fmt.Errorf("compile the rules of the protos: %w", err)
	}
	return validator, nil
}

func (s *Server) service(name string) (service, error) {
	data := s.options.Data
	switch name {
	case "contact":
		server := &contacts{data: data, log: s.options.Log}
		if s.options.FamilyAddress != "" {
			client, err := s.services.Family()
			if err != nil {
				return service{}, err
			}
			server.families = client
		}
		return service{
			register: func(r grpc.ServiceRegistrar) { contactv1.RegisterContactServiceServer(r, server) },
			requests: []proto.Message{&contactv1.GetUserInfoRequest{}, &contactv1.GetFamilyMembersRequest{}},
		}, nil
	case "family":
		return service{
			register: func(r grpc.ServiceRegistrar) { familyv1.RegisterFamilyServiceServer(r, &familyService{data: data}) },
			requests: []proto.Message{&familyv1.GetFamilyRequest{}},
		}, nil
	case "document":
		return service{
			register: func(r grpc.ServiceRegistrar) {
				documentv1.RegisterDocumentServiceServer(r, &documentService{data: data})
			},
			requests: []proto.Message{&documentv1.GetDocumentRequest{}, &documentv1.ListDocumentsRequest{}},
		}, nil
	default:
		return service{}, fmt.Errorf("there is no service %q: want contact, family or document", name)
	}
}
