package controllers

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/spire"
)

// adoption is which entries of somebody else's go, since those of an identity have taken their place.
type adoption struct {
	// waits are those that go when the grace time is over, stays those that may not, each with why.
	waits, stays []string
	// inTheWay are, in a dry run, the writes that SPIRE would refuse for such an entry that the object does not adopt.
	inTheWay []spire.Result
}

// adopted reports whether the object tells to adopt an entry.
func adopted(object *meshv1alpha1.ServiceIdentity, id string) bool {
	word := object.Annotations[meshv1alpha1.AnnotationAdoptEntries]
	return spire.Foreign(id) && (word == "*" || slices.Contains(strings.FieldsFunc(word, func(r rune) bool { return r == ',' || r == ' ' }), id))
}

// supplant makes the entries that cannot be as wanted since one to be adopted has the same parent, SPIFFE ID and selectors:
// beside that, for nobody where it is a new one, and then as wanted. Both are there after it.
func (r *ServiceIdentityReconciler) supplant(ctx context.Context, object *meshv1alpha1.ServiceIdentity, o *outcome) error {
	var blocked []spire.Entry
	for _, result := range o.failed {
		if result.Conflict == nil || !adopted(object, result.Conflict.ID) {
			continue
		}
		for _, entry := range o.want {
			if entry.ID == result.ID {
				blocked = append(blocked, entry)
			}
		}
	}
	if len(blocked) == 0 {
		return nil
	}
	held := r.SPIRE.Of(identityOwner(mesh.KeyOf(object)))
	missing := slices.DeleteFunc(slices.Clone(blocked), func(entry spire.Entry) bool {
		return slices.ContainsFunc(held, func(h spire.Held) bool { return h.ID == entry.ID })
	})
	results, err := r.SPIRE.Apply(ctx, spire.Plan{Create: spire.Beside(missing), Update: blocked})
	if err != nil {
		return err
	}
	ids := entryIDs(blocked)
	done := func(id string) bool { return slices.Contains(ids, id) }
	o.failed = append(slices.DeleteFunc(o.failed, func(f spire.Result) bool { return done(f.ID) }), failures(results)...)
	left := spire.Diff(o.want, r.SPIRE.Of(identityOwner(mesh.KeyOf(object))))
	o.missing = slices.Concat(slices.DeleteFunc(o.missing, func(e spire.Entry) bool { return done(e.ID) }), left.Create, left.Update)
	return nil
}

// adopt deletes, after the grace time, the entries of somebody else's that the object names and whose work its own do: by
// then every agent has got those. Nothing counts as long as not every entry of the object is registered.
func (r *ServiceIdentityReconciler) adopt(ctx context.Context, object *meshv1alpha1.ServiceIdentity, identity mesh.Identity, o *outcome) error {
	owner := identityOwner(mesh.KeyOf(object))
	if r.SPIRE.DryRun() {
		return r.foresee(ctx, object, identity, o)
	}
	if object.Annotations[meshv1alpha1.AnnotationAdoptEntries] == "" || !o.decided || !o.state.Answers() {
		r.Adopting.Forget(owner)
		return nil
	}
	if err := r.supplant(ctx, object, o); err != nil {
		return err
	}
	if len(o.want) == 0 || len(o.missing) > 0 || o.refused() || len(o.unknown) > 0 {
		r.Adopting.Forget(owner)
		return nil
	}
	theirs, err := r.SPIRE.Foreign(ctx, o.want[0].SPIFFEID)
	if err != nil {
		return err
	}
	ready, err := r.covered(ctx, object, identity, theirs, o)
	if err != nil {
		return err
	}
	held, stints := r.SPIRE.Of(owner), make([]string, len(ready))
	for i, entry := range ready {
		stints[i] = stint(entry, spire.InPlaceOf(r.Cluster, held, entry.Entry))
	}
	over, lingers := r.Adopting.Due(owner, stints)
	o.lingers = sooner(o.lingers, lingers)
	var due []string
	for i, entry := range ready {
		if slices.Contains(over, stints[i]) {
			due = append(due, entry.ID)
		} else {
			o.adoption.waits = append(o.adoption.waits, entry.ID)
		}
	}
	if len(due) == 0 {
		return nil
	}
	log.FromContext(ctx).Info("entries of somebody else's go, as the object says: its own have their place", "entries", due)
	return r.SPIRE.DeleteForeign(ctx, due)
}

