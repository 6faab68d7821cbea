package mesh

import (
	"fmt"
	"maps"
	"slices"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
)

const (
	// gatewayRoom is how large the routes of a gateway may become, in bytes. Every manager holds them, and each of its proxies
	// several times as much.
	gatewayRoom = 4 << 20
	// routeSize is what a route takes at most, beside its path and its descriptors.
	routeSize = 1 << 10
)

// withRoom leaves out those for whom their gateway has no room after those before them, and says so.
func (b *builder) withRoom(candidates []*candidate) []*candidate {
	of := map[*gateway][]*candidate{}
	var fit []*candidate
	for _, c := range candidates {
		with := append(slices.Clip(of[c.gateway]), c)
		if size := sizeOf(with); size > gatewayRoom {
			b.unexposed(c.service, c.exposure, *refuse(meshv1alpha1.ReasonGatewayFull, "",
				"with it the routes of MeshGateway %s would take %d KiB, and it has room for %d: give it host names of its own, since each path that shares one with other transcoded exposures takes descriptors of its own; or make the messages of its methods smaller, expose fewer methods, or choose another gateway",
				c.gateway.Key, size>>10, gatewayRoom>>10))
			continue
		}
		of[c.gateway] = with
		fit = append(fit, c)
	}
	for _, all := range of {
		for _, host := range hosts(all) {
			if host.shared {
				for _, c := range host.serves {
					c.describeEach()
				}
			}
		}
	}
	return fit
}

// shownHost is what is served under one host name, or several.
type shownHost struct {
	serves []*candidate
	shared bool // by several that are transcoded
}

// hosts are the distinct ones, as a gateway has them.
func hosts(candidates []*candidate) []shownHost {
	served := map[string][]int{}
	for i, c := range candidates {
		for _, hostname := range c.route.Hostnames {
			served[hostname] = append(served[hostname], i)
		}
	}
	known := map[string]bool{}
	var all []shownHost
	for _, hostname := range slices.Sorted(maps.Keys(served)) {
		key := fmt.Sprint(served[hostname])
		if known[key] {
			continue
		}
		known[key] = true
		h, transcoded := shownHost{}, 0
		for _, i := range served[hostname] {
			h.serves = append(h.serves, candidates[i])
			if candidates[i].route.Transcode {
				transcoded++
			}
		}
		h.shared = transcoded > 1
		all = append(all, h)
	}
	return all
}

// sizeOf is what the routes of a gateway with these exposures take: where one alone is transcoded under a host name its
// descriptors are there once, and else with each route.
func sizeOf(candidates []*candidate) int {
	size := 0
	for _, h := range hosts(candidates) {
		for _, c := range h.serves {
			if c.route.Transcode && !h.shared {
				size += len(c.route.Descriptors)
			}
			for i, method := range c.route.Methods {
				if c.route.GRPC {
					size += routeSize
				}
				for _, binding := range method.Bindings {
					size += routeSize + len(binding.Template)
					if h.shared {
						size += c.sizeOfMethod(i)
					}
				}
			}
		}
	}
	return size
}

// sizeOfMethod is that of the descriptors of one method.
func (c *candidate) sizeOfMethod(i int) int {
	if c.sizes == nil {
		c.sizes = make([]int, len(c.route.Methods))
	}
	if c.sizes[i] == 0 {
		c.sizes[i] = len(apis.cut(c.service.api, c.service.descriptors, c.route.Methods[i:i+1]))
	}
	return c.sizes[i]
}

// describeEach gives each method descriptors of its own.
func (c *candidate) describeEach() {
	if !c.route.Transcode {
		return
	}
	for i := range c.route.Methods {
		c.route.Methods[i].Descriptors = apis.cut(c.service.api, c.service.descriptors, c.route.Methods[i:i+1])
	}
}
