package workload

import (
	"cmp"
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
)

// Service renders the objects of a service, in the order in which to apply them. The proxy's files are those of the xDS
// stage; with dataPlane Library there is no proxy, and they are not looked at.
//
// Where there are Problems the list lacks what cannot be rendered, the Deployment and the ConfigMap with config.yaml: apply
// what is there and delete nothing, so that what runs stays as it is, but for who may call it.
func Service(s mesh.Service, proxyFiles map[string]string, o Options) ([]Object, []mesh.Problem) {
	p := newProcess(s, o)
	objects := p.surroundings()
	problems := p.unknownDependencies()
	rules, problem := p.rules()
	if problem != nil {
		return objects, append(problems, *problem)
	}
	if rules != nil {
		objects = append(objects, rules)
	}
	var config map[string]string
	if len(problems) == 0 { // else its config.yaml could not say whom to expect
		config, problems = p.files()
	}
	base := p.deployment(hash(map[string]string{configFile: config[configFile]}), hash(proxyFiles))
	deployment, problem := p.patched(base)
	if problem != nil {
		problems = append(problems, *problem)
	}
	if len(problems) > 0 {
		return objects, problems
	}
	if config != nil {
		objects = append(objects, p.role.configMap("-config", config))
	}
	if p.sidecar {
		objects = append(objects, p.role.configMap("-proxy", maps.Clone(proxyFiles)))
	}
	return append(objects, deployment), nil
}

// process is what a service runs, on its way into objects.
type process struct {
	mesh.Service
	role    role
	options Options
	sidecar bool
	// env are the variables that the operator sets, sorted by name.
	env []corev1.EnvVar
	// decided are the values of config.yaml that the mesh decides, by the path of their key.
	decided map[string]any
	// shutdownSeconds is how long calls under way may take to end.
	shutdownSeconds int64
}

func newProcess(s mesh.Service, o Options) *process {
	p := &process{
		Service: s, role: roleOf(mesh.KindMeshService, s.Key), options: o,
		sidecar: s.DataPlane != meshv1alpha1.DataPlaneLibrary, shutdownSeconds: shutdownSeconds,
	}
	p.env, p.decided = p.ownEnv(), p.decide()
	return p
}

// surroundings are the objects beside the process and its files.
func (p *process) surroundings() []Object {
	var objects []Object
	if p.NewIdentity != nil {
		objects = append(objects, p.role.identity(p.NewIdentity))
	}
	if p.NewServiceAccount {
		objects = append(objects, p.role.serviceAccount(p.ServiceAccountName))
	}
	if p.Workload.Persistence != nil {
		objects = append(objects, p.claim())
	}
	objects = append(objects, p.role.networkPolicy(serviceIngress(p.Service), serviceEgress(p.Service, p.options)))
	if len(p.Ports) > 0 {
		objects = append(objects, p.role.service(p.headless()))
	}
	if p.Workload.Persistence == nil { // a budget of the only pod would keep its node from being drained
		objects = append(objects, p.role.budget())
	}
	return objects
}

// headless is a Service without an address: proxies are told the pods' addresses, and so are clients by DNS.
func (p *process) headless() corev1.ServiceSpec {
	spec := corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, Type: corev1.ServiceTypeClusterIP}
	for _, port := range p.Ports {
		spec.Ports = append(spec.Ports, corev1.ServicePort{
			Name: port.Name, Protocol: corev1.ProtocolTCP, Port: port.MeshPort, TargetPort: intstr.FromInt32(port.MeshPort),
		})
	}
	return spec
}

func (p *process) claim() *corev1.PersistentVolumeClaim {
	persistence := p.Workload.Persistence
	claim := &corev1.PersistentVolumeClaim{
		TypeMeta: typeOf(corev1.SchemeGroupVersion, "PersistentVolumeClaim"), ObjectMeta: p.role.meta("-data"),
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: persistence.Size.Quantity()}},
		},
	}
	claim.Labels[labelWhenDeleted] = string(cmp.Or(persistence.WhenDeleted, meshv1alpha1.RetentionRetain))
	if persistence.StorageClassName != nil {
		class := string(*persistence.StorageClassName)
		claim.Spec.StorageClassName = &class
	}
	return claim
}

// problem is a Problem of the service that keeps it from being accepted.
func (p *process) problem(reason, field, message string) mesh.Problem {
	return mesh.Problem{
		Kind: mesh.KindMeshService, Object: p.Key, Condition: meshv1alpha1.ConditionAccepted,
		Reason: reason, Field: field, Message: field + ": " + message,
	}
}

// unknownDependencies are those that a process without a sidecar cannot be told: it expects a SPIFFE ID at an address, and
// has both from its start. A sidecar learns them whenever they come.
func (p *process) unknownDependencies() []mesh.Problem {
	var problems []mesh.Problem
	for _, dependency := range p.Dependencies {
		if !p.sidecar && (dependency.ID.IsZero() || dependency.MeshPort == 0) {
			problem := p.problem(meshv1alpha1.ReasonServiceNotAccepted, "spec.dependsOn[name="+dependency.Name+"].service", "MeshService "+dependency.Service.String()+
				" has no accepted identity, or not this port (yet): with dataPlane Library the process is told at its start whom to expect, so the Deployment stays as it is until then")
			problem.Condition = meshv1alpha1.ConditionDependenciesResolved
			problems = append(problems, problem)
		}
	}
	return problems
}
