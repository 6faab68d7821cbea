package interceptor

import (
	"strings"
	"testing"
)

func TestTheSidecarsElementIsBelievedAndNothingElse(t *testing.T) {
	const uri = "URI=spiffe://jia.app/api-gateway"
	good := map[string][]string{
		"the URI alone":        {uri},
		"with its hash and By": {"By=spiffe://jia.app/payment-service;Hash=ab12;" + uri},
		"with a subject":       {`Hash=ab;Subject="CN=a\";URI=spiffe://jia.app/evil,x";` + uri},
	}
	for name, headers := range good {
		if id, err := peerOfXFCC(headers); err != nil || id.String() != "spiffe://jia.app/api-gateway" {
			t.Errorf("%s: got %s, %v", name, id, err)
		}
	}
	bad := map[string]struct {
		headers []string
		want    string
	}{
		"none":              {nil, "0 headers"},
		"two headers":       {[]string{uri, uri}, "2 headers"},
		"two elements":      {[]string{uri + "," + uri}, "more than one element"},
		"two URIs":          {[]string{uri + ";" + uri}, "two URIs"},
		"no URI":            {[]string{"Hash=ab"}, "no URI"},
		"an empty header":   {[]string{""}, "no URI"},
		"no SPIFFE ID":      {[]string{"URI=https://jia.app/api-gateway"}, "the URI of"},
		"no end of a quote": {[]string{`Subject="a;` + uri}, "a quote that does not end"},
		"a URI in a quote":  {[]string{`Subject="` + uri + `"`}, "no URI"},
		"a long one":        {[]string{uri + ";Hash=" + strings.Repeat("a", maxXFCC)}, "too long"},
	}
	for name, c := range bad {
		if id, err := peerOfXFCC(c.headers); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %s, %v, want an error with %q", name, id, err, c.want)
		}
	}
}

func FuzzNoHeaderWithTwoElementsNamesACaller(f *testing.F) {
	f.Add(`Subject="a,b"`, "spiffe://jia.app/a")
	f.Fuzz(func(t *testing.T, before, id string) {
		if got, err := peerOfXFCC([]string{"URI=spiffe://jia.app/first," + before + ";URI=" + id}); err == nil {
			t.Errorf("believed %s", got)
		}
	})
}
