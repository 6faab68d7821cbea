// Package registry knows what the SPIRE server holds of this cluster's entries: plans go in and are written, what the
// server is seen to hold comes out, and whoever it concerns is told when that is not what was written.
package registry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/utils/clock"

	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/spire"
	"github.com/jia-app/paymesh/internal/spire/client"
)

// DefaultAuditInterval is within how long an entry that somebody deleted or changed by hand is noticed.
const DefaultAuditInterval = 30 * time.Second

// ServerAPI is what the registry needs of a SPIRE server. See client.Client.
type ServerAPI interface {
	List(ctx context.Context, q client.Query) (client.Page, error)
	Get(ctx context.Context, id string) (spire.Held, bool, error)
	Apply(ctx context.Context, plan spire.Plan) ([]spire.Result, error)
	// Bundles are the trust domains that the server has a bundle of, without its own.
	Bundles(ctx context.Context) ([]string, error)
}

// Options are what a registry may be told. The zero value is good.
type Options struct {
	// AuditInterval is within how long a change by somebody else is noticed; DefaultAuditInterval where it is zero. Where
	// the server has more than 13 pages of entries, whoever they belong to, it takes longer: a twenty-eighth of the interval
	// for each page, and for the bundles, and at worst twice that.
	AuditInterval time.Duration
	Clock         clock.Clock
	Logger        logr.Logger
	// DryRun writes nothing: Apply logs a plan instead.
	DryRun bool
	// Registerer takes the metrics; nil for none.
	Registerer prometheus.Registerer
}

// State says how far what the registry knows can be relied on.
type State struct {
	// Synced is true once everything has been read that the server holds. It stays true when the server goes away: what
	// was known is then still the best that is known.
	Synced bool
	// Err is why the server did not answer last, nil where it answers.
	Err error
	// Since is when Synced or whether there is an Err changed last.
	Since time.Time
}

// Answers reports whether what the registry knows is all that there is, and can be written to.
func (s State) Answers() bool { return s.Synced && s.Err == nil }

// Reading reports whether the first reading of what the server holds is under way.
func (s State) Reading() bool { return !s.Synced && s.Err == nil }

// Registry is the memory of what a SPIRE server holds of a cluster's entries. It is kept true by the answers to its own
// writes and by an audit that reads through the server all the time. It deletes nothing by itself, and it never holds or
// touches an entry that ParseEntryID does not know as this cluster's.
type Registry struct {
	api     ServerAPI
	cluster mesh.ClusterID
	options Options
	metrics metrics
	// poke wakes the audit where something else saw that the server went away.
	poke chan struct{}
	// pages is how many pages the server had last; the audit spreads over them. Only Start uses it.
	pages int

	mu     sync.Mutex
	memory memory
	writes writes
	// passes counts the audit's passes.
	passes    uint64
	state     State
	listeners []listener
	// drifted are the entries that were found otherwise than they were left, and have not been written since.
	drifted map[string]bool
	// logged is, of a dry run, what was last said to be written of each entry.
	logged map[string]string
	// bundles are the trust domains that the server has a bundle of.
	bundles         []string
	bundleListeners []func(trustDomains []string)
}

type listener struct {
	drifted  func(spire.Owner)
	everyone func()
}

// New makes a registry that knows nothing before it is started.
func New(api ServerAPI, cluster mesh.ClusterID, options Options) *Registry {
	if options.AuditInterval <= 0 {
		options.AuditInterval = DefaultAuditInterval
	}
	if options.Clock == nil {
		options.Clock = clock.RealClock{}
	}
	r := &Registry{
		api: api, cluster: cluster, options: options, poke: make(chan struct{}, 1),
		logged: map[string]string{}, drifted: map[string]bool{}, memory: newMemory(), writes: newWrites(), state: State{Since: options.Clock.Now()},
	}
	r.metrics = newMetrics(options.Registerer, r.Count, r.State)
	return r
}

// NeedLeaderElection is true: only one manager reads through the server and writes.
func (r *Registry) NeedLeaderElection() bool { return true }

// Notify adds a listener. drifted is called with the owner of an entry that was seen to be missing, changed or unexpected;
// everyone is called when all owners have to look again: when everything has been read, when the server went away, and
// when it came back. Neither may block for long. There is no call for what happened before.
func (r *Registry) Notify(drifted func(spire.Owner), everyone func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.listeners = append(r.listeners, listener{drifted, everyone})
}

