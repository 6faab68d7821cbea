package controllers

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/spire"
	"github.com/jia-app/paymesh/internal/spire/registry"
)

// outcome is what SPIRE holds of an owner after the writes, as far as it told.
type outcome struct {
	state registry.State
	// decided is false where nothing is known yet of what SPIRE holds, or of whether the identity is accepted: the rest is
	// empty then.
	decided bool
	want    []spire.Entry  // the identity's own entries, without the aliases of its nodes
	missing []spire.Entry  // of the wanted entries and aliases, what SPIRE does not hold exactly as rendered
	failed  []spire.Result // the writes that SPIRE refused
	nodes   []mesh.Node
	// clusterWide is true where one entry is for all nodes; then nodes and unknown are empty.
	clusterWide bool
	unknown     []string // nodes that run the identity and that the API server does not show
	lingers     time.Duration
	// retry is how long it is until the first of the failed writes may be tried again; zero where that is not known.
	retry time.Duration
	// unfederated are the trust domains that the identity wants to federate with, and of which SPIRE has no bundle.
	unfederated []string
	// unnamed are the Services that the identity is not named after since there are too many.
	unnamed []string
	// braked are entries in surplus that stay because the deletion brake has tripped, and release is the command against it.
	braked  []string
	release string
	// planned is what a dry run would have written.
	planned spire.Plan
	// adoption is what becomes of the entries that the object tells to adopt.
	adoption adoption
}

// apply makes SPIRE hold the entries of an identity, with the aliases of the nodes that they are under. It makes one RPC
// where something is missing, and none where all is right.
func (r *ServiceIdentityReconciler) apply(ctx context.Context, key types.NamespacedName, identity mesh.Identity, accepted bool, problems []mesh.Problem) outcome {
	owner := identityOwner(key)
	outcome := outcome{state: r.SPIRE.State(), nodes: identity.Nodes, unknown: identity.UnknownNodes, unfederated: identity.MissingBundles, clusterWide: identity.ClusterWide, unnamed: identity.UnnamedServices}
	if outcome.decided = outcome.state.Synced && !undecided(key, problems); !outcome.decided {
		return outcome
	}
	if accepted {
		outcome.want = spire.Own(r.Cluster, identity)
	}
	parents := spire.Parents(r.Cluster, identity)
	want := slices.Concat(parents, outcome.want)
	held := r.held(owner, parents)
	plan := spire.Diff(want, held)
	unneeded := plan.Delete
	surplus := unneeded
	if len(identity.UnknownNodes) > 0 { // whether an entry is in surplus shows only when every node of its pods is known
		surplus, plan.Delete = nil, nil
		r.Surplus.Retain(owner, unneeded)
	} else if accepted { // else it is so by somebody's word, such as a grant that was taken back: that is not put off
		plan.Delete, outcome.lingers = r.Surplus.Due(owner, surplus)
		r.makeBeforeBreak(&plan, want, &outcome)
	}
	// A dry run deletes nothing that could be too much; nor is it known what the brake may forget while a node is not known.
	if outcome.state.Err == nil && !r.SPIRE.DryRun() && len(identity.UnknownNodes) == 0 {
		plan.Delete, outcome.braked = r.Brake.Pass(owner, surplus, plan.Delete)
		outcome.release = r.Brake.Command()
	}
	if accepted {
		keepCurrent(&plan, identity, held, unneeded)
		outcome.lingers = sooner(outcome.lingers, r.attested(identity.Nodes))
	}
	if outcome.state.Err == nil && r.SPIRE.DryRun() {
		outcome.planned = plan
	}
	if outcome.state.Err == nil && !plan.Empty() {
		r.write(ctx, owner, plan, held, &outcome)
		if outcome.refused() && len(identity.FederatesWith) > 0 {
			// A bundle may have gone just now. If so, its identities are woken; if this fails, the audit finds the same.
			_ = r.SPIRE.ReadBundles(ctx)
		}
	}
	left := spire.Diff(want, r.held(owner, parents))
	outcome.missing = slices.Concat(left.Create, left.Update)
	return outcome
}

