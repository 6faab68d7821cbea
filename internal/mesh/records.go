package mesh

import (
	"cmp"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
)

// maxPorts is how many ports a service has at most.
const maxPorts = 8

// numberRecord says of something with a name which number it has.
type numberRecord struct {
	name   string
	number int32
}

// numbered are the numbers that are given out: count of them, from first on.
type numbered struct{ first, count int32 }

// valid are those of the records that can be kept to: each number and each name once. What is wanted comes first.
func (n numbered) valid(records []numberRecord, wanted func(name string) bool) []numberRecord {
	var valid []numberRecord
	for _, want := range []bool{true, false} {
		for _, r := range records {
			taken := slices.ContainsFunc(valid, func(other numberRecord) bool { return other.name == r.name || other.number == r.number })
			if wanted(r.name) == want && !taken && r.number >= n.first && r.number < n.first+n.count {
				valid = append(valid, r)
			}
		}
	}
	return valid
}

// allot gives each name a number for as long as it is there: the recorded one, else the lowest that is free, in the order of
// the names. The pods of the old and the new revision have the same proxy config, and who calls them may know of a change
// later than they: nothing may move because something else comes or goes. What is recorded and not wanted any more is gone;
// where it is spared nobody gets its number, unless there is no other.
func (n numbered) allot(names []string, records []numberRecord, spare bool) (numbers map[string]int32, gone []numberRecord) {
	numbers = map[string]int32{}
	taken := map[int32]bool{}
	for _, r := range n.valid(records, func(name string) bool { return slices.Contains(names, name) }) {
		switch {
		case slices.Contains(names, r.name):
			numbers[r.name], taken[r.number] = r.number, true
		case spare && len(names)+len(gone) < int(n.count):
			gone, taken[r.number] = append(gone, r), true
		}
	}
	for _, name := range names {
		for free := n.first; numbers[name] == 0; free++ {
			if !taken[free] {
				numbers[name], taken[free] = free, true
			}
		}
	}
	return numbers, gone
}

// portsOf gives each port of a service its mesh port.
func portsOf(object *meshv1alpha1.MeshService) []Port {
	var names []string
	for _, port := range object.Spec.Ports {
		names = append(names, port.Name)
	}
	var records []numberRecord
	for _, r := range object.Status.Ports {
		records = append(records, numberRecord{r.Name, r.MeshPort})
	}
	numbers, _ := numbered{FirstMeshPort, maxPorts}.allot(names, records, false)
	var ports []Port
	for _, port := range object.Spec.Ports {
		ports = append(ports, Port{Name: port.Name, Port: port.Port, MeshPort: numbers[port.Name], Protocol: port.Protocol})
	}
	slices.SortFunc(ports, func(x, y Port) int { return cmp.Compare(x.MeshPort, y.MeshPort) })
	return ports
}

// PortRecords are what is to be recorded of the service's ports.
func (s Service) PortRecords() []meshv1alpha1.PortRecord {
	var records []meshv1alpha1.PortRecord
	for _, port := range s.Ports {
		records = append(records, meshv1alpha1.PortRecord{Name: port.Name, MeshPort: port.MeshPort})
	}
	slices.SortFunc(records, func(x, y meshv1alpha1.PortRecord) int { return cmp.Compare(x.Name, y.Name) })
	return records
}

// listenersOf gives each listener of a gateway its target port, and says which were there before. Those are spared: a pod of
// an older revision has the certificate of a listener that is gone where it was.
func listenersOf(object *meshv1alpha1.MeshGateway) (listeners []GatewayListener, gone []meshv1alpha1.ListenerRecord) {
	var names []string
	for _, listener := range object.Spec.Listeners {
		names = append(names, listener.Name)
	}
	var records []numberRecord
	for _, r := range object.Status.Listeners {
		records = append(records, numberRecord{r.Name, r.TargetPort})
	}
	numbers, old := numbered{FirstGatewayPort, GatewayPorts}.allot(names, records, true)
	for _, listener := range object.Spec.Listeners {
		listeners = append(listeners, GatewayListener{
			Name: listener.Name, Port: listener.Port, TargetPort: numbers[listener.Name], SecretName: string(listener.TLS.SecretName),
		})
	}
	slices.SortFunc(listeners, func(x, y GatewayListener) int { return cmp.Compare(x.TargetPort, y.TargetPort) })
	for _, r := range old {
		gone = append(gone, meshv1alpha1.ListenerRecord{Name: r.name, TargetPort: r.number})
	}
	return listeners, gone
}

// ListenerRecords are what is to be recorded of the gateway's listeners; of those that are gone, too, as long as pods of an
// older revision run.
func (g Gateway) ListenerRecords(older bool) []meshv1alpha1.ListenerRecord {
	var records []meshv1alpha1.ListenerRecord
	for _, listener := range g.Listeners {
		records = append(records, meshv1alpha1.ListenerRecord{Name: listener.Name, TargetPort: listener.TargetPort})
	}
	if older {
		records = append(records, g.Gone...)
	}
	slices.SortFunc(records, func(x, y meshv1alpha1.ListenerRecord) int { return cmp.Compare(x.Name, y.Name) })
	return records
}

