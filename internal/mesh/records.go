package mesh

import (
	"cmp"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
)

// maxPorts is how many ports a service has at most.
const maxPorts = 8

// allot gives each port of a service its mesh port, for as long as it has its name: the recorded one, else the lowest that
// is free, in the spec's order. The pods of the old and the new revision have the same proxy config, and callers may know
// of a change later than the pods: no port may move because another comes or goes.
func allot(ports []meshv1alpha1.ServicePort, records []meshv1alpha1.PortRecord) []Port {
	taken := map[int32]string{}
	for _, record := range records {
		wanted := slices.ContainsFunc(ports, func(port meshv1alpha1.ServicePort) bool { return port.Name == record.Name })
		if wanted && taken[record.MeshPort] == "" && record.MeshPort >= FirstMeshPort && record.MeshPort < FirstMeshPort+maxPorts {
			taken[record.MeshPort] = record.Name
		}
	}
	recorded := map[string]int32{}
	for number, name := range taken {
		recorded[name] = max(recorded[name], number)
	}
	var allotted []Port
	for _, port := range ports {
		number := recorded[port.Name]
		for free := int32(FirstMeshPort); number == 0; free++ {
			if taken[free] == "" {
				number, taken[free] = free, port.Name
			}
		}
		allotted = append(allotted, Port{Name: port.Name, Port: port.Port, MeshPort: number, Protocol: port.Protocol})
	}
	slices.SortFunc(allotted, func(x, y Port) int { return cmp.Compare(x.MeshPort, y.MeshPort) })
	return allotted
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

// isRecorded reports whether a service has a record by the name of the exposure.
func (s *service) isRecorded(exposure *meshv1alpha1.Exposure) bool {
	return slices.ContainsFunc(s.object.Status.Exposures, func(record meshv1alpha1.ExposureRecord) bool { return record.Name == exposure.Name })
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
func (b *builder) keepRecords(s *service, candidates map[*meshv1alpha1.Exposure]*candidate, all claims) {
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
			if record.Name != exposure.Name || gatewayOf(record) != referenced(s.Key.Namespace, exposure.Gateway) {
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
func (a claims) taken(s *service, record meshv1alpha1.ExposureRecord, path string) bool {
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
