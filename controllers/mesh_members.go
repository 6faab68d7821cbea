package controllers

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/workload"
)

// memberOf is whose pod it is, of those that the operator runs: those of the Deployment of the key that its labels name.
// Anybody in the namespace can give a pod these labels. The pod's owner they could invent, too, but then the garbage
// collector takes the pod away.
func memberOf(pod client.Object) (mesh.ProxyKey, bool) {
	labels, owner := pod.GetLabels(), metav1.GetControllerOf(pod)
	if labels[workload.LabelEndpoint] == "" || owner == nil || owner.Kind != "ReplicaSet" {
		return mesh.ProxyKey{}, false
	}
	key, ok := labelled(pod)
	return key, ok && owner.Name == key.Name+"-"+labels[appsv1.DefaultDeploymentUniqueLabelKey]
}

// labelled is the key that the labels of an object name.
func labelled(object client.Object) (mesh.ProxyKey, bool) {
	for _, of := range []struct{ label, kind string }{
		{meshv1alpha1.LabelService, mesh.KindMeshService}, {meshv1alpha1.LabelGateway, mesh.KindMeshGateway},
	} {
		if name := object.GetLabels()[of.label]; name != "" {
			return mesh.ProxyKey{Kind: of.kind, NamespacedName: types.NamespacedName{Namespace: object.GetNamespace(), Name: name}}, true
		}
	}
	return mesh.ProxyKey{}, false
}

// members are the pods that the operator runs for a key and that have not ended, sorted by name.
func members(ctx context.Context, reader client.Reader, key mesh.ProxyKey) ([]corev1.Pod, error) {
	label := meshv1alpha1.LabelService
	if key.Kind == mesh.KindMeshGateway {
		label = meshv1alpha1.LabelGateway
	}
	list := &corev1.PodList{}
	if err := reader.List(ctx, list, client.InNamespace(key.Namespace), client.MatchingLabels{label: key.Name, workload.LabelEndpoint: "true"}); err != nil {
		return nil, fmt.Errorf("list the Pods of %s: %w", key, err)
	}
	pods := slices.DeleteFunc(list.Items, func(pod corev1.Pod) bool {
		owner, own := memberOf(&pod)
		return !own || owner != key || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
	})
	slices.SortFunc(pods, func(x, y corev1.Pod) int { return cmp.Compare(x.Name, y.Name) })
	return pods, nil
}

// staying are the pods that are not being deleted.
func staying(pods []corev1.Pod) []corev1.Pod {
	return slices.DeleteFunc(slices.Clone(pods), func(pod corev1.Pod) bool { return !pod.DeletionTimestamp.IsZero() })
}

// deploymentOf is the Deployment that an owner has; nil where it has none.
func deploymentOf(ctx context.Context, reader client.Reader, owner client.Object) (*appsv1.Deployment, error) {
	object := &appsv1.Deployment{}
	if err := reader.Get(ctx, client.ObjectKeyFromObject(owner), object); apierrors.IsNotFound(err) {
		return nil, nil //nolint:nilnil // there is none, and nothing went wrong
	} else if err != nil {
		return nil, fmt.Errorf("read Deployment %s: %w", client.ObjectKeyFromObject(owner), err)
	}
	return object, nil
}

// waits says what the pods wait for that are not ready, in a sentence each; the same sentence once.
func waits(pods []corev1.Pod) []string {
	var all []string
	for i := range pods {
		if why := waitsFor(&pods[i]); why != "" {
			all = append(all, "pod "+pods[i].Name+" "+why)
		}
	}
	return all
}

// waitsFor is what a pod waits for; empty where it is ready.
func waitsFor(pod *corev1.Pod) string {
	for _, condition := range pod.Status.Conditions {
		switch {
		case condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue:
			return ""
		case condition.Type == corev1.PodScheduled && condition.Status == corev1.ConditionFalse:
			return "cannot be scheduled: " + condition.Message
		}
	}
	if !pod.DeletionTimestamp.IsZero() {
		return "is ending"
	}
	for _, status := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		waiting := status.State.Waiting
		switch {
		case waiting != nil && waiting.Reason != "PodInitializing" && waiting.Reason != "ContainerCreating":
			return fmt.Sprintf("cannot run its container %s: %s", status.Name, strings.TrimSuffix(waiting.Reason+": "+waiting.Message, ": "))
		case status.Name == workload.ContainerProxy && status.State.Running != nil && (status.Started == nil || !*status.Started):
			return fmt.Sprintf("runs its proxy, which has no identity or no config yet: see the conditions Registered and Programmed, and kubectl logs -n %s %s -c %s%s", pod.Namespace, pod.Name, status.Name, orSecrets(pod))
		case status.Name == workload.ContainerProxy && status.State.Running != nil && !status.Ready:
			return fmt.Sprintf("runs its proxy, which is not ready: see the conditions Registered and Programmed, and kubectl logs -n %s %s -c %s%s", pod.Namespace, pod.Name, status.Name, orSecrets(pod))
		case status.State.Running != nil && !status.Ready:
			return fmt.Sprintf("runs its container %s, which is not ready: see kubectl logs -n %s %s -c %s", status.Name, pod.Namespace, pod.Name, status.Name)
		case status.State.Terminated != nil && status.State.Terminated.ExitCode != 0:
			return fmt.Sprintf("has seen its container %s end with exit code %d: see kubectl logs -p -n %s %s -c %s", status.Name, status.State.Terminated.ExitCode, pod.Namespace, pod.Name, status.Name)
		}
	}
	return fmt.Sprintf("is being started: if that takes long, a volume or an image is missing, and its events say which: kubectl describe pod -n %s %s", pod.Namespace, pod.Name)
}

// orSecrets goes on with what else a gateway's proxy waits for: certificates, which are files and not config.
func orSecrets(pod *corev1.Pod) string {
	var secrets []string
	for _, volume := range workload.Certificates(pod) {
		for _, source := range volume.Projected.Sources {
			if source.Secret != nil {
				secrets = append(secrets, source.Secret.Name)
			}
		}
	}
	if len(secrets) == 0 {
		return ""
	}
	slices.Sort(secrets)
	return "; where both are True, it can use the certificate of no listener: tls.crt and tls.key of each Secret must be PEM and belong together, and not be what proxies do not take (" + untaken + "): " + names(slices.Compact(secrets))
}
