package server

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/xds"
)

// objectConfig is what the proxies of one object get.
type objectConfig struct {
	id       spiffeid.ID
	contents contents
	// wanted are the versions in contents.
	wanted  wanted
	refs    []xds.EndpointRef
	version string // of all of them but the addresses
}

// Set says what the proxies of an object get, and the SPIFFE ID that they must have. The same again does nothing. Where
// it returns an error, what was set before holds on. Streams with another ID are ended, those that waited for the object
// are answered.
func (s *Server) Set(key mesh.ProxyKey, id spiffeid.ID, r xds.Resources) error {
	err := s.set(key, id, r)
	s.locked(func() {
		if (err == nil) != (s.problems[key] == nil) {
			s.changed(key)
		}
		if s.problems[key] = err; err == nil {
			delete(s.problems, key)
		}
	})
	return err
}

func (s *Server) set(key mesh.ProxyKey, id spiffeid.ID, r xds.Resources) error {
	if !id.MemberOf(s.options.Cluster.TrustDomain) {
		return fmt.Errorf("set what the proxies of %s get: SPIFFE ID %q is not of the trust domain %s", key, id, s.options.Cluster.TrustDomain)
	}
	of, err := newContents(r)
	if err != nil {
		return fmt.Errorf("set what the proxies of %s get: %w", key, err)
	}
	s.locked(func() {
		old, known := s.configs[key]
		c := &objectConfig{id: id, contents: of, refs: slices.Clone(r.Endpoints), version: r.Version()}
		var before table
		if known {
			before = old.contents[resource.EndpointType]
		}
		if c.contents[resource.EndpointType], err = s.endpointTable(c.refs, old, before); err != nil {
			err = fmt.Errorf("set what the proxies of %s get: %w", key, err)
			return
		}
		c.wanted = c.contents.wanted()
		if known && old.id == id && slices.Equal(old.refs, c.refs) && equalVersions(old.wanted, c.wanted) {
			return
		}
		s.use(key, old, c)
		if s.configs[key] = c; !known {
			s.metrics.objects.Inc()
		}
		s.changed(key)
		s.configured(key)
	})
	return err
}

func equalVersions(a, b wanted) bool {
	return maps.EqualFunc(a, b, maps.Equal)
}

// Remove forgets an object. Its proxies keep what they have, and wait as those of an object that is not known yet: its
// pods go before it does.
func (s *Server) Remove(key mesh.ProxyKey) {
	s.locked(func() {
		delete(s.problems, key)
		old, known := s.configs[key]
		if !known {
			return
		}
		s.use(key, old, nil)
		delete(s.configs, key)
		s.metrics.objects.Dec()
		s.changed(key)
		s.configured(key)
	})
}

// configured brings the streams of an object up to what is set.
func (s *Server) configured(key mesh.ProxyKey) {
	for _, st := range s.byKey.sorted(key) {
		if err := st.admit(); err != nil {
			st.end(err)
			continue
		}
		st.pump()
	}
}

// SetEndpoints says where a port of a service is reached, in any order. Only the endpoints of those change that call it.
func (s *Server) SetEndpoints(key mesh.EndpointKey, addresses []netip.AddrPort) {
	addresses = slices.Clone(addresses)
	slices.SortFunc(addresses, netip.AddrPort.Compare)
	addresses = slices.Compact(addresses)
	s.locked(func() {
		if slices.Equal(s.endpoints[key], addresses) {
			return
		}
		if s.endpoints[key] = addresses; len(addresses) == 0 {
			delete(s.endpoints, key)
		}
		entries := map[string]entry{}
		for user := range s.users[key] {
			c := s.configs[user]
			for _, ref := range c.refs {
				if ref.Key != key {
					continue
				}
				if _, made := entries[ref.Name]; !made {
					e, err := newEntry(xds.Assignment(ref, addresses))
					if err != nil { // marshalling strings and numbers
						s.options.Log.Error(err, "endpoints cannot be sent", "endpoints", ref.Name)
						continue
					}
					entries[ref.Name] = e
				}
				c.contents[resource.EndpointType][ref.Name] = entries[ref.Name]
				c.wanted[resource.EndpointType][ref.Name] = entries[ref.Name].version
			}
			for _, st := range s.byKey.sorted(user) {
				st.pump()
			}
		}
	})
}

// endpointTable has an assignment for each reference, empty where no address is known: a proxy does not start without.
// What old has is taken over.
func (s *Server) endpointTable(refs []xds.EndpointRef, old *objectConfig, before table) (table, error) {
	t := table{}
	for _, ref := range refs {
		if ref.Name == "" {
			return nil, errors.New("an endpoint reference has no name")
		}
		if e, has := before[ref.Name]; has && slices.Contains(old.refs, ref) {
			t[ref.Name] = e
			continue
		}
		e, err := newEntry(xds.Assignment(ref, s.endpoints[ref.Key]))
		if err != nil {
			return nil, fmt.Errorf("endpoints %q: %w", ref.Name, err)
		}
		t[ref.Name] = e
	}
	return t, nil
}

// use keeps the index of who calls what.
func (s *Server) use(key mesh.ProxyKey, old, c *objectConfig) {
	if old != nil {
		for _, ref := range old.refs {
			if delete(s.users[ref.Key], key); len(s.users[ref.Key]) == 0 {
				delete(s.users, ref.Key)
			}
		}
	}
	if c == nil {
		return
	}
	for _, ref := range c.refs {
		if s.users[ref.Key] == nil {
			s.users[ref.Key] = map[mesh.ProxyKey]struct{}{}
		}
		s.users[ref.Key][key] = struct{}{}
	}
}
