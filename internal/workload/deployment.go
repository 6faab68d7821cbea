package workload

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
)

// The environment variables that every image gets; each dependency adds <NAME>_ADDRESS and, without a sidecar,
// <NAME>_SPIFFE_ID.
const (
	envSocket     = "SPIFFE_ENDPOINT_SOCKET" // SPIFFE Workload Endpoint, section 4
	envSPIFFEID   = "PAYMESH_SPIFFE_ID"
	envPolicyFile = "PAYMESH_POLICY_FILE"
)

// tmpSize bounds /tmp, the only place but the volume where a process can write.
var tmpSize = resource.MustParse("128Mi")

// deployment is that of the process before its patch. The hashes change when pods must be replaced: the rules are not in
// them, nor the files, which processes read again by themselves.
func (p *process) deployment(config, proxy string) *appsv1.Deployment {
	spec := pod(p.ServiceAccountName, preStopSeconds+p.shutdownSeconds+endSeconds)
	spec.Volumes = p.volumes()
	spec.Containers = []corev1.Container{p.app()}
	template := corev1.PodTemplateSpec{}
	template.Annotations = map[string]string{"kubectl.kubernetes.io/default-container": containerApp}
	if p.Workload.Config != nil {
		template.Annotations[annotationConfig] = config
	}
	if p.sidecar {
		template.Annotations[annotationProxy] = proxy
		spec.InitContainers = []corev1.Container{p.proxy()}
	}
	template.Spec = spec
	replicas := int32(1)
	if p.Workload.Replicas != nil {
		replicas = *p.Workload.Replicas
	}
	d := p.role.deployment(replicas, template)
	if p.Workload.Persistence != nil { // the volume and the store on it have one writer
		d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
	}
	return d
}

// proxy is a native sidecar: it is there before the process, ready with certificates and config, and ends after it.
func (p *process) proxy() corev1.Container {
	proxy, always := p.options.proxy(p.role.key, asks(mesh.ReadyPort)), corev1.ContainerRestartPolicyAlways
	proxy.RestartPolicy = &always
	proxy.Ports = append(proxy.Ports, corev1.ContainerPort{Name: "ready", ContainerPort: mesh.ReadyPort, Protocol: corev1.ProtocolTCP})
	proxy.Resources = proxyResources("20m", "80Mi", "512Mi")
	for _, port := range p.Ports {
		proxy.Ports = append(proxy.Ports, corev1.ContainerPort{ContainerPort: port.MeshPort, Protocol: corev1.ProtocolTCP})
	}
	return proxy
}

// app is the process. It ends while its peers still find it for a while: see preStopSeconds.
func (p *process) app() corev1.Container {
	w := p.Workload
	app := corev1.Container{
		Name: containerApp, Image: w.Image, ImagePullPolicy: corev1.PullIfNotPresent,
		Args: slices.Clone(w.Args), Env: p.allEnv(),
		SecurityContext: restricted(), Lifecycle: sleep(preStopSeconds),
	}
	if w.Config != nil {
		app.Args = append([]string{"--config", configDir + "/" + configFile}, app.Args...)
		app.Ports = []corev1.ContainerPort{{Name: "metrics", ContainerPort: mesh.HTTPPort, Protocol: corev1.ProtocolTCP}}
	}
	if w.Resources != nil {
		app.Resources = w.Resources.Requirements()
	}
	switch {
	case w.Health != nil:
		app.ReadinessProbe = httpProbe(w.Health.Path, w.Health.Port)
	case w.Config != nil:
		app.ReadinessProbe = httpProbe("/health", mesh.HTTPPort)
	}
	if w.Config != nil {
		app.VolumeMounts = append(app.VolumeMounts, corev1.VolumeMount{Name: volumeConfig, MountPath: configDir, ReadOnly: true})
	}
	if !p.sidecar {
		app.VolumeMounts = append(app.VolumeMounts, corev1.VolumeMount{Name: volumePolicy, MountPath: policyDir, ReadOnly: true})
	}
	for _, file := range w.Files {
		app.VolumeMounts = append(app.VolumeMounts, corev1.VolumeMount{Name: fileVolume(file), MountPath: filesDir + "/" + string(file.Name), ReadOnly: true})
	}
	if w.Persistence != nil {
		app.VolumeMounts = append(app.VolumeMounts, corev1.VolumeMount{Name: volumeData, MountPath: p.mountPath()})
	}
	if p.needsTmp() {
		app.VolumeMounts = append(app.VolumeMounts, corev1.VolumeMount{Name: volumeTmp, MountPath: tmpDir})
	}
	if !p.sidecar {
		app.VolumeMounts = append(app.VolumeMounts, workloadAPIMount())
		for _, port := range p.Ports {
			app.Ports = append(app.Ports, corev1.ContainerPort{ContainerPort: port.MeshPort, Protocol: corev1.ProtocolTCP})
		}
	}
	return app
}

