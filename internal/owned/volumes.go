package owned

import (
	"context"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Claims are the claims of volumes among objects.
func Claims(objects []client.Object) []client.Object {
	return slices.DeleteFunc(slices.Clone(objects), func(object client.Object) bool { return keyOfObject(object).kind != claimKind })
}

// Leaving are the claims among the wanted objects that somebody deletes. The API server keeps one for as long as a pod uses
// it, so that nobody notices before the pod ends, and it is too late.
func (o *Objects) Leaving(ctx context.Context, want []client.Object) (keys []types.NamespacedName, err error) {
	for _, claim := range Claims(want) {
		have := about(claimKind).Object()
		if err := o.Client.Get(ctx, client.ObjectKeyFromObject(claim), have); client.IgnoreNotFound(err) != nil {
			return nil, fmt.Errorf("read %s: %w", keyOfObject(claim), err)
		} else if !apierrors.IsNotFound(err) && !have.GetDeletionTimestamp().IsZero() {
			keys = append(keys, client.ObjectKeyFromObject(claim))
		}
	}
	return keys, nil
}

// UIDs are those that the objects had when they were last applied; empty for one that never was.
func (o *Objects) UIDs(objects []client.Object) []types.UID {
	uids := make([]types.UID, len(objects))
	for i, object := range objects {
		last, _ := o.last(keyOfObject(object))
		uids[i] = last.uid
	}
	return uids
}
