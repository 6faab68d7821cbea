package api_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
)

type refusal struct {
	spec map[string]any
	want string // a part of the message
}

const (
	pathSegments  = "spec.path: Invalid value: .*path must consist of segments, as in /payments/api"
	pathReserved  = "spec.path: Invalid value: .*path must not be /spire or below it, which SPIRE keeps for itself: choose another first segment"
	accountName   = "spec.serviceAccountName: Invalid value: .*serviceAccountName must be the name of a ServiceAccount, for example payment-service"
	labelKeys     = "spec.podLabels: Invalid value: .*podLabels must have label keys, for example app or app.kubernetes.io/name"
	labelValues   = `spec.podLabels\[app\]: Invalid value: .*podLabels must have label values, for example payment`
	x509TTL       = "spec.x509SVIDTTL: Invalid value: .*x509SVIDTTL must be a whole number of seconds from 1m to 168h, for example 1h"
	jwtTTL        = "spec.jwtSVIDTTL: Invalid value: .*jwtSVIDTTL must be a whole number of seconds from 30s to 24h, for example 5m"
	duration      = "a duration must be one to four numbers of at most five digits, each with its unit h, m, s or ms, for example 1h30m"
	dnsNames      = `spec.dnsNames\[0\]: Invalid value: .*dnsNames must be DNS names in lower case, for example payment.example.com`
	federation    = `spec.federatesWith\[0\]: Invalid value: .*federatesWith must be names of trust domains, for example partner.example`
	template      = "spec.pathTemplate: Invalid value: .*pathTemplate must consist of segments, as in /{{namespace}}/{{podLabels.app}}"
	templateFixed = "spec.pathTemplate: Invalid value: .*pathTemplate cannot be set, changed or removed later, .*: create another ServiceIdentity"
	labelsFixed   = "spec.podLabels: Invalid value: .*podLabels cannot be changed beside a pathTemplate, .*: create another ServiceIdentity"
	pathFixed     = "spec.path: Invalid value: .*path cannot be set, changed or removed later, .*: create another ServiceIdentity"
	accountFixed  = "spec.serviceAccountName: Invalid value: .*serviceAccountName cannot be changed: create another ServiceIdentity"
	metadataName  = "metadata.name must be a DNS-1035 label of at most 52 characters, for example payment-service"
	unknownFields = "unknown field"
)

