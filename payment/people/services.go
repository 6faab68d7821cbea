package people

import (
	"fmt"

	"buf.build/go/protovalidate"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/jia-app/paymesh/payment/contactv1"
)

// service is one of the services, as a process serves it.
type service struct {
	register func(grpc.ServiceRegistrar)
	requests []proto.Message // what it is asked with
}

// validator knows the rules of the service's requests.
func (s service) validator() (protovalidate.Validator, error) {
	return protovalidate.New(protovalidate.WithMessages(s.requests...))
}

func (s *Server) service() (service, error) {
	data := s.options.Data
	switch s.options.Service {
	case "contact":
		return service{
			register: func(r grpc.ServiceRegistrar) { contactv1.RegisterContactServiceServer(r, &contacts{data: data}) },
			requests: []proto.Message{&contactv1.GetUserInfoRequest{}, &contactv1.GetFamilyMembersRequest{}},
		}, nil
	default:
		return service{}, fmt.Errorf("there is no service %q: want contact", s.options.Service)
	}
}
