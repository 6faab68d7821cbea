package controllers

import (
	"errors"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/owned"
)

// judge derives the conditions of a MeshService or a MeshGateway from what is wanted and what there is. It is pure, and has
// a method for each condition.
type judge struct {
	conditions *[]metav1.Condition
	generation int64
	deployed
}

func (j judge) set(conditionType string, status metav1.ConditionStatus, reason, message string) {
	set(j.conditions, j.generation, metav1.Condition{Type: conditionType, Status: status, Reason: reason, Message: message})
}

// accepted says whether the spec is valid and its SPIFFE ID granted. Trusted says that the identity's is.
func (j judge) accepted(identity types.NamespacedName, trusted bool, unused []string) {
	reason, message := said(j.problems, meshv1alpha1.ConditionAccepted)
	switch {
	case reason != "":
		j.set(meshv1alpha1.ConditionAccepted, metav1.ConditionFalse, reason, message)
		return
	case !trusted:
		j.set(meshv1alpha1.ConditionAccepted, metav1.ConditionUnknown, meshv1alpha1.ReasonSyncing,
			fmt.Sprintf("whether ServiceIdentity %s may have its SPIFFE ID is not known yet", identity))
		return
	}
	message = "the spec is valid, and its SPIFFE ID is granted"
	if len(unused) > 0 {
		message += "; nobody makes use of spec.allow " + names(unused) + " (yet): a caller names this service in its spec.dependsOn"
	}
	j.set(meshv1alpha1.ConditionAccepted, metav1.ConditionTrue, meshv1alpha1.ReasonAccepted, message)
}

// registered passes on what the ServiceIdentity says.
func (j judge) registered(key types.NamespacedName) {
	identity := j.facts.identity
	if identity == nil {
		j.set(meshv1alpha1.ConditionRegistered, metav1.ConditionUnknown, meshv1alpha1.ReasonSyncing, fmt.Sprintf("there is no ServiceIdentity %s (yet)", key))
		return
	}
	condition := meta.FindStatusCondition(identity.Status.Conditions, meshv1alpha1.ConditionRegistered)
	if condition == nil || condition.ObservedGeneration < identity.Generation {
		j.set(meshv1alpha1.ConditionRegistered, metav1.ConditionUnknown, meshv1alpha1.ReasonSyncing, fmt.Sprintf("ServiceIdentity %s has not been looked at yet", key))
		return
	}
	j.set(meshv1alpha1.ConditionRegistered, condition.Status, condition.Reason, fmt.Sprintf("ServiceIdentity %s: %s", key, condition.Message))
}

// workloadReady says whether the Deployment runs what is wanted. A volume that is about to go comes first: that cannot be
// taken back, and the rest can wait.
func (j judge) workloadReady() {
	const condition = meshv1alpha1.ConditionWorkloadReady
	deployment := j.facts.deployment
	reason, message := j.unwritten()
	switch {
	case len(j.facts.leaving) > 0 && reason != "":
		j.set(condition, metav1.ConditionFalse, meshv1alpha1.ReasonVolumeTerminating, leavingClaim(j.facts.leaving[0])+". Besides, "+message)
	case len(j.facts.leaving) > 0:
		j.set(condition, metav1.ConditionFalse, meshv1alpha1.ReasonVolumeTerminating, leavingClaim(j.facts.leaving[0]))
	case reason != "":
		j.set(condition, metav1.ConditionFalse, reason, message)
	case deployment == nil || j.facts.behind:
		j.set(condition, metav1.ConditionFalse, meshv1alpha1.ReasonProgressing, "its Deployment is being made")
	case deployment.Spec.Replicas != nil && *deployment.Spec.Replicas == 0 && deployment.Status.Replicas == 0 && settled(deployment):
		j.set(condition, metav1.ConditionTrue, meshv1alpha1.ReasonScaledToZero, "no pod is wanted: replicas is 0")
	case settled(deployment):
		j.set(condition, metav1.ConditionTrue, meshv1alpha1.ReasonAvailable, fmt.Sprintf("%d of %d pods are available", deployment.Status.AvailableReplicas, *deployment.Spec.Replicas))
	default:
		j.set(condition, metav1.ConditionFalse, meshv1alpha1.ReasonProgressing, progress(deployment, j.facts.pods))
	}
}

