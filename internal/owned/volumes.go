package owned

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Claims are the claims of volumes among objects.
func Claims(objects []client.Object) []client.Object {
	return slices.DeleteFunc(slices.Clone(objects), func(object client.Object) bool { return keyOfObject(object).kind != claimKind })
}

// Leaving are the claims that the owner has and somebody deletes; only of the wanted ones, where it is known what is wanted.
// The API server keeps one for as long as a pod uses it, so that nobody notices before the pod ends, and it is too late.
func (o *Objects) Leaving(ctx context.Context, owner client.Object, want []client.Object, known bool) (keys []types.NamespacedName, err error) {
	list := about(claimKind).list()
	if err := o.Client.List(ctx, list, client.InNamespace(owner.GetNamespace()), client.MatchingLabels{ownerLabel(owner): owner.GetName()}); err != nil {
		return nil, fmt.Errorf("list the %ss of %s %s: %w", claimKind.Kind, KindOf(owner), client.ObjectKeyFromObject(owner), err)
	}
	wanted := map[types.NamespacedName]bool{}
	for _, claim := range Claims(want) {
		wanted[client.ObjectKeyFromObject(claim)] = true
	}
	err = meta.EachListItem(list, func(item runtime.Object) error {
		claim, ok := item.(client.Object)
		if !ok || claim.GetDeletionTimestamp().IsZero() || !metav1.IsControlledBy(claim, owner) && !adoptable(claim, owner) {
			return nil
		}
		if key := client.ObjectKeyFromObject(claim); !known || wanted[key] {
			keys = append(keys, key)
		}
		return nil
	})
	slices.SortFunc(keys, func(x, y types.NamespacedName) int { return cmp.Compare(x.Name, y.Name) })
	return keys, err
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
