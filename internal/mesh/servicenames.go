package mesh

import (
	"regexp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
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
	slices.Sort(selecting)
	if len(selecting) > maxNamedServices {
		identity.UnnamedServices = selecting[maxNamedServices:]
		selecting = selecting[:maxNamedServices]
	}
	for _, service := range selecting {
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
