package controllers

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/spire"
)

// setAccepted says whether the model took the identity up, and if not, why.
func setAccepted(object *meshv1alpha1.ServiceIdentity, identity mesh.Identity, problems []mesh.Problem) {
	condition := metav1.Condition{
		Type: meshv1alpha1.ConditionAccepted, Status: metav1.ConditionTrue,
		Reason: meshv1alpha1.ReasonAccepted, Message: "the SPIFFE ID is granted to the namespace, and nobody else has it",
	}
	if identity.UnreadGrant != "" {
		condition.Reason = meshv1alpha1.ReasonGrantInvalid
		condition.Message = "the SPIFFE ID was granted to the namespace and stays so for now, but of the annotation " +
			meshv1alpha1.AnnotationSPIFFEPathPrefixes + " of Namespace " + object.Namespace + " " + identity.UnreadGrant
	}
	for _, problem := range problems {
		if problem.Kind != mesh.KindServiceIdentity || problem.Object != mesh.KeyOf(object) {
			continue
		}
		was := meta.FindStatusCondition(object.Status.Conditions, condition.Type)
		if problem.Reason == meshv1alpha1.ReasonSyncing && was != nil && (was.Status == metav1.ConditionTrue || was.Reason == meshv1alpha1.ReasonIDClaimed) {
			return // who has the ID was decided, and holds: without entries it is all that remembers
		}
		condition.Status, condition.Reason, condition.Message = metav1.ConditionFalse, problem.Reason, problem.Message
		if problem.Reason == meshv1alpha1.ReasonSyncing {
			condition.Status = metav1.ConditionUnknown
		}
	}
	set(&object.Status.Conditions, object.Generation, condition)
}

// setRegistered says whether SPIRE holds every entry that the identity needs, and if not, what stands in the way.
func setRegistered(object *meshv1alpha1.ServiceIdentity, accepted bool, o outcome) {
	condition := metav1.Condition{Type: meshv1alpha1.ConditionRegistered, Status: metav1.ConditionUnknown}
	switch {
	case o.state.Err != nil:
		condition.Reason = meshv1alpha1.ReasonSPIREUnavailable
		condition.Message = "the SPIRE server does not answer; its entries stay as they are, pods that have the identity keep it for another " + object.Status.OutageBudget +
			" at least from " + awaySince(object, o).UTC().Format(time.RFC3339) + " on, and this is retried automatically: " + o.state.Err.Error()
	case !o.decided:
		condition.Reason, condition.Message = meshv1alpha1.ReasonSyncing, "the manager is reading what the SPIRE server holds"
	case o.refused():
		condition.Status = metav1.ConditionFalse
		condition.Reason, condition.Message = refusal(o.failed)
	case !o.planned.Empty():
		condition.Status, condition.Reason, condition.Message = metav1.ConditionFalse, meshv1alpha1.ReasonDryRun, planned(o.planned)
		if accepted && len(o.missing) == 0 && len(o.unknown) == 0 {
			condition.Status = metav1.ConditionTrue
		} else {
			condition.Message += o.adoption.foreseen()
		}
	case !accepted && len(o.braked) > 0:
		condition.Status, condition.Reason = metav1.ConditionFalse, meshv1alpha1.ReasonDeletionsHeld
		condition.Message = "nothing is registered any more, see the condition Accepted; " + holding(o)
	case !accepted:
		condition.Status, condition.Reason, condition.Message = metav1.ConditionFalse, meshv1alpha1.ReasonNotAccepted, "nothing is registered: see the condition Accepted"
	case len(o.unknown) > 0:
		condition.Reason = meshv1alpha1.ReasonNodeUnknown
		condition.Message = "pods are bound to nodes that the API server does not show: " + names(o.unknown)
	case len(o.missing) > 0:
		// SPIRE took the write, and was seen to hold something else since: the audit has already asked for another look.
		condition.Status, condition.Reason = metav1.ConditionFalse, meshv1alpha1.ReasonDrifted
		condition.Message = "the SPIRE server does not hold these entries as rendered: " + names(entryIDs(o.missing))
	case len(o.braked) > 0:
		condition.Status, condition.Reason = metav1.ConditionTrue, meshv1alpha1.ReasonDeletionsHeld
		condition.Message = "the SPIRE server holds every entry that is needed; " + holding(o)
	case o.clusterWide:
		condition.Status, condition.Reason = metav1.ConditionTrue, meshv1alpha1.ReasonRegistered
		condition.Message = "the SPIRE server holds the entry for every node of the cluster"
	case len(o.nodes) == 0:
		condition.Status, condition.Reason = metav1.ConditionTrue, meshv1alpha1.ReasonNoPods
		condition.Message = "no pod of service account " + object.Spec.ServiceAccountName + " that the identity selects is bound to a node: no entry is needed yet"
	default:
		condition.Status, condition.Reason = metav1.ConditionTrue, meshv1alpha1.ReasonRegistered
		condition.Message = "the SPIRE server holds the entries for " + names(nodeNames(o.nodes))
	}
	if condition.Status == metav1.ConditionTrue {
		qualify(&condition, o)
	}
	set(&object.Status.Conditions, object.Generation, condition)
}

// awaySince is since when SPIRE is known not to answer: a manager that has just started knows of it by the status.
func awaySince(object *meshv1alpha1.ServiceIdentity, o outcome) time.Time {
	was := meta.FindStatusCondition(object.Status.Conditions, meshv1alpha1.ConditionRegistered)
	if was != nil && was.Reason == meshv1alpha1.ReasonSPIREUnavailable && was.LastTransitionTime.Time.Before(o.state.Since) {
		return was.LastTransitionTime.Time
	}
	return o.state.Since
}

