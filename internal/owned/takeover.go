package owned

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// takenOver are the fields in which nobody else has a say. Labels, annotations and finalizers of others stay, and the status
// is whose it is.
var takenOver = []string{"spec", "data", "binaryData", "immutable"}

// takeOver makes the operator the owner of all that others have written into an object's spec. Server-side apply takes away
// what its owner does not want any more, and only that: without this a container, a variable or an external address that
// somebody has added by hand would stay for ever.
func (o *Objects) takeOver(ctx context.Context, key objectKey) error {
	if about(key.kind).shared {
		return nil
	}
	object := &metav1.PartialObjectMetadata{}
	object.SetGroupVersionKind(key.kind)
	if err := o.Live.Get(ctx, key.NamespacedName, object); err != nil {
		return client.IgnoreNotFound(fmt.Errorf("read %s: %w", key, err))
	}
	before := object.DeepCopy()
	managers, err := takenFrom(object.ManagedFields, key.kind.GroupVersion().String())
	if err != nil {
		return fmt.Errorf("read who owns the fields of %s: %w", key, err)
	}
	if managers == nil {
		return nil
	}
	object.ManagedFields = managers
	if err := o.Client.Patch(ctx, object, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
		return fmt.Errorf("take over what others have written into %s: %w", key, err)
	}
	return nil
}

// takenFrom is who owns which fields once the operator has taken over those that others own in what is applied; nil where
// there are none. Only owners in the version that is applied are seen: the API server speaks no other of these kinds.
func takenFrom(managers []metav1.ManagedFieldsEntry, version string) ([]metav1.ManagedFieldsEntry, error) {
	own, something := fieldpath.NewSet(), false
	var others []metav1.ManagedFieldsEntry
	for _, entry := range managers {
		if entry.Subresource != "" || entry.FieldsV1 == nil || entry.APIVersion != version {
			others = append(others, entry)
			continue
		}
		all := &fieldpath.Set{}
		if err := all.FromJSON(bytes.NewReader(entry.FieldsV1.GetRawBytes())); err != nil {
			return nil, err
		}
		if entry.Manager == string(fieldOwner) && entry.Operation == metav1.ManagedFieldsOperationApply {
			own = own.Union(all)
			continue
		}
		taken := fieldpath.NewSet()
		all.Iterate(func(path fieldpath.Path) {
			if first := path[0].FieldName; first != nil && slices.Contains(takenOver, *first) {
				taken.Insert(path.Copy())
			}
		})
		own, something = own.Union(taken), something || !taken.Empty()
		if left := all.Difference(taken); !left.Empty() {
			if err := put(&entry, left); err != nil {
				return nil, err
			}
			others = append(others, entry)
		}
	}
	if !something {
		return nil, nil
	}
	entry := metav1.ManagedFieldsEntry{Manager: string(fieldOwner), Operation: metav1.ManagedFieldsOperationApply, APIVersion: version, FieldsType: "FieldsV1"}
	if at := slices.IndexFunc(managers, func(e metav1.ManagedFieldsEntry) bool {
		return e.Manager == entry.Manager && e.Operation == entry.Operation && e.Subresource == "" && e.APIVersion == version
	}); at >= 0 {
		entry.Time = managers[at].Time
	}
	if err := put(&entry, own); err != nil {
		return nil, err
	}
	return append([]metav1.ManagedFieldsEntry{entry}, others...), nil
}

func put(entry *metav1.ManagedFieldsEntry, fields *fieldpath.Set) error {
	text, err := fields.ToJSON()
	if err != nil {
		return err
	}
	raw := metav1.FieldsV1{}
	raw.SetRawBytes(text)
	entry.FieldsV1 = &raw
	return nil
}
