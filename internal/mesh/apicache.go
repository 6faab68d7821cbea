package mesh

import (
	linked "container/list"
	"crypto/sha256"
	"sync"
	"weak"
)

// apiCache remembers what descriptor sets say, by the hash of their content: each Build reads those of all services that a
// gateway serves, of which hardly one has changed since the last. A descriptor set says the same whenever it is asked, so
// that a Build is as pure with the cache as without. It holds at most maxBytes: what was asked for longest ago goes first.
type apiCache struct {
	maxBytes int
	reading  sync.Mutex // one set is parsed at a time: it takes 30 times its size, for a moment
	// apart is the last one that was taken apart to be cut, and what it says.
	apartOf *api
	apart   *cutter

	mu     sync.Mutex
	bytes  int
	recent linked.List // of *apiEntry, the last one asked for first
	of     map[[sha256.Size]byte]*linked.Element
	hashes map[place][sha256.Size]byte
}

// place is where the content of a ConfigMap is in memory, where nobody changes it: each version is read into a place of its
// own. Once it is forgotten there, what takes its room is at another place: that is what a weak pointer promises.
type place struct {
	start weak.Pointer[byte]
	bytes int
}

// maxPlaces is how many hashes are remembered; so many that a gateway's worth of services does not get near.
const maxPlaces = 4096

type apiEntry struct {
	hash [sha256.Size]byte
	api  *api
	err  error
	cuts int // bytes of what was made of it
}

// apis are what descriptor sets say that this process has come across.
var apis = &apiCache{maxBytes: 64 << 20}

// read is parseDescriptors, once for each content.
func (c *apiCache) read(raw []byte) (*api, error) {
	hash := c.hash(raw)
	if known := c.get(hash); known != nil {
		return known.api, known.err
	}
	c.reading.Lock()
	defer c.reading.Unlock()
	if known := c.get(hash); known != nil {
		return known.api, known.err
	}
	entry := &apiEntry{hash: hash}
	if entry.api, entry.err = parseDescriptors(raw); entry.err == nil {
		entry.api.hash = hash
	}
	c.put(entry)
	return entry.api, entry.err
}

// hash is that of the content. To hash what each of some hundred services has takes longer than all else that a Build does.
func (c *apiCache) hash(raw []byte) [sha256.Size]byte {
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

func (c *apiCache) get(hash [sha256.Size]byte) *apiEntry {
	c.mu.Lock()
	defer c.mu.Unlock()
	element := c.of[hash]
	if element == nil {
		return nil
	}
	c.recent.MoveToFront(element)
	return entryOf(element)
}

func (c *apiCache) put(entry *apiEntry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == nil {
		c.of = map[[sha256.Size]byte]*linked.Element{}
	}
	c.of[entry.hash] = c.recent.PushFront(entry)
	c.bytes += entry.size()
	c.shrink()
}

// grew counts what has been made of a descriptor set, if that is still remembered.
func (c *apiCache) grew(a *api, bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	element := c.of[a.hash]
	if element == nil || entryOf(element).api != a {
		return
	}
	entryOf(element).cuts += bytes
	c.bytes += bytes
	c.shrink()
}

func (c *apiCache) shrink() {
	for c.bytes > c.maxBytes && c.recent.Len() > 0 {
		oldest := entryOf(c.recent.Back())
		c.recent.Remove(c.of[oldest.hash])
		delete(c.of, oldest.hash)
		c.bytes -= oldest.size()
	}
}

func entryOf(element *linked.Element) *apiEntry {
	return element.Value.(*apiEntry) //nolint:forcetypeassert // the list holds nothing else
}

// itemSize is what an entry, a service, a method or a binding takes, with its headers.
const itemSize = 160

// size is about what the entry takes in memory.
func (e *apiEntry) size() int {
	size := itemSize + e.cuts
	if e.err != nil {
		return size + len(e.err.Error())
	}
	for name, service := range e.api.services {
		size += itemSize + len(name)
		if service.err != nil {
			size += len(service.err.Error())
		}
		for _, method := range service.methods {
			size += itemSize + len(method.Name)
			for _, binding := range method.Bindings {
				size += itemSize + len(binding.HTTPMethod) + len(binding.Template)
			}
		}
	}
	return size
}
