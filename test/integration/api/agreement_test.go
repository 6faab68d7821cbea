package api_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/jia-app/paymesh/test/integration/api/verdict"
)

// paths returns the paths that are hard to get right, and random ones. JSON and protobuf carry only UTF-8.
func paths() []string {
	all, r := verdict.SeedPaths(), rand.New(rand.NewPCG(7, 7))
	for range 400 {
		all = append(all, verdict.RandomPath(r))
	}
	return utf8Only(all)
}

func dnsNamesToTry() []string {
	all, r := verdict.SeedDNSNames(), rand.New(rand.NewPCG(8, 8))
	for range 300 {
		all = append(all, verdict.RandomDNSName(r))
	}
	return utf8Only(all)
}

func utf8Only(all []string) []string {
	slices.Sort(all)
	return slices.DeleteFunc(slices.Compact(all), func(s string) bool { return !utf8.ValidString(s) })
}

func TestTheAPIServerAgreesWithTheVerdictInProcess(t *testing.T) {
	cases := map[string]map[string]any{}
	for i, path := range paths() {
		cases[fmt.Sprintf("path-%d", i)] = map[string]any{"path": path}
	}
	for i, name := range dnsNamesToTry() {
		cases[fmt.Sprintf("dns-%d", i)] = map[string]any{"dnsNames": []any{name}}
	}
	crd, accepted := loadCRD(t), 0
	for name, err := range dryRun(t, cases) {
		want := crd.Create(identity(name, cases[name]).Object)
		if (err == nil) != (len(want) == 0) {
			t.Errorf("%q:\nthe API server says %v\nin process          %v", cases[name], err, want)
		}
		for _, fault := range want {
			if err != nil && !strings.Contains(err.Error(), fault.Detail) {
				t.Errorf("%q:\nthe API server says %v\nin process          %v", cases[name], err, fault)
			}
		}
		if err == nil {
			accepted++
		}
	}
	if len(cases) < 500 || accepted < len(cases)/10 {
		t.Errorf("%d of %d cases are accepted", accepted, len(cases))
	}
	t.Logf("%d of %d cases are accepted", accepted, len(cases))
}

// dryRun returns what the API server says to the creation of an identity with each spec.
func dryRun(t *testing.T, specs map[string]map[string]any) map[string]error {
	t.Helper()
	const atATime = 8
	var (
		answers = map[string]error{}
		lock    sync.Mutex
		group   sync.WaitGroup
		names   = make(chan string)
	)
	for range atATime {
		group.Go(func() {
			for name := range names {
				err := api.Create(t.Context(), identity(name, specs[name]), client.DryRunAll)
				if err != nil && !apierrors.IsInvalid(err) {
					t.Errorf("%q: %v", specs[name], err)
				}
				lock.Lock()
				answers[name] = err
				lock.Unlock()
			}
		})
	}
	for name := range specs {
		names <- name
	}
	close(names)
	group.Wait()
	return answers
}