// State says how far what the registry knows can be relied on.
func (r *Registry) State() State {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state
}

// Of returns what the server was last seen to hold of an owner, sorted by entry ID; the list is the caller's, the entries
// are not to be changed.
func (r *Registry) Of(owner spire.Owner) []spire.Held {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.memory.list(r.memory.byOwner[owner])
}

// Seen reports whether each of the entries was read from the server after it was last written: the answer to a write says
// that the server took it, this that it stayed.
func (r *Registry) Seen(entries []spire.Entry) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !slices.ContainsFunc(entries, func(entry spire.Entry) bool {
		held, ok := r.memory.entries[entry.ID]
		return !ok || !held.read || !held.Equal(entry)
	})
}

// Owners are those of a kind of which the server was last seen to hold entries, in no order.
func (r *Registry) Owners(kind spire.OwnerKind) []spire.Owner {
	r.mu.Lock()
	defer r.mu.Unlock()
	var owners []spire.Owner
	for owner := range r.memory.byOwner {
		if owner.Kind == kind {
			owners = append(owners, owner)
		}
	}
	return owners
}

// Aliases are the entries of the nodes that have, or had, a name; sorted by ID.
func (r *Registry) Aliases(node string) []spire.Held {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.memory.list(r.memory.byNode[node])
}

// HasChildren reports whether the server was last seen to hold entries of this cluster's whose parent has this SPIFFE ID.
// It looks through all of them: it is for what happens rarely.
func (r *Registry) HasChildren(parentID string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, entry := range r.memory.entries {
		if entry.ParentID == parentID {
			return true
		}
	}
	return false
}

// Below are the owners of the entries that hang on a parent.
func (r *Registry) Below(parentID string) []spire.Owner {
	r.mu.Lock()
	defer r.mu.Unlock()
	owners := map[spire.Owner]struct{}{}
	for _, entry := range r.memory.entries {
		if entry.ParentID == parentID {
			owners[entry.owner] = struct{}{}
		}
	}
	return slices.Collect(maps.Keys(owners))
}

// Count is how many entries of this cluster the server was last seen to hold.
func (r *Registry) Count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.memory.entries)
}

// Apply writes a plan: its creates, then its updates, then its deletes. There is a result for each entry that the server
// answered about, and the registry knows by them what the server now holds; an error says that the server went away, or
// that ctx ended, before it had answered about all.
// In a dry run nothing is written, and there are no results.
// What another Apply has just written exactly so is not written again. An empty plan asks nothing of the server.
func (r *Registry) Apply(ctx context.Context, plan spire.Plan) ([]spire.Result, error) {
	if plan.Empty() {
		return nil, nil
	}
	if state := r.State(); !state.Synced {
		return nil, errors.New("nothing is written to the SPIRE server before all of its entries have been read")
	}
	for _, id := range plan.IDs() {
		if _, ours := spire.ParseEntryID(r.cluster.Name, id); !ours {
			return nil, fmt.Errorf("entry %s is not one of cluster %s: nothing is written", id, r.cluster.Name)
		}
	}
	if r.options.DryRun {
		r.logPlan(plan)
		return nil, nil
	}
	plan, there := r.remaining(plan, false) // nobody has to wait for those
	if err := r.begin(ctx, plan.IDs()); err != nil {
		return there, fmt.Errorf("wait for another write of the same entries: %w", err)
	}
	left, results := r.remaining(plan, true)
	var err error
	if !left.Empty() {
		var written []spire.Result
		written, err = r.api.Apply(ctx, left)
		results = append(results, written...)
	}
	r.tell(r.end(plan.IDs(), left, results)...)
	if err != nil {
		if ctx.Err() == nil { // else it was the caller who went away
			r.setState(false, err)
		}
		r.wake() // the audit finds out when the server is back, and what became of entries that it did not answer about
	}
	return append(there, results...), err
}

// DryRun reports whether nothing is written.
func (r *Registry) DryRun() bool { return r.options.DryRun }

