package descriptor

import (
	"cmp"
	linked "container/list"
	"crypto/sha256"
	"sync"
	"weak"
)

// Cache remembers what descriptor sets say, by the hash of their content: each Build of a mesh reads those of all services that
// a gateway serves, of which hardly one has changed since the last. A descriptor set says the same whenever it is asked, so that
// what is made of it does not depend on the cache; only the work does. It holds at most 64 MiB: what was asked for longest ago
// goes first. The zero Cache is ready, and any number of goroutines may use one.
type Cache struct {
	maxBytes int        // zero is defaultBytes
	reading  sync.Mutex // one set is parsed at a time: it takes 30 times its size, for a moment
	// apart is the last one that was taken apart to be cut, and what it says.
	apartOf *contents
	apart   *cutter

	mu     sync.Mutex
	bytes  int
	recent linked.List // of *entry, the last one asked for first
	of     map[[sha256.Size]byte]*linked.Element
	hashes map[place][sha256.Size]byte
	work   Work
}

// Work counts what a Cache had to do since nobody had before: sets that were parsed, and taken apart to be cut; and cuts of
// which the size was measured, and that were made.
type Work struct{ Parsed, TakenApart, Measured, Made int }

// place is where the content of a ConfigMap is in memory, where nobody changes it: each version is read into a place of its
// own. Once it is forgotten there, what takes its room is at another place: that is what a weak pointer promises.
type place struct {
	start weak.Pointer[byte]
	bytes int
}

const defaultBytes = 64 << 20

// maxPlaces is how many hashes are remembered; so many that a gateway's worth of services does not get near.
const maxPlaces = 4096

type entry struct {
	hash     [sha256.Size]byte
	contents *contents
	err      error
	cuts     int // bytes of what was made of it
}

// Work is what it has done so far.
func (c *Cache) Work() Work {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.work
}

func (c *Cache) count(work *int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*work++
}

// Read is what a FileDescriptorSet says; it is parsed once for each content. Nobody may change raw. The error says what a proxy
// would refuse, and what to do about it.
func (c *Cache) Read(raw []byte) (*Set, error) {
	of, err := c.read(raw)
	if err != nil {
		return nil, err
	}
	return &Set{contents: of, raw: raw, cache: c}, nil
}

func (c *Cache) read(raw []byte) (*contents, error) {
	hash := c.hash(raw)
	if known := c.get(hash); known != nil {
		return known.contents, known.err
	}
	c.reading.Lock()
	defer c.reading.Unlock()
	if known := c.get(hash); known != nil {
		return known.contents, known.err
	}
	read := &entry{hash: hash}
	if read.contents, read.err = parse(raw); read.err == nil {
		read.contents.hash = hash
	}
	c.count(&c.work.Parsed)
	c.put(read)
	return read.contents, read.err
}

// hash is that of the content. To hash what each of some hundred services has takes longer than all else that a Build does.
func (c *Cache) hash(raw []byte) [sha256.Size]byte {
	if len(raw) == 0 {
		return sha256.Sum256(nil)
	}
	at := place{weak.Make(&raw[0]), len(raw)}
	c.mu.Lock()
	hash, known := c.hashes[at]
	c.mu.Unlock()
	if known {
		return hash
	}
	hash = sha256.Sum256(raw)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hashes == nil || len(c.hashes) >= maxPlaces {
		c.hashes = map[place][sha256.Size]byte{}
	}
	c.hashes[at] = hash
	return hash
}

func (c *Cache) get(hash [sha256.Size]byte) *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	element := c.of[hash]
	if element == nil {
		return nil
	}
	c.recent.MoveToFront(element)
	return entryOf(element)
}

func (c *Cache) put(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == nil {
		c.of = map[[sha256.Size]byte]*linked.Element{}
	}
	c.of[e.hash] = c.recent.PushFront(e)
	c.bytes += e.size()
	c.shrink()
}

// grew counts what has been made of a descriptor set, if that is still remembered.
func (c *Cache) grew(of *contents, bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	element := c.of[of.hash]
	if element == nil || entryOf(element).contents != of {
		return
	}
	entryOf(element).cuts += bytes
	c.bytes += bytes
	c.shrink()
}

func (c *Cache) shrink() {
	for c.bytes > cmp.Or(c.maxBytes, defaultBytes) && c.recent.Len() > 0 {
		oldest := entryOf(c.recent.Back())
		c.recent.Remove(c.of[oldest.hash])
		delete(c.of, oldest.hash)
		c.bytes -= oldest.size()
	}
}

func entryOf(element *linked.Element) *entry {
	return element.Value.(*entry) //nolint:forcetypeassert // the list holds nothing else
}

// itemSize is what an entry, a service, a method or a binding takes, with its headers.
const itemSize = 160

// size is about what the entry takes in memory.
func (e *entry) size() int {
	size := itemSize + e.cuts
	if e.err != nil {
		return size + len(e.err.Error())
	}
	for name, service := range e.contents.services {
		size += itemSize + len(name)
		if service.err != nil {
			size += len(service.err.Error())
		}
		for _, method := range service.methods {
			size += itemSize + len(method.Name)
			for _, binding := range method.Bindings {
				size += itemSize + len(binding.HTTPMethod) + binding.Template.size()
			}
		}
	}
	return size
}