func (p *process) volumes() []corev1.Volume {
	var volumes []corev1.Volume
	if p.sidecar {
		volumes = append(volumes, configMapVolume(volumeProxy, p.Key.Name+"-proxy"))
	}
	volumes = append(volumes, p.options.workloadAPIVolume())
	if p.Workload.Config != nil {
		volumes = append(volumes, configMapVolume(volumeConfig, p.Key.Name+"-config"))
	}
	if !p.sidecar {
		volumes = append(volumes, configMapVolume(volumePolicy, p.Key.Name+"-policy"))
	}
	for _, file := range p.Workload.Files {
		volumes = append(volumes, configMapVolume(fileVolume(file), string(file.ConfigMap)))
	}
	if p.Workload.Persistence != nil {
		volumes = append(volumes, corev1.Volume{Name: volumeData, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: p.Key.Name + "-data"},
		}})
	}
	if p.needsTmp() {
		volumes = append(volumes, corev1.Volume{Name: volumeTmp, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &tmpSize}}})
	}
	return volumes
}

const tmpDir = "/tmp"

func (p *process) mountPath() string {
	return cmp.Or(p.Workload.Persistence.MountPath, "/var/lib/paymesh")
}

func (p *process) needsTmp() bool { return p.Workload.Persistence == nil || p.mountPath() != tmpDir }

// fileVolume is the volume of a file source. Its name may be longer than that of a volume.
func fileVolume(file meshv1alpha1.FileSource) string {
	const longest = 63
	name := volumeFiles + string(file.Name)
	if len(name) <= longest {
		return name
	}
	return volumeFiles + hash(map[string]string{"": string(file.Name)})
}

// ownEnv are the variables that the operator sets, sorted by name. None depends on what other services allow: else one of
// theirs could roll these pods.
func (p *process) ownEnv() []corev1.EnvVar {
	var env []corev1.EnvVar
	for _, dependency := range p.Dependencies {
		env = append(env, corev1.EnvVar{Name: variable(dependency.Name, "ADDRESS"), Value: p.address(dependency)})
		if !p.sidecar {
			env = append(env, corev1.EnvVar{Name: variable(dependency.Name, "SPIFFE_ID"), Value: dependency.ID.String()})
		}
	}
	if !p.sidecar {
		env = append(env,
			corev1.EnvVar{Name: envSocket, Value: "unix://" + p.options.SocketPath()},
			corev1.EnvVar{Name: envSPIFFEID, Value: p.ID.String()},
			corev1.EnvVar{Name: envPolicyFile, Value: policyDir + "/" + policyFile})
	}
	slices.SortFunc(env, func(x, y corev1.EnvVar) int { return cmp.Compare(x.Name, y.Name) })
	return env
}

// allEnv are the operator's variables and then, in their order, those of the spec that it does not set itself. So a value
// may refer to those before it, as $(CONTACT_SERVICE_ADDRESS).
func (p *process) allEnv() []corev1.EnvVar {
	env := slices.Clone(p.env)
	for _, variable := range p.Workload.Env {
		if p.isOwn(variable.Name) {
			continue
		}
		one := corev1.EnvVar{Name: variable.Name, Value: variable.Value}
		if from := variable.ValueFrom; from != nil {
			one.ValueFrom = &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
				LocalObjectReference: corev1.LocalObjectReference{Name: string(from.SecretKeyRef.Name)}, Key: string(from.SecretKeyRef.Key),
			}}
		}
		env = append(env, one)
	}
	return env
}

func (p *process) isOwn(name string) bool {
	return slices.ContainsFunc(p.env, func(own corev1.EnvVar) bool { return own.Name == name })
}

// address is where the process dials a dependency.
func (p *process) address(dependency mesh.Dependency) string {
	if p.sidecar {
		return fmt.Sprintf("127.0.0.1:%d", dependency.LocalPort)
	}
	return fmt.Sprintf("%s.%s.svc:%d", dependency.Service.Name, dependency.Service.Namespace, dependency.MeshPort)
}

// variable is the name of a variable of a dependency: CONTACT_SERVICE_ADDRESS.
func variable(dependency, suffix string) string {
	return strings.ToUpper(strings.ReplaceAll(dependency, "-", "_")) + "_" + suffix
}
