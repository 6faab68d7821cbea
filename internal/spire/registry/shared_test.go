package registry_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/spire"
	"github.com/jia-app/paymesh/internal/spire/registry"
)

// slow takes a while to answer about an entry that it creates.
type slow struct {
	*fake
	id string
}

func (s slow) Apply(ctx context.Context, plan spire.Plan) ([]spire.Result, error) {
	results, err := s.fake.Apply(ctx, plan)
	for _, created := range plan.Create {
		if created.ID == s.id {
			time.Sleep(5 * time.Second) //nolint:forbidigo // the bubble's time: as long as the call takes
		}
	}
	return results, err
}

func TestAnEntryThatWasThereIsRememberedAsTheLastWriteLeftIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared, own := entry("shared", "1"), entry("own", "1")
		cluster, err := mesh.NewClusterID("jia.app", "main")
		if err != nil {
			t.Fatal(err)
		}
		r := registry.New(slow{newFake(shared), own.ID}, cluster, registry.Options{})
		ctx, cancel := context.WithCancel(t.Context())
		ended, done := make(chan error, 1), make(chan error, 1)
		go func() { ended <- r.Start(ctx) }()
		synctest.Wait()
		go func() {
			_, err := r.Apply(ctx, spire.Plan{Create: []spire.Entry{shared, own}})
			done <- err
		}()
		synctest.Wait() // its call is under way, without what is there
		if results, err := r.Apply(ctx, spire.Plan{Delete: []string{shared.ID}}); err != nil || !results[0].OK() {
			t.Fatalf("the deletion had to wait for nothing: %v, %v", results, err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if held := r.Of(ownerOf("shared")); len(held) != 0 {
			t.Errorf("it was deleted meanwhile, and %v is remembered", held)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