// write writes a plan, but for what SPIRE has refused a short time ago.
func (r *ServiceIdentityReconciler) write(ctx context.Context, owner spire.Owner, plan spire.Plan, held []spire.Held, o *outcome) {
	waiting := r.Refusals.Hold(owner, &plan)
	tried := plan
	duplicates, err := r.withoutDuplicates(ctx, &plan, held)
	results, failed := r.SPIRE.Apply(ctx, plan)
	r.Surplus.Deleted(owner, deleted(results))
	o.state = r.SPIRE.State()
	if err = cmp.Or(err, failed); err != nil && o.state.Err == nil {
		o.state.Err = err
	}
	o.retry = r.Refusals.Note(owner, tried, slices.Concat(results, duplicates))
	o.failed = slices.Concat(failures(results), duplicates, waiting)
}

// keepCurrent has entries that stay for a while, though no pod needs them, say what the identity says now: they would give it
// to pods that it has ceased to select.
func keepCurrent(plan *spire.Plan, identity mesh.Identity, held []spire.Held, unneeded []string) {
	for _, entry := range held {
		if !slices.Contains(unneeded, entry.ID) || slices.Contains(plan.Delete, entry.ID) {
			continue
		}
		if current := spire.Current(identity, entry); !entry.Equal(current) {
			plan.Update = append(plan.Update, current)
		}
	}
}

// remove deletes every entry of an owner: of one that was deleted at once; of one that is just not there any more, after
// the grace time and as the brake lets it.
func (r *ServiceIdentityReconciler) remove(ctx context.Context, owner spire.Owner, atOnce bool) outcome {
	outcome := outcome{state: r.SPIRE.State()}
	if !outcome.state.Answers() {
		return outcome
	}
	plan := spire.Diff(nil, r.SPIRE.Of(owner))
	surplus := plan.Delete
	if !atOnce {
		plan.Delete, outcome.lingers = r.Surplus.Due(owner, surplus)
	}
	if r.SPIRE.DryRun() {
		outcome.planned = plan
	} else if !atOnce {
		plan.Delete, outcome.braked = r.Brake.Pass(owner, surplus, plan.Delete)
	}
	if plan.Empty() {
		return outcome
	}
	results, err := r.SPIRE.Apply(ctx, plan)
	r.Surplus.Deleted(owner, deleted(results))
	outcome.state.Err, outcome.failed = err, failures(results)
	return outcome
}

// makeBeforeBreak keeps the entries whose work wanted ones take over until SPIRE was seen to hold all of these.
func (r *ServiceIdentityReconciler) makeBeforeBreak(plan *spire.Plan, want []spire.Entry, o *outcome) {
	if r.SPIRE.Seen(want) {
		return
	}
	due := len(plan.Delete)
	plan.Delete = slices.DeleteFunc(plan.Delete, func(id string) bool { return spire.TakesOver(o.want, id) })
	if len(plan.Delete) < due && (o.lingers == 0 || r.RetryInterval < o.lingers) {
		o.lingers = r.RetryInterval // by then the audit has come by
	}
}