// logPlan logs what a plan would write, where that is not what was logged of the same entries before.
func (r *Registry) logPlan(plan spire.Plan) {
	said := map[string]string{}
	for _, entry := range plan.Create {
		said[entry.ID] = fmt.Sprintf("create %+v", entry)
	}
	for _, entry := range plan.Update {
		said[entry.ID] = fmt.Sprintf("update %+v", entry)
	}
	for _, id := range plan.Delete {
		said[id] = "delete"
	}
	r.mu.Lock()
	news := false
	for id, what := range said {
		news = news || r.logged[id] != what
		r.logged[id] = what
	}
	r.mu.Unlock()
	if news {
		r.options.Logger.Info("dry run: this would be written to the SPIRE server", "create", plan.Create, "update", plan.Update, "delete", plan.Delete)
	}
}

// begin waits until nobody else writes one of the entries, and keeps them from others until end.
func (r *Registry) begin(ctx context.Context, ids []string) error {
	for {
		r.mu.Lock()
		free, released := r.writes.begin(ids)
		r.mu.Unlock()
		if free {
			return nil
		}
		select {
		case <-released:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// remaining takes out of a plan what is there by now: of two owners that share a node, both want its alias made. Before the plan
// has begun, what somebody else writes just now is not known to be there.
func (r *Registry) remaining(plan spire.Plan, begun bool) (spire.Plan, []spire.Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var results []spire.Result
	left := func(entries []spire.Entry, op spire.Op) []spire.Entry {
		return slices.DeleteFunc(slices.Clone(entries), func(entry spire.Entry) bool {
			held, ok := r.memory.entries[entry.ID]
			if !ok || !held.Equal(entry) || r.writes.doubtful[entry.ID] || !begun && r.writes.busy[entry.ID] {
				return false
			}
			results = append(results, spire.Result{ID: entry.ID, Op: op, Entry: &held.Held})
			return true
		})
	}
	return spire.Plan{Create: left(plan.Create, spire.OpCreate), Update: left(plan.Update, spire.OpUpdate), Delete: plan.Delete}, results
}

// end takes over what the server said, and lets others write the entries. It returns the owners whose entries turned out
// to be gone.
func (r *Registry) end(ids []string, sent spire.Plan, results []spire.Result) []spire.Owner {
	r.mu.Lock()
	defer r.mu.Unlock()
	unanswered := map[string]bool{}
	for _, id := range sent.IDs() {
		unanswered[id] = true
	}
	var gone []spire.Owner
	for _, result := range results {
		delete(unanswered, result.ID)
		if result.OK() && r.drifted[result.ID] {
			delete(r.drifted, result.ID)
			r.metrics.repaired.Inc()
		}
		switch {
		case result.OK() && result.Op == spire.OpDelete:
			r.memory.remove(result.ID)
		case result.OK() && result.Entry != nil:
			r.memory.put(r.owner(result.ID), *result.Entry, r.passes)
		case result.Code == spire.CodeNotFound && result.Op == spire.OpUpdate:
			// The owner's next look finds it missing, and makes it.
			r.memory.remove(result.ID)
			gone = append(gone, r.owner(result.ID))
			r.drifted[result.ID] = true
			r.metrics.drift.WithLabelValues(string(driftMissing)).Inc()
		}
	}
	r.writes.end(ids, slices.Collect(maps.Keys(unanswered)))
	return gone
}

// owner is the owner of an entry that is known to be ours.
func (r *Registry) owner(id string) spire.Owner {
	owner, _ := spire.ParseEntryID(r.cluster.Name, id)
	return owner
}

// setState takes over whether the server answered, and tells everyone where that changed.
func (r *Registry) setState(synced bool, err error) {
	r.mu.Lock()
	before := r.state
	r.state.Synced, r.state.Err = before.Synced || synced, err
	turned := r.state.Synced != before.Synced || (err == nil) != (before.Err == nil)
	if turned {
		r.state.Since = r.options.Clock.Now()
	}
	count := len(r.memory.entries)
	r.mu.Unlock()
	switch {
	case !turned:
		return
	case err != nil:
		r.options.Logger.Info("the SPIRE server does not answer: its entries stay as they are, and it is asked again by itself", "reason", err.Error())
	default:
		r.options.Logger.Info("the SPIRE server answers", "entries", count)
	}
	for _, l := range r.listening() {
		l.everyone()
	}
}

// tell has owners look again.
func (r *Registry) tell(owners ...spire.Owner) {
	for _, owner := range owners {
		for _, l := range r.listening() {
			l.drifted(owner)
		}
	}
}

func (r *Registry) listening() []listener {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.listeners)
}

// wake has the audit look at the state again.
func (r *Registry) wake() {
	select {
	case r.poke <- struct{}{}:
	default: // it is awake
	}
}