var creations = map[string]refusal{
	"an empty path":                       {map[string]any{"path": ""}, pathSegments + ".*for the default ID leave path out"},
	"a path without its first slash":      {map[string]any{"path": "payments/api"}, pathSegments},
	"a path with an empty segment":        {map[string]any{"path": "/payments//api"}, pathSegments},
	"a path with a dot segment":           {map[string]any{"path": "/payments/./api"}, pathSegments},
	"a path with a dot-dot segment":       {map[string]any{"path": "/payments/.."}, pathSegments},
	"a path that ends with a slash":       {map[string]any{"path": "/payments/"}, pathSegments},
	"a path that is the slash":            {map[string]any{"path": "/"}, pathSegments},
	"a path with a percent-encoding":      {map[string]any{"path": "/payments%2Fapi"}, pathSegments},
	"a path with a letter beyond ASCII":   {map[string]any{"path": "/zahlungsüberblick"}, pathSegments},
	"a path with a line break at its end": {map[string]any{"path": "/payments\n"}, pathSegments},
	"a path that is a whole SPIFFE ID":    {map[string]any{"path": "spiffe://example.org/payments"}, pathSegments},
	"a path that is /spire":               {map[string]any{"path": "/spire"}, pathReserved},
	"a path below /spire":                 {map[string]any{"path": "/spire/agent/k8s_psat/c/u"}, pathReserved},
	"a path of 1,785 bytes":               {map[string]any{"path": "/" + strings.Repeat("a", 1784)}, "spec.path: Too long: may not be more than 1784 bytes"},
	"a path that is a number":             {map[string]any{"path": int64(7)}, "spec.path: Invalid value: .*must be of type string"},

	"a pathTemplate beside a path":              {map[string]any{"path": "/a", "pathTemplate": "/{{namespace}}"}, "spec.pathTemplate: Invalid value: .*pathTemplate and path exclude one another: write one of them"},
	"an empty pathTemplate":                     {map[string]any{"pathTemplate": ""}, template},
	"a pathTemplate with an unknown variable":   {map[string]any{"pathTemplate": "/{{pod}}"}, template},
	"a pathTemplate with a space in a variable": {map[string]any{"pathTemplate": "/{{ namespace }}"}, template + ".*without spaces"},
	"a pathTemplate with a variable of Go's":    {map[string]any{"pathTemplate": "/{{.namespace}}"}, template},
	"a pathTemplate with a function":            {map[string]any{"pathTemplate": "/{{namespace|upper}}"}, template},
	"a pathTemplate with one brace":             {map[string]any{"pathTemplate": "/{namespace}"}, template},
	"a pathTemplate with an open variable":      {map[string]any{"pathTemplate": "/{{namespace"}, template},
	"a pathTemplate with a variable in another": {map[string]any{"pathTemplate": "/{{podLabels.{{namespace}}}}"}, template},
	"a pathTemplate with a label without a key": {map[string]any{"pathTemplate": "/{{podLabels.}}"}, template},
	"a pathTemplate with a dot segment":         {map[string]any{"pathTemplate": "/{{namespace}}/../a"}, template},
	"a pathTemplate with an empty segment":      {map[string]any{"pathTemplate": "/a//{{namespace}}"}, template},
	"a pathTemplate that ends with a slash":     {map[string]any{"pathTemplate": "/{{namespace}}/"}, template},
	"a pathTemplate without its first slash":    {map[string]any{"pathTemplate": "{{namespace}}"}, template},
	"a pathTemplate below /spire":               {map[string]any{"pathTemplate": "/spire/{{namespace}}"}, "spec.pathTemplate: Invalid value: .*pathTemplate must not be /spire or below it"},
	"a pathTemplate of 1,785 bytes":             {map[string]any{"pathTemplate": "/" + strings.Repeat("a", 1784)}, "spec.pathTemplate: Too long: may not be more than 1784 bytes"},

	"no serviceAccountName":                  {map[string]any{"serviceAccountName": nil}, "spec.serviceAccountName: Required value"},
	"an empty serviceAccountName":            {map[string]any{"serviceAccountName": ""}, accountName},
	"a serviceAccountName in upper case":     {map[string]any{"serviceAccountName": "Payment"}, accountName},
	"a serviceAccountName with a namespace":  {map[string]any{"serviceAccountName": "payments/payment"}, accountName},
	"a serviceAccountName of 254 characters": {map[string]any{"serviceAccountName": strings.Repeat("a", 254)}, "spec.serviceAccountName: Too long: may not be more than 253 bytes"},

	"17 podLabels":                           {map[string]any{"podLabels": labels(17)}, "spec.podLabels: Too many: 17: must have at most 16 items"},
	"a label key with a space":               {map[string]any{"podLabels": map[string]any{"my app": "x"}}, labelKeys},
	"a label key of 64 characters":           {map[string]any{"podLabels": map[string]any{strings.Repeat("a", 64): "x"}}, labelKeys},
	"a label key with a bad DNS name":        {map[string]any{"podLabels": map[string]any{"example..com/app": "x"}}, labelKeys},
	"an empty label key":                     {map[string]any{"podLabels": map[string]any{"": "x"}}, labelKeys},
	"a label value with a slash":             {map[string]any{"podLabels": map[string]any{"app": "a/b"}}, labelValues},
	"a label value of 64 characters":         {map[string]any{"podLabels": map[string]any{"app": strings.Repeat("a", 64)}}, "spec.podLabels.app: Too long: may not be more than 63 bytes"},
	"a label value that is a number":         {map[string]any{"podLabels": map[string]any{"app": int64(1)}}, "spec.podLabels.app: Invalid value: .*must be of type string"},
	"an x509SVIDTTL below a minute":          {map[string]any{"x509SVIDTTL": "59s"}, x509TTL},
	"an x509SVIDTTL above a week":            {map[string]any{"x509SVIDTTL": "168h1s"}, x509TTL},
	"an x509SVIDTTL with half a second":      {map[string]any{"x509SVIDTTL": "1m500ms"}, x509TTL},
	"an x509SVIDTTL in days":                 {map[string]any{"x509SVIDTTL": "7d"}, "spec.x509SVIDTTL: Invalid value: .*" + duration},
	"an x509SVIDTTL without a unit":          {map[string]any{"x509SVIDTTL": "3600"}, "spec.x509SVIDTTL: Invalid value: .*" + duration},
	"an empty x509SVIDTTL":                   {map[string]any{"x509SVIDTTL": ""}, "spec.x509SVIDTTL: Invalid value: .*" + duration},
	"an x509SVIDTTL of 33 characters":        {map[string]any{"x509SVIDTTL": strings.Repeat("1", 32) + "s"}, "spec.x509SVIDTTL: Too long: may not be more than 32 bytes"},
	"a jwtSVIDTTL below half a minute":       {map[string]any{"jwtSVIDTTL": "29s"}, jwtTTL},
	"a jwtSVIDTTL above a day":               {map[string]any{"jwtSVIDTTL": "24h1s"}, jwtTTL},
	"a jwtSVIDTTL with a millisecond":        {map[string]any{"jwtSVIDTTL": "30s1ms"}, jwtTTL},
	"a jwtSVIDTTL with a fraction":           {map[string]any{"jwtSVIDTTL": "1.5h"}, "spec.jwtSVIDTTL: Invalid value: .*" + duration},
	"a negative jwtSVIDTTL":                  {map[string]any{"jwtSVIDTTL": "-5m"}, "spec.jwtSVIDTTL: Invalid value: .*" + duration},
	"a jwtSVIDTTL of 33 characters":          {map[string]any{"jwtSVIDTTL": strings.Repeat("1", 32) + "s"}, "spec.jwtSVIDTTL: Too long: may not be more than 32 bytes"},
	"33 dnsNames":                            {map[string]any{"dnsNames": hosts(33)}, "spec.dnsNames: Too many: 33: must have at most 32 items"},
	"one of dnsNames twice":                  {map[string]any{"dnsNames": []any{"a.example", "b.example", "a.example"}}, `spec.dnsNames\[2\]: Duplicate value: "a.example"`},
	"an empty one of dnsNames":               {map[string]any{"dnsNames": []any{""}}, dnsNames},
	"a wildcard in dnsNames":                 {map[string]any{"dnsNames": []any{"*.example.com"}}, dnsNames + ".*write each name out, wildcards are not allowed"},
	"upper case in dnsNames":                 {map[string]any{"dnsNames": []any{"Payment.example.com"}}, dnsNames},
	"a dot at the end of one of dnsNames":    {map[string]any{"dnsNames": []any{"payment.example.com."}}, dnsNames},
	"an underscore in dnsNames":              {map[string]any{"dnsNames": []any{"_grpc._tcp.example.com"}}, dnsNames},
	"a label of 64 characters in dnsNames":   {map[string]any{"dnsNames": []any{strings.Repeat("a", 64) + ".example"}}, dnsNames},
	"one of dnsNames with 254 characters":    {map[string]any{"dnsNames": []any{strings.Repeat("a.", 126) + "aa"}}, `spec.dnsNames\[0\]: Too long: may not be more than 253 bytes`},
	"punycode in dnsNames":                   {map[string]any{"dnsNames": []any{"a.xn--bcher-kva.example"}}, `spec.dnsNames\[0\]: Invalid value: .*dnsNames must not have two hyphens as the third and fourth character of a label`},
	"33 federatesWith":                       {map[string]any{"federatesWith": hosts(33)}, "spec.federatesWith: Too many: 33: must have at most 32 items"},
	"one of federatesWith twice":             {map[string]any{"federatesWith": []any{"a.example", "a.example"}}, `spec.federatesWith\[1\]: Duplicate value: "a.example"`},
	"a SPIFFE ID in federatesWith":           {map[string]any{"federatesWith": []any{"spiffe://partner.example"}}, federation + ".*no spiffe://, no path"},
	"upper case in federatesWith":            {map[string]any{"federatesWith": []any{"Partner.example"}}, federation},
	"an empty one of federatesWith":          {map[string]any{"federatesWith": []any{""}}, federation},
	"a path in federatesWith":                {map[string]any{"federatesWith": []any{"partner.example/a"}}, federation},
	"one of federatesWith with 256":          {map[string]any{"federatesWith": []any{strings.Repeat("a", 256)}}, `spec.federatesWith\[0\]: Too long: may not be more than 255 bytes`},
	"a serviceDNSNames that is a word":       {map[string]any{"serviceDNSNames": "yes"}, "spec.serviceDNSNames: Invalid value: .*must be of type boolean"},
	"a placement that there is not":          {map[string]any{"placement": "Pod"}, `spec.placement: Unsupported value: "Pod": supported values: "Node", "Cluster"`},
	"a hint of 256 characters":               {map[string]any{"hint": strings.Repeat("a", 256)}, "spec.hint: Too long: may not be more than 255 bytes"},
	"a field of spec that there is not":      {map[string]any{"serviceAcountName": "payment"}, unknownFields + ` "spec.serviceAcountName"`},
	"a field of SPIRE's that is not in spec": {map[string]any{"admin": true}, unknownFields + ` "spec.admin"`},
}

