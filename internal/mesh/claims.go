package mesh

import (
	"cmp"
	"iter"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/descriptor"
)

// want is a path that a candidate wants under each of its host names, and what is served there.
type want struct {
	path   string // the HTTP method, a space, and the template in its normal form
	native bool   // gRPC as it comes
	rpc    string // package.Service/Method
	pattern
}

// claim is a path that a candidate wants under one host name.
type claim struct {
	by *candidate
	at host
	want
	// recorded says that the service has been served there, and has claimed it ever since.
	recorded bool
	granted  bool
}

// host is a host name of a gateway.
type host struct {
	gateway types.NamespacedName
	name    string
}

// pathClaims are those that stand against others: what is recorded, and what has been granted.
//
// A candidate gets all of its claims, or none. Nobody gets what a service is recorded as being served at, but that service;
// where two are, or none is, the candidate that comes first gets it. So an edit of an older object takes no traffic away
// from a younger one, and who edits what is served keeps it.
type pathClaims map[host]*patterns

// newPathClaims enters what the candidates want and have on record. The rest is entered as it is granted: many may want much that
// they do not get.
func newPathClaims(candidates []*candidate) pathClaims {
	all := pathClaims{}
	for _, c := range candidates {
		c.incumbent = true
		for _, hostname := range c.route.Hostnames {
			at := host{c.gateway.Key, hostname}
			for i := range c.wants {
				if !c.service.recorded[servedAt{at, c.wants[i].path}] {
					c.incumbent = false
					continue
				}
				kept := &claim{by: c, at: at, want: c.wants[i], recorded: true}
				all.enter(kept)
				c.recorded = append(c.recorded, kept)
			}
		}
	}
	return all
}

func (a pathClaims) enter(c *claim) {
	if a[c.at] == nil {
		a[c.at] = &patterns{}
	}
	a[c.at].add(c)
}

// claims are what the candidate wants, under each host name.
func (c *candidate) claims() iter.Seq[claim] {
	return func(yield func(claim) bool) {
		for _, hostname := range c.route.Hostnames {
			at := host{c.gateway.Key, hostname}
			for _, w := range c.wants {
				if !yield(claim{by: c, at: at, want: w, recorded: c.service.recorded[servedAt{at, w.path}]}) {
					return
				}
			}
		}
	}
}

// judge says why a candidate cannot have its claims; nil where it can. Those that come before it have theirs.
func (a pathClaims) judge(c *candidate) *refusal {
	own := map[string]string{} // under each host name the same
	for _, wanted := range c.wants {
		if other, ok := own[wanted.path]; ok && other != wanted.rpc {
			return refuse(meshv1alpha1.ReasonRouteClaimed, ".methods", "%s and %s both have %s: leave one out, or change its option google.api.http", other, wanted.rpc, wanted.path)
		}
		own[wanted.path] = wanted.rpc
	}
	for wanted := range c.claims() {
		if holder := a.holder(&wanted); holder != nil {
			what := ""
			if holder.path != wanted.path {
				what = " takes some of the same paths as " + holder.path + ", which"
			}
			return refuse(meshv1alpha1.ReasonRouteClaimed, "", "%s at MeshGateway %s with %s%s belongs to expose %s of MeshService %s, which had it first: choose another host name, or leave %s out",
				wanted.path, wanted.at.gateway, wanted.at.name, what, holder.by.route.Name, holder.by.service.Key, wanted.rpc)
		}
	}
	return nil
}

func (a pathClaims) grant(c *candidate) {
	for _, wanted := range c.recorded {
		wanted.granted = true
	}
	for wanted := range c.claims() {
		if !wanted.recorded {
			granted := wanted
			granted.granted = true
			a.enter(&granted)
		}
	}
}

// holder is the claim of somebody else that stands against one; nil where none does.
func (a pathClaims) holder(wanted *claim) *claim {
	var holder *claim
	if a[wanted.at] == nil {
		return nil
	}
	a[wanted.at].overlapping(wanted.pattern, func(other *claim) {
		if !wanted.rivals(other) || !other.granted && (!other.recorded || wanted.recorded) {
			return
		}
		if holder == nil || cmp.Or(cmp.Compare(other.by.rank, holder.by.rank), cmp.Compare(other.path, holder.path), cmp.Compare(other.rpc, holder.rpc)) < 0 {
			holder = other
		}
	})
	return holder
}

// rivals reports whether only one of two claims that overlap can be granted. Within one service the path that matches less
// comes first, and both are served; only not two routes of native gRPC, whose methods the service's rules are made of.
func (c *claim) rivals(other *claim) bool {
	return c.by != other.by && (c.by.service != other.by.service || c.path == other.path || c.native && other.native)
}

// An exposure that has more is not recorded, and so not served: a status has its limits.
const (
	maxPaths     = 256
	maxPathBytes = 16384
)

func tooMany(wants []want) *refusal {
	paths, bytes := pathsOf(wants), 0
	for _, path := range paths {
		bytes += len(path)
	}
	if len(paths) <= maxPaths && bytes <= maxPathBytes {
		return nil
	}
	return refuse(meshv1alpha1.ReasonTooManyPaths, ".methods", "its methods have %d paths of together %d bytes, more than the %d of together %d that can be recorded: leave some out, or expose them in several of spec.expose",
		len(paths), bytes, maxPaths, maxPathBytes)
}

// pathsOf are the paths, sorted, each once.
func pathsOf(wants []want) []string {
	paths := make([]string, len(wants))
	for i, wanted := range wants {
		paths[i] = wanted.path
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// wants are what the route wants under each of its host names.
func (r Route) wants() []want {
	var all []want
	add := func(httpMethod string, template descriptor.Template, rpc string, native bool) {
		all = append(all, want{path: httpMethod + " " + template.Normal(), native: native, rpc: rpc, pattern: patternOf(httpMethod, template)})
	}
	for _, method := range r.Methods {
		name := method.FullName()
		for _, binding := range method.Bindings {
			add(binding.HTTPMethod, binding.Template, name, false)
		}
		if r.GRPC {
			add("POST", descriptor.NormalTemplate("/"+name), name, true)
		}
	}
	return all
}
