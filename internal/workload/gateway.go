package workload

import (
	"fmt"
	"maps"
	"slices"
	"strings"

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
	spec.Volumes = append(spec.Volumes, secretsVolume(g))
	proxy := o.proxy(r.key, asks(mesh.ReadyPort))
	proxy.Ports = append(proxy.Ports, corev1.ContainerPort{Name: "ready", ContainerPort: mesh.ReadyPort, Protocol: corev1.ProtocolTCP})
	proxy.VolumeMounts = append(proxy.VolumeMounts, corev1.VolumeMount{Name: volumeTLS, MountPath: mesh.TLSDir, ReadOnly: true})
	proxy.Resources = proxyResources("100m", "128Mi", "1Gi")
	if g.Spec != nil && g.Spec.Resources != nil {
		proxy.Resources = g.Spec.Resources.Requirements()
	}
	proxy.Lifecycle = sleep(gatewayPreStopSeconds)
	for _, listener := range g.Listeners {
		proxy.Ports = append(proxy.Ports, corev1.ContainerPort{ContainerPort: listener.TargetPort, Protocol: corev1.ProtocolTCP})
	}
	spec.Containers = []corev1.Container{proxy}
	template := corev1.PodTemplateSpec{Spec: spec}
	template.Annotations = map[string]string{annotationProxy: hash(proxyFiles)}
	return template
}

// secretsVolume has the certificate of each listener in a folder named after its target port. One that is not there keeps no
// pod from running, which the other listeners need; it comes when it is made. It is one volume, so that Envoy has a folder
// to watch also where there is none of them.
func secretsVolume(g mesh.Gateway) corev1.Volume {
	mode, optional := int32(0o440), true
	projected := &corev1.ProjectedVolumeSource{DefaultMode: &mode}
	for _, listener := range g.Listeners {
		folder := folderOf(listener)
		projected.Sources = append(projected.Sources, corev1.VolumeProjection{Secret: &corev1.SecretProjection{
			LocalObjectReference: corev1.LocalObjectReference{Name: listener.SecretName},
			Optional:             &optional,
			Items: []corev1.KeyToPath{
				{Key: corev1.TLSCertKey, Path: folder + corev1.TLSCertKey}, {Key: corev1.TLSPrivateKeyKey, Path: folder + corev1.TLSPrivateKeyKey},
			},
		}})
	}
	return corev1.Volume{Name: volumeTLS, VolumeSource: corev1.VolumeSource{Projected: projected}}
}

func folderOf(listener mesh.GatewayListener) string { return fmt.Sprintf("%d/", listener.TargetPort) }

// Certificates are the volumes of a gateway's pod with the certificates of its listeners.
func Certificates(pod *corev1.Pod) []corev1.Volume {
	return slices.DeleteFunc(slices.Clone(pod.Spec.Volumes), func(volume corev1.Volume) bool { return volume.Name != volumeTLS || volume.Projected == nil })
}

// Mounts reports whether a pod of a gateway has the Secret of a listener mounted for it. One of an older revision may not.
func Mounts(pod *corev1.Pod, listener mesh.GatewayListener) bool {
	for _, volume := range Certificates(pod) {
		for _, source := range volume.Projected.Sources {
			if secret := source.Secret; secret != nil && secret.Name == listener.SecretName && len(secret.Items) > 0 && strings.HasPrefix(secret.Items[0].Path, folderOf(listener)) {
				return true
			}
		}
	}
	return false
}