// servedAt is a path under a host name.
type servedAt struct {
	at   host
	path string
}

// recordedOf is where a service is recorded as being served, by whichever of its exposures: one may get another name.
func recordedOf(object *meshv1alpha1.MeshService) map[servedAt]bool {
	recorded := map[servedAt]bool{}
	for _, record := range object.Status.Exposures {
		for _, hostname := range record.Hostnames {
			for _, path := range record.Paths {
				recorded[servedAt{host{gatewayOf(record), string(hostname)}, path}] = true
			}
		}
	}
	return recorded
}

func gatewayOf(record meshv1alpha1.ExposureRecord) types.NamespacedName {
	return types.NamespacedName{Namespace: string(record.Gateway.Namespace), Name: string(record.Gateway.Name)}
}

// hasRecord reports whether the service has a record at that gateway by the name of the exposure.
func (c *candidate) hasRecord() bool {
	return slices.ContainsFunc(c.service.object.Status.Exposures, func(record meshv1alpha1.ExposureRecord) bool {
		return record.Name == c.exposure.Name && gatewayOf(record) == c.gateway.Key
	})
}

// record says where the exposure of the candidate is served.
func (c *candidate) record() meshv1alpha1.ExposureRecord {
	record := meshv1alpha1.ExposureRecord{
		Name:      c.exposure.Name,
		Gateway:   meshv1alpha1.ObjectReference{Namespace: meshv1alpha1.NamespaceName(c.gateway.Key.Namespace), Name: meshv1alpha1.ObjectName(c.gateway.Key.Name)},
		Hostnames: slices.Sorted(slices.Values(c.exposure.Hostnames)),
		Paths:     pathsOf(c.wants),
		Port:      c.route.PortName,
		Size:      int32(c.size(false)), //nolint:gosec // what is served has room
	}
	if c.described {
		record.SharedSize = int32(c.size(true)) //nolint:gosec // as above
	}
	return record
}

// outgrew reports whether an incumbent takes more of the gateway's room than is recorded of it, or may: nothing is of an
// exposure that has got another name, port or host name. It keeps its paths, and comes after those that take what they took.
// Where it takes no more than before there is room for it still.
func (c *candidate) outgrew() bool {
	records := c.service.object.Status.Exposures
	i := slices.IndexFunc(records, func(record meshv1alpha1.ExposureRecord) bool { return record.Name == c.exposure.Name })
	if i < 0 {
		return true
	}
	record := records[i]
	for _, hostname := range c.exposure.Hostnames {
		if !slices.Contains(record.Hostnames, hostname) {
			return true
		}
	}
	return gatewayOf(record) != c.gateway.Key || record.Port != c.route.PortName ||
		c.size(false) > int(record.Size) || record.SharedSize > 0 && c.size(true) > int(record.SharedSize)
}

// keepRecords keeps the records of the exposures of a service that are not served just now, of what they still want and
// nobody else has got meanwhile: keys of a gateway that are gone for a minute make nobody lose a path. The candidates are
// those that their gateways would serve; of the others it is not known what they want, and their record stands against nobody.
func (b *builder) keepRecords(s *service, candidates map[*meshv1alpha1.Exposure]*candidate, all pathClaims) {
	for i := range s.object.Spec.Expose {
		exposure := &s.object.Spec.Expose[i]
		c := candidates[exposure]
		if c != nil && c.served {
			s.Exposures = append(s.Exposures, c.record())
			continue
		}
		var wanted []string
		if c != nil {
			wanted = pathsOf(c.wants)
		}
		for _, record := range s.object.Status.Exposures {
			if record.Name != exposure.Name || gatewayOf(record) != referenced(s.object, exposure.Gateway) {
				continue
			}
			kept := meshv1alpha1.ExposureRecord{Name: record.Name, Gateway: record.Gateway}
			for _, hostname := range record.Hostnames {
				if slices.Contains(exposure.Hostnames, hostname) {
					kept.Hostnames = append(kept.Hostnames, hostname)
				}
			}
			for _, path := range record.Paths {
				if (c == nil || slices.Contains(wanted, path)) && !all.taken(s, kept, path) {
					kept.Paths = append(kept.Paths, path)
				}
			}
			if len(kept.Hostnames) > 0 && len(kept.Paths) > 0 {
				s.Exposures = append(s.Exposures, kept)
			}
		}
	}
	slices.SortFunc(s.Exposures, func(x, y meshv1alpha1.ExposureRecord) int { return cmp.Compare(x.Name, y.Name) })
}

// taken reports whether, under one of the host names of a record, another service is served at paths that overlap one of it.
func (a pathClaims) taken(s *service, record meshv1alpha1.ExposureRecord, path string) bool {
	taken := false
	for _, hostname := range record.Hostnames {
		if held := a[host{gatewayOf(record), string(hostname)}]; held != nil {
			held.overlapping(parsePattern(path), func(other *claim) {
				taken = taken || other.granted && other.by.service != s
			})
		}
	}
	return taken
}
