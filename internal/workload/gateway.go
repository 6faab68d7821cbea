package workload

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/jia-app/paymesh/internal/mesh"
)

// Gateway renders the objects of a gateway, in the order in which to apply them. The proxy's files are those of the xDS
// stage. Nothing of a gateway can be wrong here: there are no Problems.
func Gateway(g mesh.Gateway, proxyFiles map[string]string, o Options) ([]Object, []mesh.Problem) {
	r := roleOf(mesh.KindMeshGateway, g.Key)
	var objects []Object
	if g.NewIdentity != nil {
		objects = append(objects, r.identity(g.NewIdentity))
	}
	if g.NewServiceAccount {
		objects = append(objects, r.serviceAccount(g.ServiceAccountName))
	}
	service := corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP}
	if g.Spec != nil && g.Spec.ServiceType != "" {
		service.Type = corev1.ServiceType(g.Spec.ServiceType)
	}
	for _, listener := range g.Listeners {
		service.Ports = append(service.Ports, corev1.ServicePort{
			Name: listener.Name, Protocol: corev1.ProtocolTCP, Port: listener.Port, TargetPort: intstr.FromInt32(listener.TargetPort),
		})
	}
	return append(objects,
		r.configMap("-proxy", maps.Clone(proxyFiles)),
		r.networkPolicy(gatewayIngress(g), gatewayEgress(g, o)),
		r.service(service),
		r.budget(),
		r.deployment(g.Replicas, gatewayTemplate(g, r, proxyFiles, o)),
	), nil
}

func gatewayTemplate(g mesh.Gateway, r role, proxyFiles map[string]string, o Options) corev1.PodTemplateSpec {
	spec := pod(g.ServiceAccountName, gatewayPreStopSeconds+endSeconds)
	spec.Volumes = []corev1.Volume{configMapVolume(volumeProxy, r.key.Name+"-proxy"), o.workloadAPIVolume()}
	// The first listener is asked, and with it its certificate, which the kubelet does not verify. A pod has no way to ask
	// all of them.
	proxy := o.proxy(r.key, asks(corev1.URISchemeHTTPS, mesh.FirstGatewayPort))
	proxy.Resources = proxyResources("100m", "128Mi", "1Gi")
	if g.Spec != nil && g.Spec.Resources != nil {
		proxy.Resources = g.Spec.Resources.Requirements()
	}
	proxy.Lifecycle = sleep(gatewayPreStopSeconds)
	for _, listener := range g.Listeners {
		proxy.Ports = append(proxy.Ports, corev1.ContainerPort{ContainerPort: listener.TargetPort, Protocol: corev1.ProtocolTCP})
		// The folder, so that Envoy sees how the kubelet changes it. Without the Secret the pod waits, and its events say for what.
		mode := int32(0o440)
		spec.Volumes = append(spec.Volumes, corev1.Volume{Name: volumeTLS + listener.Name, VolumeSource: corev1.VolumeSource{
			Secret: &corev1.SecretVolumeSource{SecretName: listener.SecretName, DefaultMode: &mode},
		}})
		proxy.VolumeMounts = append(proxy.VolumeMounts, corev1.VolumeMount{Name: volumeTLS + listener.Name, MountPath: tlsDir + "/" + listener.Name, ReadOnly: true})
	}
	spec.Containers = []corev1.Container{proxy}
	template := corev1.PodTemplateSpec{Spec: spec}
	template.Annotations = map[string]string{annotationProxy: hash(proxyFiles)}
	return template
}
