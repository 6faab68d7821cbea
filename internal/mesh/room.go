package mesh

import (
	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
)

const (
	// gatewayRoom is how large the routes of a gateway may become, in bytes. Every manager holds them, and each of its proxies
	// several times as much.
	gatewayRoom = 4 << 20
	// routeSize is what a route takes at most, beside its path and its descriptors.
	routeSize = 1 << 10
)

// rooms are how the gateways' room is used by the exposures that have been let in.
type rooms map[*gateway]*room

type room struct {
	hosts map[string]*shownHost
	size  int
	// ports are those of services that the routes lead to, and named what the names of their clusters take.
	ports map[EndpointKey]bool
	named int
}

// shownHost is what is served under some host names: those that the same exposures have share their routes. It is a list, so
// that one exposure more costs the same however many there are: last, and what was there before it came.
type shownHost struct {
	names  int
	last   *candidate
	before *shownHost
	// alone is the one that is transcoded, where no other is. Where several are, shared is true: then each route has the
	// descriptors of its method, and else alone has its own once.
	alone  *candidate
	shared bool
	size   int
}

// fit says that its gateway has no room for an exposure, or takes the room for it once it is let in.
func (r rooms) fit(c *candidate) (take func(), refused *refusal) {
	of := r[c.gateway]
	if of == nil {
		of = &room{hosts: map[string]*shownHost{}, ports: map[EndpointKey]bool{}}
		r[c.gateway] = of
	}
	port, named := EndpointKey{Service: c.route.Service, PortName: c.route.PortName}, of.named
	if !of.ports[port] { // a gateway has one cluster more, for its probes
		named += port.namedSize()
		if len(of.ports) == MaxNamed-1 || named > MaxNamedBytes {
			return nil, refuse(meshv1alpha1.ReasonGatewayFull, "",
				"with it the routes of MeshGateway %s would lead to %d ports of services, whose names take %d KiB, and it has room for %d, of %d KiB: expose methods of a port that leads there already, or choose another gateway",
				c.gateway.Key, len(of.ports)+1, (named+1023)>>10, MaxNamed-1, MaxNamedBytes>>10)
		}
	}
	moved := map[*shownHost]*shownHost{} // nil is what a new host name has
	for _, hostname := range c.route.Hostnames {
		old := of.hosts[hostname]
		if moved[old] == nil {
			moved[old] = old.with(c)
		}
		moved[old].names++
	}
	size := of.size
	for old, now := range moved {
		size += now.size
		if old != nil && old.names == now.names {
			size -= old.size
		}
	}
	if size > gatewayRoom {
		return nil, refuse(meshv1alpha1.ReasonGatewayFull, "",
			"with it the routes of MeshGateway %s would take %d KiB or more, and it has room for %d: give it host names of its own, since each path that shares one with other transcoded exposures takes descriptors of its own; or make the messages of its methods smaller, expose fewer methods, or choose another gateway",
			c.gateway.Key, size>>10, gatewayRoom>>10)
	}
	return func() {
		of.size, of.named, of.ports[port] = size, named, true
		for _, hostname := range c.route.Hostnames {
			old := of.hosts[hostname]
			of.hosts[hostname] = moved[old]
			if old != nil {
				old.names--
			}
		}
	}, nil
}

// with is what the host names have that get one exposure more.
func (h *shownHost) with(c *candidate) *shownHost {
	now := &shownHost{last: c, before: h}
	if h != nil {
		now.alone, now.shared, now.size = h.alone, h.shared, h.size
	}
	switch {
	case !c.route.Transcode || now.shared:
	case now.alone == nil:
		now.alone = c
	default:
		now.size += now.alone.size(true) - now.alone.size(false)
		now.alone, now.shared = nil, true
	}
	now.size += c.size(now.shared)
	return now
}

// describe gives exposures the descriptors that they need: by now they have room.
func (r rooms) describe() {
	for _, of := range r {
		seen := map[*shownHost]bool{}
		for _, h := range of.hosts {
			if h.alone != nil {
				h.alone.describe()
			}
			for at := h; h.shared && at != nil && !seen[at]; at = at.before {
				seen[at] = true
				at.last.describeEach()
			}
		}
	}
}

// size is what the routes of an exposure take under one host name. What is over the room of a gateway is not counted further:
// descriptors can be large, and methods many.
func (c *candidate) size(shared bool) int {
	known := &c.sizeAlone
	if shared {
		known = &c.sizeShared
	}
	if *known == 0 {
		*known = c.measure(shared)
	}
	return *known
}

func (c *candidate) measure(shared bool) int {
	size := 0
	if c.route.Transcode && !shared {
		size += c.service.api.SizeOfCut(c.route.methodNames()...)
	}
	for _, method := range c.route.Methods {
		if size > gatewayRoom {
			break
		}
		if c.route.GRPC {
			size += routeSize
		}
		if len(method.Bindings) == 0 {
			continue
		}
		each := routeSize
		if shared {
			each += c.service.api.SizeOfCut(method.FullName())
		}
		for _, binding := range method.Bindings {
			size += each + len(binding.Template.String())
		}
	}
	return size
}

// describe gives the exposure its descriptors.
func (c *candidate) describe() {
	if c.route.Descriptors == nil {
		c.route.Descriptors = c.service.api.Cut(c.route.methodNames()...)
	}
}

// describeEach gives each method descriptors of its own.
func (c *candidate) describeEach() {
	if !c.route.Transcode || c.described {
		return
	}
	c.described = true
	for i, method := range c.route.Methods {
		c.route.Methods[i].Descriptors = c.service.api.Cut(method.FullName())
	}
}
