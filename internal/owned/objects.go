// Package owned writes the Kubernetes objects of a MeshService or a MeshGateway: an owner and all that is wanted of it go in,
// the API server has that and no more, and what stood in the way comes out.
package owned

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/workload"
)

// fieldOwner is who owns the fields that the operator applies.
const fieldOwner = client.FieldOwner("paymesh")

// ErrForeign is an object that is needed and belongs to somebody else.
var ErrForeign = errors.New("belongs to somebody else")

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

// written is what an object was when it was last applied. While the cache shows it in that state there is nothing to do.
type written struct {
	owner      types.UID
	content    [sha256.Size]byte
	uid        types.UID
	state      string
	generation int64
}

func (w written) is(now written) bool {
	return w.content == now.content && w.uid == now.uid && w.state == now.state
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
	have, err := o.have(ctx, key)
	if err != nil {
		return err
	}
	if have != nil && !metav1.IsControlledBy(have, owner) && !adoptable(have, owner) {
		return fmt.Errorf("%s exists and %w: delete or rename it, or rename %s %s", key, ErrForeign, KindOf(owner), client.ObjectKeyFromObject(owner))
	}
	content, err := contentOf(owner, want, have)
	if err != nil {
		return err
	}
	text, err := json.Marshal(content.Object)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	now := written{owner: owner.GetUID(), content: sha256.Sum256(text)}
	if have != nil {
		now.uid, now.state = have.GetUID(), stateOf(have)
		last, known := o.last(key)
		if known && last.is(now) {
			return nil
		}
		if !known || last.uid != now.uid || last.state != now.state { // somebody else has been at it, or may have been
			if err := o.takeOver(ctx, key); err != nil {
				return err
			}
		}
	}
	if err := o.Client.Apply(ctx, client.ApplyConfigurationFromUnstructured(content), fieldOwner, client.ForceOwnership); err != nil {
		return fmt.Errorf("apply %s: %w", key, err)
	}
	now.uid, now.state, now.generation = content.GetUID(), stateOf(content), content.GetGeneration()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.written == nil {
		o.written = map[objectKey]written{}
	}
	o.written[key] = now
	return nil
}

// Shows reports whether an object, as a cache has it, is the one that was applied last, or a later one. One that a cache is
// behind with still says of its status what was true of the spec before.
func (o *Objects) Shows(kind schema.GroupVersionKind, object client.Object) bool {
	last, known := o.last(objectKey{kind, client.ObjectKeyFromObject(object)})
	return !known || last.uid == object.GetUID() && last.generation <= object.GetGeneration()
}

// stateOf is what changes when somebody changes what is applied of an object, and not with its status.
func stateOf(object client.Object) string {
	if object.GetGeneration() == 0 { // a kind without a status
		return object.GetResourceVersion()
	}
	annotations := maps.Clone(object.GetAnnotations())
	maps.DeleteFunc(annotations, func(key, _ string) bool { return strings.HasPrefix(key, "deployment.kubernetes.io/") })
	var owners []types.UID
	for _, owner := range object.GetOwnerReferences() {
		owners = append(owners, owner.UID)
	}
	return fmt.Sprint(object.GetGeneration(), object.GetLabels(), annotations, owners)
}

// adoptable reports whether an object is a volume's claim that outlived a MeshService of the owner's name, or changes from
// outliving it to going with it or back.
func adoptable(have, owner client.Object) bool {
	return metav1.GetControllerOf(have) == nil && workload.Retainable(have) && have.GetLabels()[ownerLabel(owner)] == owner.GetName()
}

