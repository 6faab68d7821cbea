package controllers

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

var claimKind = corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim")

// claimsOf are the claims of volumes among objects.
func claimsOf(objects []client.Object) []client.Object {
	return slices.DeleteFunc(slices.Clone(objects), func(object client.Object) bool { return keyOfObject(object).kind != claimKind })
}

// leaving are the claims among the wanted objects that somebody deletes. The API server keeps one for as long as a pod uses
// it, so that nobody notices before the pod ends, and it is too late.
func (o *Objects) leaving(ctx context.Context, want []client.Object) (keys []types.NamespacedName, err error) {
	for _, claim := range claimsOf(want) {
		have := cachedAs(claimKind)
		if err := o.Client.Get(ctx, client.ObjectKeyFromObject(claim), have); client.IgnoreNotFound(err) != nil {
			return nil, fmt.Errorf("read %s: %w", keyOfObject(claim), err)
		} else if !apierrors.IsNotFound(err) && !have.GetDeletionTimestamp().IsZero() {
			keys = append(keys, client.ObjectKeyFromObject(claim))
		}
	}
	return keys, nil
}

// leavingClaim says what to do about one.
func leavingClaim(key types.NamespacedName) string {
	return fmt.Sprintf("PersistentVolumeClaim %s is being deleted: when its pod ends it goes, with all that is on the volume, and an empty one is made. "+
		`This cannot be taken back; what keeps the volume, as long as the pod runs, is kubectl patch pv $(kubectl get pvc -n %s %s -o jsonpath={.spec.volumeName}) -p '{"spec":{"persistentVolumeReclaimPolicy":"Retain"}}'`,
		key, key.Namespace, key.Name)
}

// uids are those that the objects had when they were last applied; empty for one that never was.
func (o *Objects) uids(objects []client.Object) []types.UID {
	uids := make([]types.UID, len(objects))
	for i, object := range objects {
		last, _ := o.last(keyOfObject(object))
		uids[i] = last.uid
	}
	return uids
}

// tellLost has an event for each claim that was there, and was made again by now.
func (d *Deployer) tellLost(owner client.Object, claims []client.Object, before []types.UID) {
	for i, now := range d.Objects.uids(claims) {
		if before[i] != "" && now != before[i] {
			d.Events.Eventf(owner, nil, corev1.EventTypeWarning, "VolumeLost", "Apply",
				"%s was deleted, with all that was on its volume: it was made again, and is empty. A call that came before is not known any more", keyOfObject(claims[i]))
		}
	}
}
