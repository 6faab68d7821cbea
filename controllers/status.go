package controllers

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/owned"
)

const (
	// maxNamed is how many nodes or entries a message names before it only counts.
	maxNamed = 10
	// maxMessage keeps what others say (SPIRE's error texts) well within the 32,768 bytes of a condition's message.
	maxMessage = 4096
	// maxNote is what the API server takes of an event's note.
	maxNote = 1024
)

// setReady derives Ready from the conditions of the given types: True where all are; else as the first that is False, or
// failing that, the first that is not known.
func setReady(conditions *[]metav1.Condition, generation int64, types ...string) {
	ready := metav1.Condition{Type: meshv1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: meshv1alpha1.ReasonReady, Message: "every other condition is True"}
	for _, t := range types {
		other := meta.FindStatusCondition(*conditions, t)
		if other == nil {
			other = &metav1.Condition{Type: t, Status: metav1.ConditionUnknown, Reason: meshv1alpha1.ReasonSyncing, Message: "not known yet"}
		}
		worse := other.Status == metav1.ConditionFalse && ready.Status != metav1.ConditionFalse ||
			other.Status == metav1.ConditionUnknown && ready.Status == metav1.ConditionTrue
		if worse {
			ready.Status, ready.Reason, ready.Message = other.Status, other.Reason, other.Message
		}
	}
	set(conditions, generation, ready)
}

// reporter tells of an object's status.
type reporter struct {
	client client.Client
	events events.EventRecorder
}

// report writes the status of an object where it has changed, and an event for each condition that turned: none for one that
// is as it should be from the first, which would be as much to write as all the rest. Nothing else of the object may have
// changed.
func (r reporter) report(ctx context.Context, before, object client.Object) error {
	if equality.Semantic.DeepEqual(before, object) {
		return nil
	}
	status := object.DeepCopyObject().(client.Object) //nolint:forcetypeassert // it is one
	if err := r.client.Status().Patch(ctx, status, client.MergeFrom(before)); err != nil {
		return client.IgnoreNotFound(fmt.Errorf("report the status of %s %s: %w", owned.KindOf(object), client.ObjectKeyFromObject(object), err))
	}
	were, are := *conditionsOf(before), *conditionsOf(object)
	for _, condition := range are {
		was := meta.FindStatusCondition(were, condition.Type)
		if condition.Type == meshv1alpha1.ConditionReady || was != nil && was.Status == condition.Status && was.Reason == condition.Reason {
			continue
		}
		kind := corev1.EventTypeNormal
		if worrying(condition) {
			kind = corev1.EventTypeWarning
		} else if was == nil && condition.Status == metav1.ConditionTrue {
			continue
		}
		r.events.Eventf(object, nil, kind, condition.Reason, condition.Type, "%s", shorten(condition.Message, maxNote))
	}
	return nil
}

// conditionsOf are the conditions of an object of this API.
func conditionsOf(object client.Object) *[]metav1.Condition {
	switch o := object.(type) {
	case *meshv1alpha1.MeshService:
		return &o.Status.Conditions
	case *meshv1alpha1.MeshGateway:
		return &o.Status.Conditions
	case *meshv1alpha1.ServiceIdentity:
		return &o.Status.Conditions
	}
	return &[]metav1.Condition{}
}

// worrying reports whether somebody may have to act on a condition, other than wait for what is under way.
func worrying(condition metav1.Condition) bool {
	switch condition.Reason {
	case meshv1alpha1.ReasonProgressing, meshv1alpha1.ReasonPending, meshv1alpha1.ReasonTerminating:
		return false
	case meshv1alpha1.ReasonSPIREUnavailable, meshv1alpha1.ReasonDeletionsHeld, meshv1alpha1.ReasonFederationDegraded, meshv1alpha1.ReasonGrantInvalid:
		return true
	}
	return condition.Status == metav1.ConditionFalse
}

// set sets a condition, with the generation that it speaks of and a message of bounded length.
func set(conditions *[]metav1.Condition, generation int64, condition metav1.Condition) {
	condition.ObservedGeneration = generation
	condition.Message = shorten(condition.Message, maxMessage)
	meta.SetStatusCondition(conditions, condition)
}

// shorten cuts a text down to a number of bytes, at a character.
func shorten(text string, limit int) string {
	const more = " ..."
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit-len(more)], "") + more
}

// names lists names for a message: the first few, and how many more there are.
func names(list []string) string {
	if more := len(list) - maxNamed; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(list[:maxNamed], ", "), more)
	}
	return strings.Join(list, ", ")
}
