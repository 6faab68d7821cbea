package mesh

import (
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
)

// maxNamedServices bounds how many Services an identity is named after: each has up to four names in every certificate.
const maxNamedServices = 16

// refusedDNSName is what SPIRE takes for punycode, which it refuses unless it is correct: it would refuse the whole entry.
var refusedDNSName = regexp.MustCompile(`(^|\.)..--`)

// nameAfterServices adds the DNS names of the Services that select pods of the identity behind those of its spec.
func (b *builder) nameAfterServices(identity *Identity) {
	var selecting []string
	for i := range b.KubeServices {
		service := &b.KubeServices[i]
		if service.Namespace == identity.Key.Namespace && b.selectsOneOf(service, identity) {
			selecting = append(selecting, service.Name)
		}
	}
	identity.LingeringServices = b.lingering(identity.Key, selecting)
	named := slices.Sorted(slices.Values(slices.Concat(selecting, identity.LingeringServices)))
	if len(named) > maxNamedServices { // one that lingers keeps its place: it is likely to be back
		identity.UnnamedServices = slices.DeleteFunc(named[maxNamedServices:], func(service string) bool { return !slices.Contains(selecting, service) })
		named = named[:maxNamedServices]
	}
	for _, service := range named {
		short := service + "." + identity.Key.Namespace
		forms := []string{service, short, short + ".svc"}
		if b.ClusterDomain != "" {
			forms = append(forms, short+".svc."+b.ClusterDomain)
		}
		for _, name := range forms {
			if !slices.Contains(identity.DNSNames, name) && !refusedDNSName.MatchString(name) {
				identity.DNSNames = append(identity.DNSNames, name)
			}
		}
	}
}

// lingering are the Services that an identity is named after and that are not among those that select a pod of it; sorted.
func (b *builder) lingering(key types.NamespacedName, selecting []string) (services []string) {
	for _, named := range b.NamedAfter {
		if named.Identity == key && !slices.Contains(selecting, named.Service) && !slices.Contains(services, named.Service) {
			services = append(services, named.Service)
		}
	}
	slices.Sort(services)
	return services
}

// NamedAfter are the Services that an identity is named after where an entry of it has these DNS names.
func NamedAfter(object *meshv1alpha1.ServiceIdentity, dnsNames []string) (services []string) {
	for _, name := range dnsNames {
		service, isService := strings.CutSuffix(name, "."+object.Namespace+".svc")
		if isService && !strings.Contains(service, ".") && slices.Contains(dnsNames, service) && !slices.Contains(object.Spec.DNSNames, meshv1alpha1.DNSName(name)) {
			services = append(services, service)
		}
	}
	return services
}

// selectsOneOf reports whether a Service selects a pod of the identity that has not ended.
func (b *builder) selectsOneOf(service *corev1.Service, identity *Identity) bool {
	if len(service.Spec.Selector) == 0 || service.Spec.Type == corev1.ServiceTypeExternalName {
		return false // somebody else keeps its endpoints
	}
	selector := labels.SelectorFromSet(service.Spec.Selector)
	return slices.ContainsFunc(b.Pods, func(pod corev1.Pod) bool {
		return identity.Selects(&pod) && !ended(&pod) && selector.Matches(labels.Set(pod.Labels))
	})
}
