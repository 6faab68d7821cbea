package mesh

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/descriptor"
)

// service is a MeshService on its way into the Mesh.
//
// One without an identity of its own (there is none, or it was refused) is not in the Mesh, so that nothing new is rendered
// of it and no peer names it; what runs of it is left as it is. Every other mistake costs only its own part: with a broken
// descriptor set a service keeps its edges and loses its exposures.
type service struct {
	Service
	object *meshv1alpha1.MeshService
	// identified is true where the service has an identity of its own.
	identified bool
	// api is the descriptor set; nil where there is none, or none that can be read, which apiBroken tells apart. It is known once
	// apiRead is true.
	api                *descriptor.Set
	apiRead, apiBroken bool
	// used are the allow rules, by name, that a caller in the Mesh makes use of.
	used map[string]Caller
	// recorded is where the service is recorded as being served.
	recorded map[servedAt]bool
}

func (b *builder) addServices() {
	for i := range b.Services {
		b.services = append(b.services, b.newService(&b.Services[i]))
	}
	slices.SortFunc(b.services, func(x, y *service) int { return compareKeys(x.Key, y.Key) })
	for _, s := range b.services {
		b.service[s.Key] = s
	}
}

// newService makes of a MeshService what does not depend on other services. An object that is being deleted stays as it is
// until it is gone: what drains needs its identity and its config to the end.
func (b *builder) newService(object *meshv1alpha1.MeshService) *service {
	spec := &object.Spec
	s := &service{object: object, used: map[string]Caller{}, Service: Service{
		Key:               keyOf(object),
		NewServiceAccount: spec.Workload.ServiceAccountName == "",
		DataPlane:         cmp.Or(spec.DataPlane, meshv1alpha1.DataPlaneSidecar),
		Workload:          spec.Workload,
		Egress: slices.SortedFunc(slices.Values(spec.Egress), func(x, y meshv1alpha1.EgressRule) int {
			return cmp.Compare(x.Name, y.Name)
		}),
	}}
	s.Ports, s.recorded = portsOf(object), recordedOf(object)
	key := ProxyKey{Kind: KindMeshService, NamespacedName: s.Key}
	p, problem := b.identify(applicant{ProxyKey: key, object: object, serviceAccountName: string(spec.Workload.ServiceAccountName)})
	b.report(problem)
	s.identified = problem == nil
	s.ID, s.Trusted, s.Identity, s.NewIdentity = p.id, p.trusted && s.identified, p.identity, p.newIdentity
	s.ServiceAccountName = p.serviceAccountName
	if b.Asked.IsZero() || b.Asked == key {
		b.readAPI(s)
	}
	return s
}

// readAPI reads the descriptor set of a service, if it names one.
func (b *builder) readAPI(s *service) {
	source := s.object.Spec.API
	if source == nil || s.apiRead {
		return
	}
	s.apiRead = true
	raw, err := b.file(s.object, source.DescriptorSet)
	if err == nil {
		s.api, err = b.Descriptors.Read(raw)
	}
	if err != nil {
		const field = "spec.api.descriptorSet"
		s.apiBroken = true
		b.report(s.problem(meshv1alpha1.ConditionAccepted, meshv1alpha1.ReasonDescriptorInvalid, field, fmt.Sprintf("%s: %v", field, err)))
	}
}

func (s *service) problem(condition, reason, field, message string) *Problem {
	return &Problem{Kind: KindMeshService, Object: s.Key, Condition: condition, Reason: reason, Field: field, Message: message}
}

// portOf is the port of this name, or the only one where no name is given.
func (s *service) portOf(name string) (Port, bool) {
	if name == "" && len(s.Ports) == 1 {
		return s.Ports[0], true
	}
	i := slices.IndexFunc(s.Ports, func(port Port) bool { return port.Name == name })
	if i < 0 {
		return Port{}, false
	}
	return s.Ports[i], true
}

// portNames are the names of its ports, for messages.
func (s *service) portNames() []string {
	var names []string
	for _, port := range s.Ports {
		names = append(names, port.Name)
	}
	return names
}

func timeoutOf(d meshv1alpha1.Duration) metav1.Duration {
	return metav1.Duration{Duration: cmp.Or(d.Duration(), DefaultTimeout*time.Second)}
}