// unwritten says why not all objects are there as they are wanted; empty where they are.
func (j judge) unwritten() (reason, message string) {
	switch {
	case errors.Is(j.facts.applied, owned.ErrForeign):
		return meshv1alpha1.ReasonForeignObject, j.facts.applied.Error()
	case j.facts.applied != nil:
		return meshv1alpha1.ReasonApplyFailed, j.facts.applied.Error()
	case !j.want.accepted || len(j.want.problems) > 0:
		return meshv1alpha1.ReasonNotAccepted, "what runs stays as it is, since it is not known what should: see the other conditions"
	}
	return "", ""
}

// settled reports whether the Deployment has as many pods as are wanted, all of them of the wanted revision and available.
func settled(deployment *appsv1.Deployment) bool {
	status := deployment.Status
	wanted := wantedReplicas(deployment)
	return status.ObservedGeneration >= deployment.Generation && status.Replicas == wanted && status.UpdatedReplicas == wanted && status.AvailableReplicas == wanted
}

// renewed reports whether all pods are of the wanted revision.
func (f facts) renewed() bool {
	return f.applied == nil && f.deployment != nil && !f.behind && settled(f.deployment)
}

func wantedReplicas(deployment *appsv1.Deployment) int32 {
	if deployment == nil || deployment.Spec.Replicas == nil {
		return 1
	}
	return *deployment.Spec.Replicas
}

// progress says how far a Deployment is and what it waits for.
func progress(deployment *appsv1.Deployment, pods []corev1.Pod) string {
	status := deployment.Status
	message := fmt.Sprintf("%d of %d pods are of the wanted revision, %d available", status.UpdatedReplicas, wantedReplicas(deployment), status.AvailableReplicas)
	for _, condition := range status.Conditions {
		if condition.Type == appsv1.DeploymentReplicaFailure && condition.Status == corev1.ConditionTrue {
			message += "; pods cannot be made: " + condition.Message
		}
	}
	if waiting := waits(pods); len(waiting) > 0 {
		message += "; " + strings.Join(waiting[:min(len(waiting), maxNamed)], "; ")
	}
	return message
}

// resolved says whether the dependencies consent.
func (j judge) resolved(applies bool) {
	j.unlessProblem(meshv1alpha1.ConditionDependenciesResolved, applies, meshv1alpha1.ReasonResolved,
		"each of spec.dependsOn exists and allows this service", "the service depends on none")
}

// exposed says whether the gateways serve the exposures.
func (j judge) exposed(applies bool) {
	j.unlessProblem(meshv1alpha1.ConditionExposed, applies, meshv1alpha1.ReasonExposed,
		"its gateways serve each of spec.expose", "the service is not exposed")
}

func (j judge) unlessProblem(condition string, applies bool, reason, message, without string) {
	switch problem, text := said(j.problems, condition); {
	case problem != "":
		j.set(condition, metav1.ConditionFalse, problem, text)
	case !applies:
		j.set(condition, metav1.ConditionTrue, meshv1alpha1.ReasonNotApplicable, without)
	case !j.want.accepted:
		j.set(condition, metav1.ConditionUnknown, meshv1alpha1.ReasonNotAccepted, "see the condition Accepted")
	default:
		j.set(condition, metav1.ConditionTrue, reason, message)
	}
}