// foresee shows, in a dry run, which entries of somebody else's would be in the way of those that it would write, and which
// ones would go in the end since the object adopts them.
func (r *ServiceIdentityReconciler) foresee(ctx context.Context, object *meshv1alpha1.ServiceIdentity, identity mesh.Identity, o *outcome) error {
	write := slices.Concat(o.planned.Create, o.planned.Update)
	if len(o.want) == 0 || len(o.unknown) > 0 || !o.state.Answers() ||
		object.Annotations[meshv1alpha1.AnnotationAdoptEntries] == "" && len(write) == 0 {
		return nil
	}
	theirs, err := r.SPIRE.Foreign(ctx, o.want[0].SPIFFEID)
	if err != nil {
		return err
	}
	held := r.SPIRE.Of(identityOwner(mesh.KeyOf(object)))
	for _, entry := range write {
		if slices.ContainsFunc(held, func(h spire.Held) bool { return h.ID == entry.ID && h.Similar(entry) }) {
			continue // SPIRE takes it: what an entry is about does not change
		}
		for _, other := range theirs {
			if other.Similar(entry) && !adopted(object, other.ID) {
				o.adoption.inTheWay = append(o.adoption.inTheWay, spire.Result{ID: entry.ID, Conflict: &other})
			}
		}
	}
	if len(o.adoption.inTheWay) > 0 {
		o.lingers = sooner(o.lingers, r.RetryInterval) // by then it may be gone
	}
	ready, err := r.covered(ctx, object, identity, theirs, o)
	if err != nil || len(ready) == 0 {
		return err
	}
	ids := make([]string, len(ready))
	for i := range ready {
		ids[i] = ready[i].ID
	}
	o.planned.Delete = slices.Concat(o.planned.Delete, ids)
	return r.SPIRE.DeleteForeign(ctx, ids)
}

// covered are, of the entries of somebody else's with the identity's SPIFFE ID, those that the object tells to adopt and that
// may go since its own have their place. Of the others that it tells to adopt the outcome says why they stay.
func (r *ServiceIdentityReconciler) covered(ctx context.Context, object *meshv1alpha1.ServiceIdentity, identity mesh.Identity, theirs []spire.Held, o *outcome) (ready []spire.Held, err error) {
	theirs = slices.DeleteFunc(theirs, func(entry spire.Held) bool { return !adopted(object, entry.ID) })
	if len(theirs) == 0 {
		return nil, nil
	}
	pods, err := r.podsOf(ctx, identity)
	if err != nil {
		return nil, err
	}
	for _, entry := range theirs {
		why := spire.Uncovered(r.Cluster, o.want, entry.Entry, pods)
		if node, left := spire.Attesting(o.nodes, entry.Entry, r.AgentTTL, r.Clock.Now()); why == "" && left > 0 && !spire.ForPodsGone(entry.Entry, pods) {
			why = "it may be what the agent of Node " + node.Name + " has the ID by, which may be known by the UID of an earlier Node until it attests again: by " +
				node.Registered.Add(r.AgentTTL).UTC().Format(time.RFC3339)
		}
		if why != "" {
			o.adoption.stays = append(o.adoption.stays, entry.ID+" ("+why+")")
		} else {
			ready = append(ready, entry)
		}
	}
	if len(o.adoption.stays) > 0 {
		o.lingers = sooner(o.lingers, r.RetryInterval)
	}
	return ready, nil
}

// stint names what a grace time is counted for: an entry of somebody else's, and ours in its place as they are now. Where one
// of these is new, or was made or written anew, it is another stint, of which nothing is over: no agent may have it yet.
func stint(theirs spire.Held, ours []spire.Held) string {
	name := theirs.ID
	for _, held := range ours {
		name += fmt.Sprintf(" %s@%d.%d", held.ID, held.CreatedAt, held.Revision)
	}
	return name
}

// podsOf has the UID of every pod, with whether the identity selects it.
func (r *ServiceIdentityReconciler) podsOf(ctx context.Context, identity mesh.Identity) (map[string]bool, error) {
	list := &corev1.PodList{}
	if err := r.Client.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list the Pods, to see whose entries may be adopted: %w", err)
	}
	pods := make(map[string]bool, len(list.Items))
	for i := range list.Items {
		pods[string(list.Items[i].UID)] = identity.Selects(&list.Items[i])
	}
	return pods, nil
}

// sooner is the shorter of two waits, of which zero is none.
func sooner(x, y time.Duration) time.Duration {
	if x == 0 || y != 0 && y < x {
		return y
	}
	return x
}

// words says what becomes of the entries to adopt; empty where there are none.
func (a adoption) words() string {
	var parts []string
	if len(a.waits) > 0 {
		parts = append(parts, "entries of somebody else's with the same SPIFFE ID go when the grace time is over: "+names(a.waits))
	}
	if len(a.stays) > 0 {
		parts = append(parts, "these entries of somebody else's are not adopted: "+names(a.stays))
	}
	return strings.Join(parts, "; ")
}

// foreseen says, for the status of a dry run, what SPIRE would refuse, and what becomes of the entries to adopt.
func (a adoption) foreseen() (text string) {
	if len(a.inTheWay) > 0 {
		_, why := refusal(a.inTheWay)
		text = "; but " + why
	}
	if words := a.words(); words != "" {
		text += "; " + words
	}
	return text
}
