package controllers

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
)

// fieldOwner is who owns the fields that the operator applies.
const fieldOwner = client.FieldOwner("paymesh")

// ownedKinds are the kinds of objects that a MeshService or a MeshGateway owns, and that are pruned.
var ownedKinds = []schema.GroupVersionKind{
	appsv1.SchemeGroupVersion.WithKind("Deployment"),
	corev1.SchemeGroupVersion.WithKind("ConfigMap"),
	corev1.SchemeGroupVersion.WithKind("Service"),
	corev1.SchemeGroupVersion.WithKind("ServiceAccount"),
	meshv1alpha1.GroupVersion.WithKind(mesh.KindServiceIdentity),
	networkingv1.SchemeGroupVersion.WithKind("NetworkPolicy"),
	policyv1.SchemeGroupVersion.WithKind("PodDisruptionBudget"),
}

// errForeign is an object that is needed and belongs to somebody else.
var errForeign = errors.New("belongs to somebody else")

// Objects writes what is rendered of an owner: by server-side apply, and only what differs from what it last wrote or saw.
type Objects struct {
	// Client reads the cache and writes; Live reads past the cache, before an object is made that the cache does not have.
	Client client.Client
	Live   client.Reader

	mu      sync.Mutex
	written map[objectKey]written
}

type objectKey struct {
	kind schema.GroupVersionKind
	types.NamespacedName
}

// written is what an object was when it was last applied. While the cache shows that version there is nothing to do.
type written struct {
	content [sha256.Size]byte
	version string
}

// Apply makes the objects what is wanted. One that somebody else has is left alone: the error says so, and the others are
// applied all the same.
func (o *Objects) Apply(ctx context.Context, owner client.Object, want []client.Object) error {
	var errs []error
	for _, object := range want {
		errs = append(errs, o.apply(ctx, owner, object))
	}
	return errors.Join(errs...)
}

func (o *Objects) apply(ctx context.Context, owner, want client.Object) error {
	key := keyOfObject(want)
	content, err := contentOf(owner, want)
	if err != nil {
		return err
	}
	text, err := json.Marshal(content.Object)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	have, err := o.have(ctx, key)
	if err != nil {
		return err
	}
	if have != nil && !metav1.IsControlledBy(have, owner) {
		return fmt.Errorf("%s exists and %w: delete or rename it, or rename %s %s", key, errForeign, kindOf(owner), client.ObjectKeyFromObject(owner))
	}
	now := written{content: sha256.Sum256(text)}
	if last, known := o.last(key); known && have != nil && last.content == now.content && last.version == have.GetResourceVersion() {
		return nil
	}
	if err := o.Client.Apply(ctx, client.ApplyConfigurationFromUnstructured(content), fieldOwner, client.ForceOwnership); err != nil {
		return fmt.Errorf("apply %s: %w", key, err)
	}
	now.version = content.GetResourceVersion()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.written == nil {
		o.written = map[objectKey]written{}
	}
	o.written[key] = now
	return nil
}

// have is the object's metadata; nil where there is none. What the cache does not have may be somebody else's all the same:
// the cache of these kinds holds only what bears the operator's labels.
func (o *Objects) have(ctx context.Context, key objectKey) (*metav1.PartialObjectMetadata, error) {
	for _, reader := range []client.Reader{o.Client, o.Live} {
		have := &metav1.PartialObjectMetadata{}
		have.SetGroupVersionKind(key.kind)
		if err := reader.Get(ctx, key.NamespacedName, have); err == nil {
			return have, nil
		} else if !apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("read %s: %w", key, err)
		}
	}
	return nil, nil //nolint:nilnil // there is none, and nothing went wrong
}

func (o *Objects) last(key objectKey) (written, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	last, known := o.written[key]
	return last, known
}

// Prune deletes what the owner has and does not want. Only call it with all that is wanted, and once Apply has made that: a
// rendering with Problems leaves out what it could not make, such as the Deployment that runs.
func (o *Objects) Prune(ctx context.Context, owner client.Object, want []client.Object) error {
	wanted := map[objectKey]bool{}
	for _, object := range want {
		wanted[keyOfObject(object)] = true
	}
	for _, kind := range ownedKinds {
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(kind.GroupVersion().WithKind(kind.Kind + "List"))
		if err := o.Client.List(ctx, list, client.InNamespace(owner.GetNamespace()), client.MatchingLabels{ownerLabel(owner): owner.GetName()}); err != nil {
			return fmt.Errorf("list the %ss of %s %s: %w", kind.Kind, kindOf(owner), client.ObjectKeyFromObject(owner), err)
		}
		for i := range list.Items {
			object := &list.Items[i]
			key := objectKey{kind, client.ObjectKeyFromObject(object)}
			if wanted[key] || !metav1.IsControlledBy(object, owner) || !object.DeletionTimestamp.IsZero() {
				continue
			}
			object.SetGroupVersionKind(kind)
			uid := object.GetUID() // a new object of the name is not the one that was judged
			if err := o.Client.Delete(ctx, object, client.Preconditions{UID: &uid}); client.IgnoreNotFound(err) != nil {
				return fmt.Errorf("delete %s, which is not wanted any more: %w", key, err)
			}
			o.forget(key)
		}
	}
	return nil
}

func (o *Objects) forget(key objectKey) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.written, key)
}

// contentOf is what to apply: the object without what the API server alone sets, owned by owner.
func contentOf(owner, want client.Object) (*unstructured.Unstructured, error) {
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(want)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", keyOfObject(want), err)
	}
	delete(fields, "status")
	unstructured.RemoveNestedField(fields, "metadata", "creationTimestamp")
	unstructured.RemoveNestedField(fields, "spec", "template", "metadata", "creationTimestamp")
	content := &unstructured.Unstructured{Object: fields}
	content.SetOwnerReferences([]metav1.OwnerReference{*metav1.NewControllerRef(owner, meshv1alpha1.GroupVersion.WithKind(kindOf(owner)))})
	return content, nil
}

func keyOfObject(object client.Object) objectKey {
	return objectKey{object.GetObjectKind().GroupVersionKind(), client.ObjectKeyFromObject(object)}
}

func (k objectKey) String() string { return k.kind.Kind + " " + k.NamespacedName.String() }

// kindOf is the kind of an owner; objects from a typed client do not say theirs.
func kindOf(owner client.Object) string {
	if _, ok := owner.(*meshv1alpha1.MeshGateway); ok {
		return mesh.KindMeshGateway
	}
	return mesh.KindMeshService
}

// ownerLabel is the label by which an owner's objects are found.
func ownerLabel(owner client.Object) string {
	if kindOf(owner) == mesh.KindMeshGateway {
		return meshv1alpha1.LabelGateway
	}
	return meshv1alpha1.LabelService
}