// qualify says of an identity that has all that it needs what is not as its author may think. Every message is kept; of the
// reasons, that of deletions that wait for somebody's word comes before all others.
func qualify(registered *metav1.Condition, o outcome) {
	reason := registered.Reason
	if words := o.adoption.words(); words != "" {
		if o.planned.Empty() { // else it is what a dry run says beside
			reason = meshv1alpha1.ReasonAdopting
		}
		registered.Message += "; " + words
	}
	if again := earlierNames(o.nodes); len(again) > 0 {
		registered.Message += "; these nodes were registered again, and the SPIRE server may know their agents by the UIDs of before until they attest again: for these there are entries, too: " + names(again)
	}
	if len(o.unnamed) > 0 {
		registered.Message += "; more Services select its pods than a certificate has names of, and these are left out: " + names(o.unnamed)
	}
	if len(o.unfederated) > 0 {
		reason = meshv1alpha1.ReasonFederationDegraded
		registered.Message += fmt.Sprintf("; the SPIRE server has no bundle of these trust domains of spec.federatesWith, which are left out until it has: %s. Give it one, for example with spire-server bundle set -id spiffe://%s",
			names(o.unfederated), o.unfederated[0])
	}
	if registered.Reason != meshv1alpha1.ReasonDeletionsHeld {
		registered.Reason = reason
	}
}

// holding words what the brake holds back of an identity.
func holding(o outcome) string {
	return "these stay, for too many entries of the cluster would go at a time: " + names(o.braked) +
		". They go when an administrator says that this is meant: " + o.release
}

// planned words what a dry run would have written.
func planned(plan spire.Plan) string {
	var parts []string
	for _, part := range []struct {
		op  string
		ids []string
	}{{"create", entryIDs(plan.Create)}, {"update", entryIDs(plan.Update)}, {"delete", plan.Delete}} {
		if len(part.ids) > 0 {
			parts = append(parts, part.op+" "+names(part.ids))
		}
	}
	return "the manager runs with --dry-run and writes nothing to SPIRE; it would " + strings.Join(parts, "; ")
}

// setDeleting says why a deleted identity is still there.
func setDeleting(object *meshv1alpha1.ServiceIdentity, o outcome) {
	condition := metav1.Condition{Type: meshv1alpha1.ConditionRegistered, Status: metav1.ConditionUnknown}
	switch {
	case o.refused():
		condition.Status = metav1.ConditionFalse
		condition.Reason, condition.Message = refusal(o.failed)
		condition.Message = "the object goes when its entries are deleted: " + condition.Message
	case !o.planned.Empty():
		condition.Status, condition.Reason = metav1.ConditionFalse, meshv1alpha1.ReasonDryRun
		condition.Message = "the object goes when its entries are deleted: " + planned(o.planned)
	case o.state.Err != nil:
		condition.Reason = meshv1alpha1.ReasonSPIREUnavailable
		condition.Message = "the object goes when its entries are deleted, and the SPIRE server does not answer; if it is gone for good, remove the finalizer " +
			meshv1alpha1.FinalizerEntries + " by hand: " + o.state.Err.Error()
	default:
		condition.Reason, condition.Message = meshv1alpha1.ReasonSyncing, "the object goes when its entries are deleted; the manager is reading what the SPIRE server holds"
	}
	set(&object.Status.Conditions, object.Generation, condition)
}

// refusal words the writes that SPIRE refused. An entry of somebody else's in the way comes first: the user can act on it.
func refusal(failed []spire.Result) (reason, message string) {
	for _, result := range failed {
		if other := result.Conflict; other != nil {
			return meshv1alpha1.ReasonConflict, fmt.Sprintf(
				"SPIRE holds entry %s, which is not this object's, with the same parent, SPIFFE ID and selectors (%s, %s, %s), so %s cannot be created: %s, and this one follows automatically",
				other.ID, other.ParentID, other.SPIFFEID, strings.Join(other.Selectors, " "), result.ID, remedy(other))
		}
	}
	first := failed[0]
	return meshv1alpha1.ReasonRejected, fmt.Sprintf("the SPIRE server refused %d of the entries; of %s it says %s: %s", len(failed), first.ID, first.Code, first.Message)
}

// remedy says what to do about an entry in the way. No object adopts one of paymesh's, or one that is an alias itself.
func remedy(other *spire.Held) string {
	byHand := "delete that entry (spire-server entry delete -entryID " + other.ID + ")"
	switch {
	case !spire.Foreign(other.ID):
		return "a ServiceIdentity that is still there and has left it removes it after the grace time; else " + byHand
	case other.ForAgents():
		return byHand
	}
	return byHand + ", or adopt it with the annotation " + meshv1alpha1.AnnotationAdoptEntries
}

func entryIDs(entries []spire.Entry) []string {
	ids := make([]string, len(entries))
	for i := range entries {
		ids[i] = entries[i].ID
	}
	return ids
}

// nodeNames are the names of the nodes that the API server shows.
func nodeNames(nodes []mesh.Node) (list []string) {
	for _, node := range nodes {
		if node.Until.IsZero() {
			list = append(list, node.Name)
		}
	}
	return list
}

// earlierNames are those of the nodes that the API server showed before, each with until when it counts.
func earlierNames(nodes []mesh.Node) (list []string) {
	for _, node := range nodes {
		if !node.Until.IsZero() {
			list = append(list, cmp.Or(node.Name, "one that is not known any more")+" (until "+node.Until.UTC().Format(time.RFC3339)+")")
		}
	}
	return list
}
