package server

import (
	"maps"
	"slices"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
)

// maxUnanswered responses of a type are remembered until the proxy answers. One is usual; more come of requests that
// change what is subscribed to while a response is under way.
const maxUnanswered = 16

// subscription is what a stream asked for of one type, and what the proxy holds of it.
type subscription struct {
	typeURL string
	held    held
	// watch is the open question; nil while a response is under way.
	watch *watch
	// greeted is set once the proxy need not be told that there is nothing: Envoy starts up only after an answer.
	greeted bool
	// unanswered are the responses that the proxy has not accepted or rejected yet, oldest first.
	unanswered []response
	// outgoing is the last SotW response that was made; only then is known what it holds.
	outgoing response
	// again are the names that the proxy has newly subscribed to: it may have dropped what it had of them, so that the
	// protocol wants them sent whatever was sent before.
	again map[string]bool
	// suspects are parts of rejected responses, to be sent on their own: which resource it was, the proxy's text often
	// does not say, and the others are good.
	suspects [][]string
	// had is the version of all resources that a SotW client has from an earlier stream, until it is compared; current are
	// the versions that it stands for.
	had     string
	current map[string]string
	// cost is what its names have been charged with.
	cost int
}

// watch is a question that the library waits for an answer to.
type watch struct {
	cache.Subscription
	send func(answer)
	// full is SotW: no removals, and all of what is subscribed to in each response.
	full bool
}

// answer is what a proxy is to be sent of one type.
type answer struct {
	resources []*discoveryv3.Resource
	removed   []string
	// known is what the proxy has been sent, after this.
	known map[string]string
	// version is that of all resources of the type.
	version string
}

// response is an answer that is under way.
type response struct {
	nonce    string
	message  *discoveryv3.DiscoveryResponse // SotW only
	versions map[string]string
	removed  []string
}

// answered takes note of what a request says of a response: error_detail makes it a NACK. It says whether it was one.
func (s *subscription) answered(nonce string, detail *rpcstatus.Status) (known, nack bool, names []string) {
	at := slices.IndexFunc(s.unanswered, func(r response) bool { return nonce != "" && r.nonce == nonce })
	if at < 0 {
		return false, false, nil
	}
	r := s.unanswered[at]
	s.unanswered = slices.Delete(s.unanswered, at, at+1)
	if detail == nil {
		s.held.accept(r.versions, r.removed)
		return true, false, nil
	}
	versions := r.versions
	if r.message != nil { // SotW repeats what was accepted before
		versions = maps.Clone(versions)
		maps.DeleteFunc(versions, func(name, version string) bool { return s.held.accepted[name] == version })
	}
	s.held.reject(versions, detail.GetMessage())
	names = slices.Sorted(maps.Keys(versions))
	if half := len(names) / 2; half > 0 && r.message == nil {
		s.suspects = append(s.suspects, names[:half], names[half:])
	}
	return true, true, names
}

// sent takes note of a response that goes out.
func (s *subscription) sent(r response) {
	if len(s.unanswered) == maxUnanswered {
		s.unanswered = slices.Delete(s.unanswered, 0, 1)
	}
	s.unanswered = append(s.unanswered, r)
}

// next is what the open watch is to be answered; ok is false where the proxy has been sent all that is wanted.
// Clusters go only with keep false: while a proxy may still route to them, they are left to it.
func (s *subscription) next(want table, keep bool) (_ answer, ok bool) {
	if s.watch.full {
		return s.nextFull(want)
	}
	known := maps.Clone(s.watch.ReturnedResources())
	a := answer{known: known, version: want.version()}
	var names []string
	for _, name := range s.asked(want) {
		if version, has := known[name]; !has || version != want[name].version || s.again[name] {
			names = append(names, name)
		}
	}
	// A listener has to go before, or with, the one that takes its port; Envoy looks at removals first. A cluster goes
	// after what takes its place. Routes and endpoints the proxy drops by itself, whatever it is told.
	if s.typeURL == resource.ListenerType || s.typeURL == resource.ClusterType && !keep && len(names) == 0 {
		for name := range known {
			if _, has := want[name]; !has {
				a.removed = append(a.removed, name)
				delete(known, name)
			}
		}
		slices.Sort(a.removed)
	}
	if len(names) == 0 && len(a.removed) == 0 {
		names = s.suspect(want)
	}
	for _, name := range names {
		known[name] = want[name].version
		a.resources = append(a.resources, &discoveryv3.Resource{Name: name, Version: want[name].version, Resource: want[name].body})
	}
	s.again = nil
	return a, len(names) > 0 || len(a.removed) > 0 || !s.greeted && s.watch.IsWildcard()
}

// asked are the names of what is wanted and subscribed to, sorted.
func (s *subscription) asked(want table) []string {
	if s.watch.IsWildcard() {
		return slices.Sorted(maps.Keys(want))
	}
	var names []string
	for name := range s.watch.SubscribedResources() {
		if _, has := want[name]; has {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// suspect takes the next part of a rejected response, as far as it is still wanted as it was.
func (s *subscription) suspect(want table) []string {
	asked := s.asked(want)
	for len(s.suspects) > 0 {
		names := slices.DeleteFunc(s.suspects[0], func(name string) bool {
			r, rejected := s.held.rejected[name]
			return !rejected || r.version != want[name].version || !slices.Contains(asked, name)
		})
		s.suspects = s.suspects[1:]
		if len(names) > 0 {
			return names
		}
	}
	return nil
}

// nextFull is next for SotW. Each response has all that is subscribed to: of listeners and clusters the protocol demands
// it, and of the others it makes a good response heal a rejected one.
func (s *subscription) nextFull(want table) (_ answer, ok bool) {
	a := answer{known: map[string]string{}, version: want.version()}
	changed := s.had != "" && s.had != a.version
	if s.had == a.version {
		s.current = want.versions()
		s.held = newHeld(s.current)
	}
	s.had = ""
	known := s.watch.ReturnedResources()
	if s.current != nil {
		known = s.current
	}
	for _, name := range s.asked(want) {
		version, has := known[name]
		changed = changed || !has || version != want[name].version
		a.known[name] = want[name].version
		a.resources = append(a.resources, &discoveryv3.Resource{Name: name, Version: want[name].version, Resource: want[name].body})
	}
	if s.typeURL == resource.ListenerType || s.typeURL == resource.ClusterType {
		changed = changed || len(known) > len(a.known) // something went
	}
	return a, changed || !s.greeted && s.watch.IsWildcard()
}