// The names are those of the objects; their spec is valid.
var names = map[string]string{
	"a name of 53 characters":         strings.Repeat("a", 53),
	"a name that begins with a digit": "2nd-payment",
	"a name with a dot":               "payment.v2",
	"a name in upper case":            "Payment",
	"a name with a hyphen at the end": "payment-",
}

var updates = map[string]struct {
	from, to map[string]any
	want     string
}{
	"a changed path":                {map[string]any{"path": "/payments"}, map[string]any{"path": "/payments/api"}, pathFixed},
	"a path that was unset":         {nil, map[string]any{"path": "/payments"}, pathFixed},
	"a path that is unset later":    {map[string]any{"path": "/payments"}, nil, pathFixed},
	"a changed pathTemplate":        {map[string]any{"pathTemplate": "/{{namespace}}"}, map[string]any{"pathTemplate": "/{{cluster}}"}, templateFixed},
	"a pathTemplate later":          {nil, map[string]any{"pathTemplate": "/{{namespace}}"}, templateFixed},
	"a pathTemplate that goes":      {map[string]any{"pathTemplate": "/{{namespace}}"}, nil, templateFixed},
	"podLabels beside a template":   {map[string]any{"pathTemplate": "/{{namespace}}", "podLabels": labels(1)}, map[string]any{"pathTemplate": "/{{namespace}}", "podLabels": labels(2)}, labelsFixed},
	"podLabels later, beside one":   {map[string]any{"pathTemplate": "/{{namespace}}"}, map[string]any{"pathTemplate": "/{{namespace}}", "podLabels": labels(1)}, labelsFixed},
	"another serviceAccountName":    {nil, map[string]any{"serviceAccountName": "other"}, accountFixed},
	"the default path, spelled out": {nil, map[string]any{"path": "/ns/payments/sa/payment"}, pathFixed},
}

