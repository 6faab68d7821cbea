// Package workload renders the Kubernetes objects of a MeshService or a MeshGateway: a service or a gateway of the Mesh goes
// in with the files of its proxy, the objects that run it come out. It is pure: the same input gives the same bytes.
package workload

import (
	"path"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
)

// Object is a Kubernetes object that says its kind.
type Object interface {
	metav1.Object
	runtime.Object
}

// Options are what the objects need that is the cluster's and not the service's.
type Options struct {
	// ProxyImage is an image of Envoy whose entry point takes Envoy's own flags.
	ProxyImage string
	// ManagerNamespace and ManagerLabels select the operator's pods, which serve xDS.
	ManagerNamespace string
	ManagerLabels    map[string]string
	// WorkloadAPIHostPath is the folder of the SPIRE agent's socket on every node. Either this or WorkloadAPICSIDriver, which
	// brings the folder to where Pod Security refuses hostPath.
	WorkloadAPIHostPath  string
	WorkloadAPICSIDriver string
	// WorkloadAPISocket is the name of the socket in the folder.
	WorkloadAPISocket string
}

// SocketPath is the Workload API's socket as a container sees it that has it mounted.
func (o Options) SocketPath() string { return path.Join(workloadAPIDir, o.WorkloadAPISocket) }

// The labels, beside those of api/v1alpha1 and of internal/mesh.
const (
	// LabelEndpoint is on the pods that the operator runs.
	LabelEndpoint = mesh.LabelEndpoint
	// LabelManagedBy is Kubernetes' own, and ManagedBy its value on every object that is rendered here.
	LabelManagedBy = "app.kubernetes.io/managed-by"
	ManagedBy      = "paymesh"
	// labelWhenDeleted marks a volume's claim with its retention policy.
	labelWhenDeleted = "mesh.jia.app/when-deleted"
)

// Retainable reports whether the object is one that can outlive its MeshService.
func Retainable(object metav1.Object) bool { return object.GetLabels()[labelWhenDeleted] != "" }

// Retained reports whether the object outlives its MeshService: it gets no owner, and is never pruned.
func Retained(object metav1.Object) bool {
	return object.GetLabels()[labelWhenDeleted] == string(meshv1alpha1.RetentionRetain)
}

// role is whose pods they are: of a MeshService or of a MeshGateway.
type role struct{ key mesh.ProxyKey }

func roleOf(kind string, key types.NamespacedName) role {
	return role{mesh.ProxyKey{Kind: kind, NamespacedName: key}}
}

// labels are on each object.
func (r role) labels() map[string]string {
	return map[string]string{mesh.LabelApp: r.key.Name, r.key.Label(): r.key.Name, LabelManagedBy: ManagedBy}
}

// callersLabels are on all pods that NetworkPolicies take for this role; those that the operator runs have more.
func (r role) callersLabels() map[string]string { return map[string]string{r.key.Label(): r.key.Name} }

func (r role) selector() *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: r.key.PodLabels()}
}

// meta is the metadata of an object whose name is the role's with a suffix.
func (r role) meta(suffix string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: r.key.Namespace, Name: r.key.Name + suffix, Labels: r.labels()}
}

func typeOf(version schema.GroupVersion, kind string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: version.String(), Kind: kind}
}

func (r role) identity(spec *meshv1alpha1.ServiceIdentitySpec) *meshv1alpha1.ServiceIdentity {
	return &meshv1alpha1.ServiceIdentity{
		TypeMeta: typeOf(meshv1alpha1.GroupVersion, mesh.KindServiceIdentity), ObjectMeta: r.meta(""), Spec: *spec,
	}
}

// serviceAccount has no token in its pods: nothing in them asks the API server.
func (r role) serviceAccount(name string) *corev1.ServiceAccount {
	account := &corev1.ServiceAccount{
		TypeMeta: typeOf(corev1.SchemeGroupVersion, "ServiceAccount"), ObjectMeta: r.meta(""), AutomountServiceAccountToken: new(bool),
	}
	account.Name = name
	return account
}

func (r role) configMap(suffix string, data map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{TypeMeta: typeOf(corev1.SchemeGroupVersion, "ConfigMap"), ObjectMeta: r.meta(suffix), Data: data}
}

func (r role) service(spec corev1.ServiceSpec) *corev1.Service {
	spec.Selector = r.key.PodLabels()
	return &corev1.Service{TypeMeta: typeOf(corev1.SchemeGroupVersion, "Service"), ObjectMeta: r.meta(""), Spec: spec}
}

// budget lets one pod at a time be evicted. One that is not ready serves nobody, and does not keep a node from being drained.
func (r role) budget() *policyv1.PodDisruptionBudget {
	one, always := intstr.FromInt32(1), policyv1.AlwaysAllow
	return &policyv1.PodDisruptionBudget{
		TypeMeta: typeOf(policyv1.SchemeGroupVersion, "PodDisruptionBudget"), ObjectMeta: r.meta(""),
		Spec: policyv1.PodDisruptionBudgetSpec{MaxUnavailable: &one, Selector: r.selector(), UnhealthyPodEvictionPolicy: &always},
	}
}

func (r role) networkPolicy(ingress []networkingv1.NetworkPolicyIngressRule, egress []networkingv1.NetworkPolicyEgressRule) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		TypeMeta: typeOf(networkingv1.SchemeGroupVersion, "NetworkPolicy"), ObjectMeta: r.meta(""),
		Spec: networkingv1.NetworkPolicySpec{
			// Not only the operator's own pods: what passes for this role elsewhere is bound by its rules, too.
			PodSelector: metav1.LabelSelector{MatchLabels: r.callersLabels()},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
			Ingress:     ingress, Egress: egress,
		},
	}
}

// oldRevisions is how many ReplicaSets stay for kubectl rollout undo; the operator itself would undo that again.
const oldRevisions = 2

// deployment runs a template. Rolled, every pod is replaced before it goes.
func (r role) deployment(replicas int32, template corev1.PodTemplateSpec) *appsv1.Deployment {
	none, one, revisions := intstr.FromInt32(0), intstr.FromInt32(1), int32(oldRevisions)
	template.Labels = r.key.PodLabels()
	template.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
		MaxSkew: 1, TopologyKey: corev1.LabelHostname, WhenUnsatisfiable: corev1.ScheduleAnyway, LabelSelector: r.selector(),
	}}
	return &appsv1.Deployment{
		TypeMeta: typeOf(appsv1.SchemeGroupVersion, "Deployment"), ObjectMeta: r.meta(""),
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, RevisionHistoryLimit: &revisions, Selector: r.selector(), Template: template,
			Strategy: appsv1.DeploymentStrategy{
				Type:          appsv1.RollingUpdateDeploymentStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDeployment{MaxUnavailable: &none, MaxSurge: &one},
			},
		},
	}
}
