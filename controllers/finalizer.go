package controllers

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/jia-app/paymesh/internal/owned"
)

// finalizer keeps an object from going before what was made for it. Its patches replace the whole list, and so they have a lock:
// without it they would undo somebody else's finalizer, or take one from a new object of the name.
type finalizer struct {
	client client.Client
	name   string
}

// ensure puts it on an object, ahead of the first thing that is made for that.
func (f finalizer) ensure(ctx context.Context, object client.Object) error {
	before := object.DeepCopyObject().(client.Object) //nolint:forcetypeassert // it is one
	if !controllerutil.AddFinalizer(object, f.name) {
		return nil
	}
	if err := f.patch(ctx, before, object); err != nil {
		return fmt.Errorf("add the finalizer to %s %s: %w", owned.KindOf(object), client.ObjectKeyFromObject(object), err)
	}
	return nil
}

// drop takes it from an object of which nothing is left.
func (f finalizer) drop(ctx context.Context, object client.Object) error {
	before := object.DeepCopyObject().(client.Object) //nolint:forcetypeassert // it is one
	if !controllerutil.RemoveFinalizer(object, f.name) {
		return nil
	}
	switch err := f.patch(ctx, before, object); {
	case apierrors.IsNotFound(err), apierrors.IsConflict(err): // the cache is behind, and will tell of what has changed since
	case err != nil:
		return fmt.Errorf("drop the finalizer of %s %s: %w", owned.KindOf(object), client.ObjectKeyFromObject(object), err)
	}
	return nil
}

func (f finalizer) patch(ctx context.Context, before, object client.Object) error {
	return f.client.Patch(ctx, object, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
}
