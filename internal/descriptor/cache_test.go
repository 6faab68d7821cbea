package descriptor

import (
	"crypto/sha256"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
)

func TestWhatDescriptorSetsSayIsReadOnceAndRememberedWithinABound(t *testing.T) {
	set := func(i int) []byte {
		raw, err := proto.Marshal(setOf(&annotations.HttpRule{Pattern: &annotations.HttpRule_Get{Get: fmt.Sprintf("/v1/%d", i)}}))
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	template := func(of *contents) string { return of.services["t.S"].methods[0].Bindings[0].Template.String() }
	cache := &Cache{maxBytes: 10_000}
	var first *contents
	for i := range 100 {
		read, err := cache.read(set(i))
		if err != nil || template(read) != fmt.Sprintf("/v1/%d", i) {
			t.Fatalf("%d: %v, %v", i, read, err)
		}
		if i == 0 {
			first = read
		}
		if again, _ := cache.read(set(0)); i < 50 && again != first {
			t.Fatalf("what is asked for again and again was forgotten after %d others", i)
		}
		held := 0
		for element := cache.recent.Front(); element != nil; element = element.Next() {
			held += entryOf(element).size()
		}
		if cache.bytes > cache.maxBytes || held != cache.bytes || len(cache.of) != cache.recent.Len() {
			t.Fatalf("it holds %d bytes in %d and %d entries, and counts %d", held, cache.recent.Len(), len(cache.of), cache.bytes)
		}
	}
	if len(cache.of) < 5 || len(cache.of) > 50 {
		t.Errorf("%d of 100 are held", len(cache.of))
	}
	for range 2 {
		if read, err := cache.read([]byte("nothing")); err == nil {
			t.Errorf("got %v", read)
		}
	}
}

func TestWhatIsLargerThanTheBoundIsReadAndNotRemembered(t *testing.T) {
	raw, err := proto.Marshal(setOf(&annotations.HttpRule{}))
	if err != nil {
		t.Fatal(err)
	}
	cache := &Cache{maxBytes: 100}
	for range 2 {
		if read, err := cache.read(raw); err != nil || read.services["t.S"] == nil {
			t.Errorf("got %v, %v", read, err)
		}
	}
	if cache.bytes != 0 || len(cache.of) != 0 {
		t.Errorf("it holds %d bytes in %d entries", cache.bytes, len(cache.of))
	}
}

func TestWhatTakesTheRoomOfAForgottenDescriptorSetIsNotTakenForIt(t *testing.T) {
	cache := &Cache{maxBytes: 1 << 20}
	for i := range 3 * maxPlaces {
		path := fmt.Sprintf("/v1/%05d", i%1000)
		raw, err := proto.Marshal(setOf(&annotations.HttpRule{Pattern: &annotations.HttpRule_Get{Get: path}}))
		if err != nil {
			t.Fatal(err)
		}
		if i%1000 == 0 {
			runtime.GC()
		}
		if hash := cache.hash(raw); hash != sha256.Sum256(raw) || cache.hash(raw) != hash || len(cache.hashes) > maxPlaces {
			t.Fatalf("%d: %x, with %d places", i, hash, len(cache.hashes))
		}
	}
}

func TestBuildsThatReadOneDescriptorSetAtATimeShareWhatItSays(t *testing.T) {
	raw, err := proto.Marshal(setOf(&annotations.HttpRule{}))
	if err != nil {
		t.Fatal(err)
	}
	cache := &Cache{maxBytes: 1 << 20}
	got := make([]*contents, 8)
	var group sync.WaitGroup
	for i := range got {
		group.Go(func() { got[i], _ = cache.read(raw) })
	}
	group.Wait()
	for _, read := range got {
		if read == nil || read != got[0] {
			t.Errorf("got %p, another %p", read, got[0])
		}
	}
}
