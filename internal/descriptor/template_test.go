package descriptor

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestATemplateIsReadAsGoogleAPIHTTPHasItAndItsNormalFormForgetsNames(t *testing.T) {
	for template, want := range map[string]struct {
		normal    string
		variables []string
	}{
		"/":                             {normal: "/"},
		"/v1/payments":                  {normal: "/v1/payments"},
		"/v1/payments/{payment_id}":     {"/v1/payments/*", []string{"payment_id"}},
		"/v1/payments/*":                {normal: "/v1/payments/*"},
		"/v1/{name=shelves/*/books/*}":  {"/v1/shelves/*/books/*", []string{"name"}},
		"/v1/{parent.id}/{name=**}":     {"/v1/*/**", []string{"parent.id", "name"}},
		"/v1/payments/{id}:refund":      {"/v1/payments/*:refund", []string{"id"}},
		"/v1/{name=payments/*}:refund":  {"/v1/payments/*:refund", []string{"name"}},
		"/v1/payments:batch":            {normal: "/v1/payments:batch"},
		"/v1/**":                        {normal: "/v1/**"},
		"/v1/a-b_c.d~e/%2D/$&'()+,;@!x": {normal: "/v1/a-b_c.d~e/%2D/$&'()+,;@!x"},
	} {
		t.Run(template, func(t *testing.T) {
			got, err := ParseTemplate(template)
			if err != nil || got.Normal() != want.normal || !cmp.Equal(got.variables, want.variables) {
				t.Errorf("got %q, %q, %v; want %q, %q", got.Normal(), got.variables, err, want.normal, want.variables)
			}
			if again := NormalTemplate(want.normal); got.String() != template || !cmp.Equal(again.Segments, got.Segments) || again.Verb != got.Verb {
				t.Errorf("%s is %q with the verb %q, and its normal form %q with %q", got, got.Segments, got.Verb, again.Segments, again.Verb)
			}
		})
	}
}

func TestWhatIsNoTemplateIsRefused(t *testing.T) {
	for _, template := range []string{
		"", "v1", "//", "/v1/", "/v1//a", "/{}", "/{=a}", "/{a", "/a}", "/{a}b", "/b{a}", "/{a}{b}", "/{a}/{a}", "/{a.}", "/{1}", "/{a={b}}", "/{a=}", "/{a=/b}",
		"/" + strings.Repeat("a", 1024), "/**/a", "/**", "/{path=**}", "/**:do", "/{a=**}/b", "/a:", "/a:b/c", "/a:b:c", "/a:*", "/a b", "/a?b", "/a#b", "/%2", "/ä", "/a**", "/{a-b}", "/:a",
	} {
		if got, err := ParseTemplate(template); err == nil {
			t.Errorf("%q was read as %q", template, got.Normal())
		}
	}
}
