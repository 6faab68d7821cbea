package server

import (
	"cmp"
	"crypto/rand"
	"slices"
	"strconv"
	"strings"

	"github.com/jia-app/paymesh/internal/mesh"
)

const (
	// pageProxies are told of in one answer to another replica, and copied under the lock in one go.
	pageProxies = 500
	// journalSlack is how many objects that are gone the journal may hold beside as many as there are.
	journalSlack = 1000
)

// moment is a state of a replica's journal, as "epoch/number" for others. The zero moment is before all.
type moment struct {
	epoch  string
	number uint64
}

func (m moment) String() string { return m.epoch + "/" + strconv.FormatUint(m.number, 10) }

// parseMoment takes what it does not understand for the zero moment, after which everything is told.
func parseMoment(text string) moment {
	epoch, number, _ := strings.Cut(text, "/")
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return moment{}
	}
	return moment{epoch: epoch, number: n}
}

// journal says when what the proxies of an object hold has changed last, so that another replica is told just what is new
// to it: of thousands of proxies some change each second, and most do not. An epoch ends with the process, or where
// objects that are gone are forgotten.
type journal struct {
	now  moment
	last map[mesh.ProxyKey]uint64
}

func newJournal() journal {
	return journal{now: moment{epoch: rand.Text()}, last: map[mesh.ProxyKey]uint64{}}
}

func (j *journal) touch(key mesh.ProxyKey) {
	j.now.number++
	j.last[key] = j.now.number
}

// since are the objects that have changed since a moment, oldest change first; after another epoch all.
func (j *journal) since(m moment) []mesh.ProxyKey {
	if m.epoch != j.now.epoch {
		m = moment{}
	}
	if m.number == j.now.number {
		return nil
	}
	var keys []mesh.ProxyKey
	for key, number := range j.last {
		if number > m.number {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b mesh.ProxyKey) int { return cmp.Compare(j.last[a], j.last[b]) })
	return keys
}

// forget drops the objects that are gone.
func (j *journal) forget(gone func(mesh.ProxyKey) bool) {
	for key := range j.last {
		if gone(key) {
			delete(j.last, key)
		}
	}
	j.now.epoch = rand.Text()
}

// page is a part of what has changed since a moment: all of what the proxies of some objects hold.
type page struct {
	upTo moment
	// more says that other objects have changed, too.
	more    bool
	objects []object
}

type object struct {
	key mesh.ProxyKey
	// proxies are what the connected ones hold, by pod; there may be none (any more).
	proxies map[string]holdings
	wanted  wanted
}

// page copies what has changed since a moment, up to a page.
func (s *Server) page(since moment) (page, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping { // its proxies are on their way to another replica, not gone
		return page{}, errStopping
	}
	p := page{upTo: s.journal.now}
	proxies := 0
	for _, key := range s.journal.since(since) {
		if proxies >= s.pageProxies {
			p.more = true
			break
		}
		one := object{key: key}
		if c, known := s.configs[key]; known {
			one.proxies, one.wanted = s.byPod(key), c.wanted.judged()
		}
		for pod, h := range one.proxies {
			one.proxies[pod] = h.clone()
		}
		p.objects = append(p.objects, one)
		p.upTo.number = s.journal.last[key]
		proxies += max(1, len(one.proxies))
	}
	return p, nil
}

// touched says that what the proxies of an object hold has changed. The lock is held.
func (s *Server) touched(key mesh.ProxyKey) {
	s.journal.touch(key)
	if len(s.journal.last) > 2*(len(s.configs)+len(s.byKey))+journalSlack {
		s.journal.forget(func(key mesh.ProxyKey) bool {
			_, known := s.configs[key]
			_, connected := s.byKey[key]
			return !known && !connected
		})
	}
}
