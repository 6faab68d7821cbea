package controllers

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// leavingClaim says what to do about one.
func leavingClaim(key types.NamespacedName) string {
	return fmt.Sprintf("PersistentVolumeClaim %s is being deleted: when its pod ends it goes, with all that is on the volume, and an empty one is made. "+
		`This cannot be taken back; what keeps the volume, as long as the pod runs, is kubectl patch pv $(kubectl get pvc -n %s %s -o jsonpath={.spec.volumeName}) -p '{"spec":{"persistentVolumeReclaimPolicy":"Retain"}}'`,
		key, key.Namespace, key.Name)
}

// tellLost has an event for each claim that was there, and was made again by now.
func (d *Deployer) tellLost(owner client.Object, claims []client.Object, before []types.UID) {
	for i, now := range d.Objects.UIDs(claims) {
		if before[i] != "" && now != before[i] {
			d.Events.Eventf(owner, nil, corev1.EventTypeWarning, "VolumeLost", "Apply",
				"PersistentVolumeClaim %s was deleted, with all that was on its volume: it was made again, and is empty. A call that came before is not known any more", client.ObjectKeyFromObject(claims[i]))
		}
	}
}