var statuses = map[string]struct {
	status map[string]any
	want   string
}{
	"a spiffeID of 2,049 bytes":             {map[string]any{"spiffeID": strings.Repeat("a", 2049)}, "status.spiffeID: Too long: may not be more than 2048 bytes"},
	"nine conditions":                       {map[string]any{"conditions": conditions(9)}, "status.conditions: Too many: 9: must have at most 8 items"},
	"one condition twice":                   {map[string]any{"conditions": append(conditions(1), conditions(1)...)}, `status.conditions\[1\]: Duplicate value: .*C0`},
	"a condition that is neither":           {map[string]any{"conditions": []any{map[string]any{"type": "Ready", "status": "Maybe", "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}}}, "Unsupported value: \"Maybe\": supported values"},
	"a summary of 33 characters":            {map[string]any{"entries": map[string]any{"wanted": int64(1), "registered": int64(1), "summary": strings.Repeat("1", 33)}}, "status.entries.summary: Too long: may not be more than 32 bytes"},
	"fewer than no entries wanted":          {map[string]any{"entries": map[string]any{"wanted": int64(-1), "registered": int64(1)}}, "status.entries.wanted: Invalid value: -1: .*should be greater than or equal to 0"},
	"fewer than no entries registered":      {map[string]any{"entries": map[string]any{"wanted": int64(1), "registered": int64(-1)}}, "status.entries.registered: Invalid value: -1: .*should be greater than or equal to 0"},
	"a negative observedGeneration":         {map[string]any{"observedGeneration": int64(-1)}, "status.observedGeneration: Invalid value: -1: .*should be greater than or equal to 0"},
	"an outageBudget of 33 characters":      {map[string]any{"outageBudget": strings.Repeat("1", 33)}, "status.outageBudget: Too long: may not be more than 32 bytes"},
	"pods that wait for nine things":        {map[string]any{"waitingPods": waiting(9)}, "status.waitingPods: Too many: 9: must have at most 8 items"},
	"pods that wait for one thing twice":    {map[string]any{"waitingPods": append(waiting(1), waiting(1)...)}, `status.waitingPods\[1\]: Duplicate value: .*R0`},
	"no pods that wait":                     {map[string]any{"waitingPods": []any{map[string]any{"reason": "R", "count": int64(0)}}}, `status.waitingPods\[0\].count: Invalid value: 0: .*should be greater than or equal to 1`},
	"a reason of 65 characters":             {map[string]any{"waitingPods": []any{map[string]any{"reason": strings.Repeat("R", 65), "count": int64(1)}}}, `status.waitingPods\[0\].reason: Too long: may not be more than 64 bytes`},
	"eleven names of pods that wait":        {map[string]any{"waitingPods": []any{map[string]any{"reason": "R", "count": int64(11), "names": hosts(11)}}}, `status.waitingPods\[0\].names: Too many: 11: must have at most 10 items`},
	"a name of a pod with 254 characters":   {map[string]any{"waitingPods": []any{map[string]any{"reason": "R", "count": int64(1), "names": []any{strings.Repeat("a", 254)}}}}, `status.waitingPods\[0\].names\[0\]: Too long: may not be more than 253 bytes`},
	"entries without the number that wants": {map[string]any{"entries": map[string]any{"registered": int64(1)}}, "status.entries.wanted: Required value"},
}

func TestTheAPIServerRefusesWhatBreaksARuleAndSaysWhatToWriteInstead(t *testing.T) {
	broken := map[string]bool{} // rules and bounds that a case has broken
	check := func(t *testing.T, err error, want string) {
		t.Helper()
		if err == nil || !regexp.MustCompile(want).MatchString(err.Error()) {
			t.Errorf("got  %v\nwant %s", err, want)
		}
		t.Log(err)
		for _, cause := range causes(err) {
			broken[placeOf(cause.Field)+" "+string(cause.Type)] = true
			broken[cause.Message] = true
		}
	}
	for name, test := range creations {
		t.Run(name, func(t *testing.T) {
			check(t, api.Create(t.Context(), identity("invalid", test.spec), client.DryRunAll), test.want)
		})
	}
	for name, object := range names {
		t.Run(name, func(t *testing.T) {
			check(t, api.Create(t.Context(), identity(object, nil), client.DryRunAll), metadataName)
		})
	}
	for name, test := range updates {
		t.Run(name, func(t *testing.T) {
			stored := create(t, test.from)
			changed := identity(stored.GetName(), test.to)
			changed.SetResourceVersion(stored.GetResourceVersion())
			check(t, api.Update(t.Context(), changed), test.want)
		})
	}
	for name, test := range statuses {
		t.Run(name, func(t *testing.T) {
			object := create(t, nil)
			object.Object["status"] = test.status
			check(t, api.Status().Update(t.Context(), object), test.want)
		})
	}
	requireEachRuleBroken(t, broken)
}

// requireEachRuleBroken fails for each rule and bound of the kind that no case has broken.
func requireEachRuleBroken(t *testing.T, broken map[string]bool) {
	t.Helper()
	wantMessage := func(field, message string) {
		for got := range maps.Keys(broken) {
			if strings.HasSuffix(got, message) {
				return
			}
		}
		t.Errorf("%s: no case is refused with %q", field, message)
	}
	wantCause := func(field string, cause metav1.CauseType) {
		if !broken[field+" "+string(cause)] {
			t.Errorf("%s: no case is refused with %s", field, cause)
		}
	}
	crd := loadCRD(t)
	for _, rule := range crd.Schema.XValidations {
		wantMessage("the object", rule.Message)
	}
	crd.EachField(func(field, _ string, schema *apiextensions.JSONSchemaProps) {
		if strings.HasPrefix(field, "status.conditions[]") {
			return // Kubernetes' own
		}
		for _, rule := range schema.XValidations {
			wantMessage(field, rule.Message)
		}
		if schema.MaxLength != nil {
			wantCause(field, "FieldValueTooLong")
		}
		if schema.MaxItems != nil || schema.MaxProperties != nil {
			wantCause(field, "FieldValueTooMany")
		}
		if schema.Minimum != nil {
			wantCause(field, metav1.CauseTypeFieldValueInvalid)
		}
		if schema.XListType != nil && *schema.XListType != "atomic" {
			wantCause(field+"[]", metav1.CauseTypeFieldValueDuplicate)
		}
	})
}

func causes(err error) []metav1.StatusCause {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Details == nil {
		return nil
	}
	return status.Status().Details.Causes
}

// placeOf is a field as EachField has it.
func placeOf(field string) string {
	field = regexp.MustCompile(`\[\d+\]`).ReplaceAllString(field, "[]")
	return regexp.MustCompile(`^spec\.podLabels\..*`).ReplaceAllString(field, "spec.podLabels{}")
}

func TestTheAPIServerAcceptsWhatIsWithinTheBounds(t *testing.T) {
	for name, spec := range map[string]map[string]any{
		"only a serviceAccountName":               nil,
		"a serviceAccountName of 253":             {"serviceAccountName": strings.Repeat("a.", 126) + "a"},
		"a path of one character":                 {"path": "/a"},
		"a path of 1,784 bytes":                   {"path": "/" + strings.Repeat("a", 1783)},
		"a path of the shortest segments":         {"path": strings.Repeat("/a", 892)},
		"a path of dots that are no dot segments": {"path": "/.../.a/a./..a"},
		"a path that begins like /spire":          {"path": "/spire-metrics/x"},
		"a pathTemplate of every variable":        {"pathTemplate": "/{{cluster}}/a-{{namespace}}.{{serviceAccount}}/{{podLabels.app}}{{podLabels.app.kubernetes.io/part_of}}", "podLabels": labels(16)},
		"a pathTemplate of 1,784 bytes":           {"pathTemplate": "/" + strings.Repeat("a", 1783)},
		"a pathTemplate of many variables":        {"pathTemplate": strings.Repeat("/{{cluster}}", 148), "podLabels": labels(16)},
		"a pathTemplate that begins like /spire":  {"pathTemplate": "/spire-{{cluster}}/.../.a"},
		"16 podLabels":                            {"podLabels": labels(16)},
		"the longest podLabels":                   {"podLabels": map[string]any{strings.Repeat("a.", 126) + "a/" + strings.Repeat("k", 63): strings.Repeat("v", 63), "empty": ""}},
		"the shortest TTLs":                       {"x509SVIDTTL": "1m", "jwtSVIDTTL": "30s"},
		"the longest TTLs":                        {"x509SVIDTTL": "168h", "jwtSVIDTTL": "24h"},
		"TTLs of four groups":                     {"x509SVIDTTL": "1h1m1s1000ms", "jwtSVIDTTL": "1h1m1s0ms"},
		"32 dnsNames":                             {"dnsNames": hosts(32)},
		"the longest dnsNames":                    {"dnsNames": longHosts(32)},
		"32 federatesWith, the longest":           {"federatesWith": longHosts(32)},
		"a trust domain of every character":       {"federatesWith": []any{"_a-.0"}},
		"a hint of 255 characters":                {"hint": strings.Repeat("é", 255)},
	} {
		t.Run(name, func(t *testing.T) {
			if err := api.Create(t.Context(), identity(strings.Repeat("a", 52), spec), client.DryRunAll); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestEverythingButThePathAndTheServiceAccountCanBeChanged(t *testing.T) {
	object := create(t, map[string]any{"path": "/payments", "hint": "old", "x509SVIDTTL": "1h", "dnsNames": []any{"a.example"}})
	changed := identity(object.GetName(), map[string]any{"path": "/payments", "podLabels": labels(1), "jwtSVIDTTL": "5m", "dnsNames": []any{"b.example"}, "placement": "Cluster", "serviceDNSNames": true, "federatesWith": []any{"b.example"}})
	changed.SetResourceVersion(object.GetResourceVersion())
	if err := api.Update(t.Context(), changed); err != nil {
		t.Error(err)
	}
}

// create stores an identity until the end of the test.
func create(t *testing.T, spec map[string]any) *unstructured.Unstructured {
	t.Helper()
	object := identity("", spec)
	object.SetGenerateName("stored-")
	if err := api.Create(t.Context(), object); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := api.Delete(context.WithoutCancel(t.Context()), object); err != nil {
			t.Error(err)
		}
	})
	return object
}

func labels(n int) map[string]any {
	all := map[string]any{}
	for i := range n {
		all[fmt.Sprintf("example.com/label-%d", i)] = "v"
	}
	return all
}

func hosts(n int) []any {
	all := make([]any, 0, n)
	for i := range n {
		all = append(all, fmt.Sprintf("host-%d.example.com", i))
	}
	return all
}

func longHosts(n int) []any {
	all := make([]any, 0, n)
	for i := range n {
		all = append(all, fmt.Sprintf("%063d.%s", i, strings.Repeat("a.", 94)+"a"))
	}
	return all
}

func conditions(n int) []any {
	all := make([]any, 0, n)
	for i := range n {
		all = append(all, map[string]any{"type": fmt.Sprintf("C%d", i), "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"})
	}
	return all
}

func waiting(n int) []any {
	all := make([]any, 0, n)
	for i := range n {
		all = append(all, map[string]any{"reason": fmt.Sprintf("R%d", i), "count": int64(1)})
	}
	return all
}
