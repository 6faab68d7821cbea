package mesh

import (
	"k8s.io/apimachinery/pkg/types"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
)

// claims says who has a path at a gateway.
type claims map[claim]*candidate

type claim struct {
	gateway  types.NamespacedName
	hostname string
	path     string // the HTTP method, a space, and the path with * for each variable; or what anyMethod makes
}

// anyMethod stands for whatever method of a gRPC service is taken: it is in the way of who wants all of them.
func anyMethod(service string) string { return "gRPC " + service }

// add claims every path of the candidate; or none, and says why, where one of them is taken.
func (c claims) add(candidate *candidate) *refusal {
	own := map[claim]string{} // and the method of the exposure that has it
	for _, hostname := range candidate.route.Hostnames {
		at := claim{gateway: candidate.gateway.Key, hostname: hostname}
		for _, method := range candidate.route.Methods {
			name := method.Service + "/" + method.Name
			wanted, against := candidate.route.paths(method)
			for _, at.path = range against {
				if holder := c[at]; holder != nil {
					return refuse(meshv1alpha1.ReasonRouteClaimed, "", "%s at MeshGateway %s with %s belongs to expose %s of MeshService %s, which was there first: choose another host name, or leave %s out",
						at.path, at.gateway, hostname, holder.route.Name, holder.service.Key, name)
				}
			}
			for _, at.path = range wanted {
				if other, ok := own[at]; ok && other != name && at.path != anyMethod(method.Service) {
					return refuse(meshv1alpha1.ReasonRouteClaimed, ".methods", "%s and %s both have %s: leave one out, or change its option google.api.http", other, name, at.path)
				}
				own[at] = name
			}
		}
	}
	for claim := range own {
		if c[claim] == nil {
			c[claim] = candidate
		}
	}
	return nil
}

// paths are what a method of the route claims, and what others must not have claimed.
func (r Route) paths(method Method) (wanted, against []string) {
	for _, binding := range method.Bindings {
		normal, _, _ := parseTemplate(binding.Template) // which has been checked
		wanted = append(wanted, binding.HTTPMethod+" "+normal)
	}
	against = append(against, wanted...)
	if !r.GRPC {
		return wanted, against
	}
	prefix := "POST /" + method.Service + "/"
	wanted = append(wanted, prefix+method.Name, anyMethod(method.Service))
	if method.Name == "*" {
		return wanted, append(against, anyMethod(method.Service))
	}
	return wanted, append(against, prefix+method.Name, prefix+"*")
}