// withoutDuplicates takes out of a plan the updates after which an entry would be the same, to SPIRE, as one of somebody
// else's: SPIRE refuses that of an entry to be created only. It returns a result for each, as SPIRE would. It asks the server
// where an update changes what an entry is about; where it gets no answer, no such update is left.
func (r *ServiceIdentityReconciler) withoutDuplicates(ctx context.Context, plan *spire.Plan, held []spire.Held) ([]spire.Result, error) {
	moved := slices.DeleteFunc(slices.Clone(plan.Update), func(entry spire.Entry) bool {
		return slices.ContainsFunc(held, func(h spire.Held) bool { return h.ID == entry.ID && h.Similar(entry) })
	})
	if len(moved) == 0 || r.SPIRE.DryRun() {
		return nil, nil
	}
	foreign, asked := map[string][]spire.Held{}, error(nil)
	for _, entry := range moved {
		if _, known := foreign[entry.SPIFFEID]; !known && asked == nil {
			foreign[entry.SPIFFEID], asked = r.SPIRE.Foreign(ctx, entry.SPIFFEID)
		}
	}
	var duplicates []spire.Result
	plan.Update = slices.DeleteFunc(slices.Clone(plan.Update), func(entry spire.Entry) bool {
		if !slices.ContainsFunc(moved, func(m spire.Entry) bool { return m.ID == entry.ID }) {
			return false
		}
		for _, theirs := range foreign[entry.SPIFFEID] {
			if theirs.Similar(entry) {
				duplicates = append(duplicates, spire.Result{
					ID: entry.ID, Op: spire.OpUpdate, Code: spire.CodeAlreadyExists, Message: "similar entry already exists", Conflict: &theirs,
				})
				return true
			}
		}
		return asked != nil
	})
	return duplicates, asked
}

// attested is how long it is until the agent of one of the nodes must have attested by the UID of an earlier one no more; zero
// where there is none.
func (r *ServiceIdentityReconciler) attested(nodes []mesh.Node) (wait time.Duration) {
	for _, node := range nodes {
		if !node.Until.IsZero() {
			wait = sooner(wait, max(node.Until.Sub(r.Clock.Now()), 1))
		}
	}
	return wait
}

// held is what SPIRE holds of an owner and, of what belongs to others, of the entries that its own are under.
func (r *ServiceIdentityReconciler) held(owner spire.Owner, parents []spire.Entry) []spire.Held {
	held := slices.Clone(r.SPIRE.Of(owner))
	for _, parent := range parents {
		others, _ := spire.ParseEntryID(r.Cluster.Name, parent.ID)
		for _, entry := range r.SPIRE.Of(others) {
			if entry.ID == parent.ID {
				held = append(held, entry)
			}
		}
	}
	return held
}

// count is how many of the identity's own entries SPIRE holds.
func (o *outcome) count() *meshv1alpha1.EntryCount {
	missing := map[string]bool{}
	for _, entry := range o.missing {
		missing[entry.ID] = true
	}
	count := &meshv1alpha1.EntryCount{Wanted: int32(len(o.nodes))} //nolint:gosec // a cluster has fewer nodes
	if o.clusterWide {
		count.Wanted = 1
	}
	for _, entry := range o.want {
		if !missing[entry.ID] {
			count.Registered++
		}
	}
	count.Summary = fmt.Sprintf("%d/%d", count.Registered, count.Wanted)
	return count
}

// refused reports whether SPIRE answered and said no to a part.
func (o *outcome) refused() bool { return len(o.failed) > 0 }

// settled reports whether SPIRE answered, and said yes to everything, and nothing waits.
func (o *outcome) settled() bool {
	return o.state.Answers() && !o.refused() && o.lingers == 0 && len(o.braked) == 0 && o.planned.Empty()
}

// deleted are the entries that are gone by these results.
func deleted(results []spire.Result) (ids []string) {
	for _, result := range results {
		if result.Op == spire.OpDelete && result.OK() {
			ids = append(ids, result.ID)
		}
	}
	return ids
}

func failures(results []spire.Result) []spire.Result {
	return slices.DeleteFunc(slices.Clone(results), spire.Result.OK)
}

// undecided reports whether it is not known yet if the identity is accepted: then nothing of it is written or removed.
func undecided(key types.NamespacedName, problems []mesh.Problem) bool {
	return slices.ContainsFunc(problems, func(p mesh.Problem) bool {
		return p.Kind == mesh.KindServiceIdentity && p.Object == key && p.Reason == meshv1alpha1.ReasonSyncing
	})
}
