package controllers

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/util/sets"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/spire"
)

// waitingPods are the pods that the identity selects and that do not have it, by why. The condition Registered says what
// SPIRE lacks.
func waitingPods(object *meshv1alpha1.ServiceIdentity, pods []corev1.Pod, o outcome) []meshv1alpha1.WaitingPods {
	selector := mesh.Identity{Key: mesh.KeyOf(object), ServiceAccountName: object.Spec.ServiceAccountName, PodLabels: map[string]string{}}
	for key, value := range object.Spec.PodLabels {
		selector.PodLabels[key] = string(value)
	}
	served := o.serves()
	registered := meta.FindStatusCondition(object.Status.Conditions, meshv1alpha1.ConditionRegistered)
	byReason := map[string][]string{}
	for i := range pods {
		pod := &pods[i]
		ended := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
		if ended || !selector.Selects(pod) || pod.Spec.NodeName != "" && served(pod.Spec.NodeName) {
			continue
		}
		reason := registered.Reason
		switch {
		case pod.Spec.NodeName == "":
			reason = meshv1alpha1.ReasonUnscheduled
		case slices.Contains(o.unknown, pod.Spec.NodeName):
			reason = meshv1alpha1.ReasonNodeUnknown
		}
		byReason[reason] = append(byReason[reason], pod.Name)
	}
	var waiting []meshv1alpha1.WaitingPods
	for reason, names := range byReason {
		slices.Sort(names)
		waiting = append(waiting, meshv1alpha1.WaitingPods{
			Reason: reason, Count: int32(len(names)), Names: names[:min(len(names), maxNamed)], //nolint:gosec // a namespace has fewer pods
		})
	}
	slices.SortFunc(waiting, func(x, y meshv1alpha1.WaitingPods) int { return cmp.Compare(x.Reason, y.Reason) })
	return waiting
}

// serves tells of a node whether SPIRE holds all that the identity needs there.
func (o *outcome) serves() func(node string) bool {
	if len(o.want) == 0 {
		return func(string) bool { return false }
	}
	if o.clusterWide {
		return func(string) bool { return len(o.missing) == 0 }
	}
	served := sets.New[string]()
	for _, node := range o.nodes {
		lacks := func(entry spire.Entry) bool { return spire.NodeOf(entry.ID) == string(node.UID) } // its own entry, or the alias that it hangs on
		if !slices.ContainsFunc(o.missing, lacks) {
			served.Insert(node.Name)
		}
	}
	return served.Has
}