// programmed says whether the proxy of each pod has accepted what is wanted of it now.
func (j judge) programmed(proxied bool) {
	const condition = meshv1alpha1.ConditionProgrammed
	rejected, missing, behind := j.proxies()
	connected := len(j.facts.pods) - len(missing)
	switch {
	case !proxied:
		j.set(condition, metav1.ConditionTrue, meshv1alpha1.ReasonNotApplicable, "there is no proxy with dataPlane Library")
	case !j.want.accepted:
		j.set(condition, metav1.ConditionUnknown, meshv1alpha1.ReasonNotAccepted, "the proxies keep what they have: see the condition Accepted")
	case len(j.facts.pods) == 0 && j.facts.deployment != nil && wantedReplicas(j.facts.deployment) == 0:
		j.set(condition, metav1.ConditionTrue, meshv1alpha1.ReasonNotApplicable, "no pod is wanted")
	case len(rejected) > 0:
		j.set(condition, metav1.ConditionFalse, meshv1alpha1.ReasonNACKed, strings.Join(rejected, "; "))
	case j.facts.unserved != nil:
		j.set(condition, metav1.ConditionFalse, meshv1alpha1.ReasonPending, "the manager cannot serve version "+j.want.version+", and the proxies keep what they have; this is an error of the operator's, please report it: "+j.facts.unserved.Error())
	case connected == 0:
		j.set(condition, metav1.ConditionUnknown, meshv1alpha1.ReasonNoProxies, "no proxy is connected to the manager (yet)"+j.deaf())
	case j.facts.served != j.want.version:
		j.set(condition, metav1.ConditionFalse, meshv1alpha1.ReasonPending, "the manager is about to send version "+j.want.version)
	case len(missing) > 0:
		j.set(condition, metav1.ConditionFalse, meshv1alpha1.ReasonPending, "the proxies of these pods are not connected to the manager (yet): "+names(missing)+j.deaf())
	case len(behind) > 0:
		j.set(condition, metav1.ConditionFalse, meshv1alpha1.ReasonPending, "the proxies of these pods have not accepted version "+j.want.version+" yet: "+names(behind))
	case len(j.facts.lacking) > 0:
		j.set(condition, metav1.ConditionFalse, meshv1alpha1.ReasonCertificateMissing, strings.Join(j.facts.lacking, "; "))
	default:
		j.set(condition, metav1.ConditionTrue, meshv1alpha1.ReasonProgrammed, fmt.Sprintf("%d of %d proxies have accepted version %s", connected, connected, j.want.version))
	}
}

// proxies sorts the pods by what their proxies hold.
func (j judge) proxies() (rejected, missing, behind []string) {
	for i := range j.facts.pods {
		name := j.facts.pods[i].Name
		proxy, known := j.facts.proxies[name]
		switch {
		case !known:
			missing = append(missing, name)
		case proxy.NACK != nil:
			rejected = append(rejected, fmt.Sprintf("the proxy of pod %s rejects %s of type %s, keeps what it has of them, and says: %s",
				name, names(proxy.NACK.Resources), proxy.NACK.TypeName(), proxy.NACK.Message))
		case !proxy.Synced:
			behind = append(behind, name)
		}
	}
	return rejected, missing, behind
}

// deaf says which replicas of the manager do not answer: their proxies are not seen.
func (j judge) deaf() string {
	var silent []string
	for _, peer := range j.facts.peers {
		if peer.Error != "" {
			silent = append(silent, strings.TrimSpace(peer.Address+" "+peer.Error))
		}
	}
	if len(silent) == 0 {
		return ""
	}
	return "; of the manager's other replicas these do not say what they see: " + names(silent)
}

// proxyCount counts the pods whose proxy has accepted what is wanted.
func proxyCount(f facts) *meshv1alpha1.ProxyCount {
	count := &meshv1alpha1.ProxyCount{Expected: int32(len(f.pods))} //nolint:gosec // a cluster has fewer pods
	for i := range f.pods {
		if proxy, known := f.proxies[f.pods[i].Name]; known && proxy.Synced {
			count.Synced++
		}
	}
	count.Summary = fmt.Sprintf("%d/%d", count.Synced, count.Expected)
	return count
}

// setTerminating says what a deleted object waits for.
func setTerminating(conditions *[]metav1.Condition, generation int64, waiting string) {
	set(conditions, generation, metav1.Condition{
		Type: meshv1alpha1.ConditionWorkloadReady, Status: metav1.ConditionFalse, Reason: meshv1alpha1.ReasonTerminating,
		Message: "the object is being deleted: " + waiting,
	})
}