// have is the object as the cache has it; nil where there is none. What the cache does not have may be somebody else's all
// the same: the cache of these kinds holds only what bears the operator's label.
func (o *Objects) have(ctx context.Context, key objectKey) (client.Object, error) {
	for _, reader := range []client.Reader{o.Client, o.Live} {
		have := about(key.kind).Object()
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

// Prune deletes what the owner has and does not want, but for the kinds to keep. Only call it with all that is wanted, and once
// Apply has made that: a rendering with Problems leaves out what it could not make, such as the Deployment that runs.
func (o *Objects) Prune(ctx context.Context, owner client.Object, want []client.Object, keep ...schema.GroupVersionKind) error {
	wanted := map[objectKey]bool{}
	for _, object := range want {
		wanted[keyOfObject(object)] = true
	}
	for _, kind := range kinds {
		if kind.kept || slices.Contains(keep, kind.GroupVersionKind) {
			continue
		}
		err := o.each(ctx, owner, kind.GroupVersionKind, func(object client.Object) error {
			key := objectKey{kind.GroupVersionKind, client.ObjectKeyFromObject(object)}
			if wanted[key] {
				return nil
			}
			return o.delete(ctx, key, object)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Remove deletes the owner's objects of a kind. It reports whether none is left.
func (o *Objects) Remove(ctx context.Context, owner client.Object, kind schema.GroupVersionKind) (gone bool, err error) {
	gone = true
	err = o.each(ctx, owner, kind, func(object client.Object) error {
		gone = false
		return o.delete(ctx, objectKey{kind, client.ObjectKeyFromObject(object)}, object)
	})
	return gone, err
}

// each calls f for each object of a kind that the owner has.
func (o *Objects) each(ctx context.Context, owner client.Object, kind schema.GroupVersionKind, f func(client.Object) error) error {
	list := about(kind).list()
	if err := o.Client.List(ctx, list, client.InNamespace(owner.GetNamespace()), client.MatchingLabels{ownerLabel(owner): owner.GetName()}); err != nil {
		return fmt.Errorf("list the %ss of %s %s: %w", kind.Kind, KindOf(owner), client.ObjectKeyFromObject(owner), err)
	}
	return meta.EachListItem(list, func(item runtime.Object) error {
		if object, ok := item.(client.Object); ok && metav1.IsControlledBy(object, owner) {
			return f(object)
		}
		return nil
	})
}

func (o *Objects) delete(ctx context.Context, key objectKey, object client.Object) error {
	if !object.GetDeletionTimestamp().IsZero() {
		return nil
	}
	uid := object.GetUID() // a new object of the name is not the one that was judged
	target := about(key.kind).Object()
	target.SetNamespace(key.Namespace)
	target.SetName(key.Name)
	options := []client.DeleteOption{client.Preconditions{UID: &uid}}
	if key.kind == DeploymentKind { // so that it is gone when its pods are, and not before
		options = append(options, client.PropagationPolicy(metav1.DeletePropagationForeground))
	}
	if err := o.Client.Delete(ctx, target, options...); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete %s, which is not wanted any more: %w", key, err)
	}
	o.forget(key)
	return nil
}

func (o *Objects) forget(key objectKey) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.written, key)
}

// Forget drops what is remembered of an owner that is gone.
func (o *Objects) Forget(owner client.Object) {
	o.mu.Lock()
	defer o.mu.Unlock()
	maps.DeleteFunc(o.written, func(_ objectKey, w written) bool { return w.owner == owner.GetUID() })
}

// contentOf is what to apply: the object without what the API server alone sets, owned by owner.
func contentOf(owner, want, have client.Object) (*unstructured.Unstructured, error) {
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(want)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", keyOfObject(want), err)
	}
	delete(fields, "status")
	unstructured.RemoveNestedField(fields, "metadata", "creationTimestamp")
	unstructured.RemoveNestedField(fields, "spec", "template", "metadata", "creationTimestamp")
	content := &unstructured.Unstructured{Object: fields}
	if deployment, ok := have.(*appsv1.Deployment); ok {
		keepRestart(content, deployment)
	}
	if workload.Retained(want) {
		return content, nil // it outlives its owner
	}
	content.SetOwnerReferences([]metav1.OwnerReference{*metav1.NewControllerRef(owner, meshv1alpha1.GroupVersion.WithKind(KindOf(owner)))})
	return content, nil
}

// keepRestart keeps what kubectl rollout restart has written: it is a wish, and no change of what runs.
func keepRestart(content *unstructured.Unstructured, have *appsv1.Deployment) {
	if at, ok := have.Spec.Template.Annotations[annotationRestarted]; ok {
		annotations, _, _ := unstructured.NestedStringMap(content.Object, "spec", "template", "metadata", "annotations")
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[annotationRestarted] = at
		_ = unstructured.SetNestedStringMap(content.Object, annotations, "spec", "template", "metadata", "annotations") // the path is one of objects
	}
}

// annotationRestarted is what kubectl rollout restart writes on the template of pods.
const annotationRestarted = "kubectl.kubernetes.io/restartedAt"

func keyOfObject(object client.Object) objectKey {
	return objectKey{object.GetObjectKind().GroupVersionKind(), client.ObjectKeyFromObject(object)}
}

func (k objectKey) String() string { return k.kind.Kind + " " + k.NamespacedName.String() }

// KindOf is the kind of an object of this API; those from a typed client do not say theirs.
func KindOf(object client.Object) string {
	switch object.(type) {
	case *meshv1alpha1.MeshGateway:
		return mesh.KindMeshGateway
	case *meshv1alpha1.ServiceIdentity:
		return mesh.KindServiceIdentity
	}
	return mesh.KindMeshService
}

// ownerLabel is the label by which an owner's objects are found.
func ownerLabel(owner client.Object) string {
	if KindOf(owner) == mesh.KindMeshGateway {
		return meshv1alpha1.LabelGateway
	}
	return meshv1alpha1.LabelService
}
