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

// shownHost is what is served under some host names: those that the same exposures have share their routes.
type shownHost struct {
	names  int
	serves []*candidate
	size   int
}

// add lets an exposure in, or says that its gateway has no room for it.
func (r rooms) add(c *candidate) *refusal {
	of := r[c.gateway]
	if of == nil {
		of = &room{hosts: map[string]*shownHost{}, ports: map[EndpointKey]bool{}}
		r[c.gateway] = of
	}
	port, named := EndpointKey{Service: c.route.Service, PortName: c.route.PortName}, of.named
	if !of.ports[port] {
		named += port.namedSize()
		if len(of.ports) == MaxNamed || named > MaxNamedBytes {
			return refuse(meshv1alpha1.ReasonGatewayFull, "",
				"with it the routes of MeshGateway %s would lead to %d ports of services, whose names take %d KiB, and it has room for %d, of %d KiB: expose methods of a port that leads there already, or choose another gateway",
				c.gateway.Key, len(of.ports)+1, (named+1023)>>10, MaxNamed, MaxNamedBytes>>10)
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
		return refuse(meshv1alpha1.ReasonGatewayFull, "",
			"with it the routes of MeshGateway %s would take %d KiB, and it has room for %d: give it host names of its own, since each path that shares one with other transcoded exposures takes descriptors of its own; or make the messages of its methods smaller, expose fewer methods, or choose another gateway",
			c.gateway.Key, size>>10, gatewayRoom>>10)
	}
	of.size, of.named, of.ports[port] = size, named, true
	for _, hostname := range c.route.Hostnames {
		old := of.hosts[hostname]
		of.hosts[hostname] = moved[old]
		if old != nil {
			old.names--
		}
	}
	return nil
}

// with is what the host names have that get one exposure more.
func (h *shownHost) with(c *candidate) *shownHost {
	now := &shownHost{}
	if h != nil {
		now.serves = append(now.serves, h.serves...)
	}
	now.serves = append(now.serves, c)
	shared := now.shared()
	for _, c := range now.serves {
		now.size += c.size(shared)
	}
	return now
}

// shared reports whether several are transcoded: then each route has the descriptors of its method, and else the only one
// that is transcoded has its own once.
func (h *shownHost) shared() bool {
	transcoded := 0
	for _, c := range h.serves {
		if c.route.Transcode {
			transcoded++
		}
	}
	return transcoded > 1
}

// describe gives each method descriptors of its own where it needs them.
func (r rooms) describe() {
	for _, of := range r {
		for _, h := range of.hosts {
			if !h.shared() {
				continue
			}
			for _, c := range h.serves {
				c.describeEach()
			}
		}
	}
}

// size is what the routes of an exposure take under one host name.
func (c *candidate) size(shared bool) int {
	size := 0
	if c.route.Transcode && !shared {
		size += len(c.route.Descriptors)
	}
	for i, method := range c.route.Methods {
		if c.route.GRPC {
			size += routeSize
		}
		for _, binding := range method.Bindings {
			size += routeSize + len(binding.Template)
			if shared {
				size += c.sizeOfMethod(i)
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
