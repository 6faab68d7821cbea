package xds

import (
	"math/rand/v2"
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/jia-app/paymesh/internal/descriptor"
)

func TestATemplateMatchesJustWhatItSays(t *testing.T) {
	for _, test := range []struct {
		template     string
		matches, not []string
	}{
		{"/v1/payments", []string{"/v1/payments"}, []string{"/v1/payments/", "/v1/paymentss", "/v1", "/x/v1/payments"}},
		{"/v1/payments/{payment_id}", []string{"/v1/payments/a", "/v1/payments/a:b"}, []string{"/v1/payments", "/v1/payments/", "/v1/payments/a/b"}},
		{"/v1/payments/{payment_id}:refund", []string{"/v1/payments/a:refund"}, []string{"/v1/payments/a", "/v1/payments/a:refunds", "/v1/payments/:refund"}},
		{"/v1/payments:batch", []string{"/v1/payments:batch"}, []string{"/v1/payments", "/v1/paymentsxbatch"}},
		{"/v1/{name=shelves/*/books/*}", []string{"/v1/shelves/1/books/2"}, []string{"/v1/shelves/1/books", "/v1/shelves//books/2", "/v1/shelves/1/2/books/3"}},
		{"/v1/{name=files/**}", []string{"/v1/files", "/v1/files/a", "/v1/files/a/b/c"}, []string{"/v1/filesa", "/v1/files/", "/v1/files//a", "/v1"}},
		{"/v1/a.b/{x}", []string{"/v1/a.b/1"}, []string{"/v1/aXb/1"}},
	} {
		match := matchTemplate(parsed(t, test.template))
		pattern := regexp.QuoteMeta(match.GetPath())
		if match.GetSafeRegex() != nil {
			pattern = match.GetSafeRegex().GetRegex()
		}
		whole := regexp.MustCompile("^(?:" + pattern + ")$")
		for _, path := range test.matches {
			if !whole.MatchString(path) {
				t.Errorf("%s does not match %s: it is %s", test.template, path, whole)
			}
		}
		for _, path := range test.not {
			if whole.MatchString(path) {
				t.Errorf("%s matches %s: it is %s", test.template, path, whole)
			}
		}
	}
}

func parsed(t *testing.T, template string) descriptor.Template {
	t.Helper()
	got, err := descriptor.ParseTemplate(template)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestWhatMatchesLessComesFirst(t *testing.T) {
	want := []string{
		"/v1/payments/{id}:refund", "/v1/payments/search", "/v1/payments/{id=shelves/*}", "/v1/payments/{id}", "/v1/{kind}/{id}", "/v1/payments/{id=**}", "/v1/{id=**}",
	}
	got := slices.Clone(want)
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(got), func(i, j int) { got[i], got[j] = got[j], got[i] })
	slices.SortFunc(got, func(x, y string) int { return compareTemplates(parsed(t, x), parsed(t, y)) })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
