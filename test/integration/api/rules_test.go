package api_test

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// wrongValues are, for each rule on a single value, by the beginning of its message, values that break it and nothing else,
// wherever a field has that rule.
var wrongValues = map[string][]any{
	"a name must be a DNS-1035 label, for example contact-service: ":        {"", "Contact", "2nd", "a.b", "a-", "a_b", "a/b", "a\n"},
	"a namespace must be a DNS label, for example payments: ":               {"", "Payments", "-a", "a-", "a.b", "a_b"},
	"a name in a list must be a DNS label, for example contact-service: ":   {"", "Contact", "-a", "a-", "a.b", "a_b"},
	"a name of an object must consist of ":                                  {"", "Users", "-a", "a-", "a..b", ".a", "a.", "a/b", "a_b"},
	"a key of a ConfigMap or Secret must consist of ":                       {"", "a/b", "a b", ".", "..", "..data"},
	"a host name must be a DNS name in lower case, for example pay.example": {"", "Pay.example.com", "pay.example.com:443", "https://pay.example.com", "pay..example.com", "pay.example.com.", "*", strings.Repeat("a", 64) + ".example.com"},
	"a method must be package.Service/Method, ":                             {"", "CreatePayment", "/payment.v1.PaymentService/CreatePayment", "payment.v1.PaymentService", "payment.v1.*/CreatePayment", "payment.v1.PaymentService/Create*", "*/*", "payment..v1/A", "1a.B/C"},
	"a method to expose must be package.Service/Method, ":                   {"", "*", "CreatePayment", "/payment.v1.PaymentService/CreatePayment", "payment.v1.PaymentService/", "payment.v1.*/CreatePayment"},
	"a duration must be ":                                                  {"", "1", "1.5h", "7d", "-5m", "5m ", "123456s"},
	"an amount must be ":                                                   {"", "1e-999999999", "1e9", "-1", "+1", "500 m", "1 ", " 1", "1GB", "1g", "1u", "1i", "1mi", ".5", "5.", "1.2.3", int64(-1)},
	"spiffeID must be the SPIFFE ID of a workload, ":                       {"", "partner.example/billing", "https://partner.example/billing", "spiffe://partner.example", "spiffe://partner.example/", "spiffe://Partner.example/billing", "spiffe://partner.example/a/../b", "spiffe://partner.example:8443/billing", "spiffe:///billing"},
	"path must consist of segments, ":                                      {"", "payments/api", "/payments//api", "/payments/", "/payments/..", "/a%2Fb"},
	"path must not be /spire or below it, ":                                {"/spire", "/spire/agent/a"},
	"x509SVIDTTL must be a whole number of seconds from 1m to 168h":        {"59s", "168h1s", "1m500ms"},
	"jwtSVIDTTL must be a whole number of seconds from 30s to 24h":         {"29s", "24h1s", "30s1ms"},
	"dnsNames must be DNS names in lower case":                             {"", "*.example.com", "Pay.example.com", "pay.example.com.", "_grpc.example.com"},
	"dnsNames must not have two hyphens as the third and fourth character": {"xn--bcher-kva.example"},
	"the name of a port must be ":                                          {"", "GRPC", "1a", "a-", "a--b", "a.b"},
	"the name of a listener must be ":                                      {"", "HTTPS", "1a", "a-", "a--b", "a.b"},
	"port must be the name of a port, for example grpc, not its number":    {"", "8081", "GRPC", "a--b"},
	"the name of one of dependsOn must begin with a letter":                {"2nd-ledger"},
	"the name of one of dependsOn must be another than paymesh":            {"paymesh"},
	"port must not be 8500 (the proxy's admin), 9090 (/metrics":            {int64(8500), int64(9090), int64(15000), int64(15443), int64(15999)},
	"port must not be 8500 (the proxy's admin) or from 15000":              {int64(8500), int64(15000), int64(15999)},
	"localPort must not be 8500 (the proxy's admin), 9090 (/metrics":       {int64(8500), int64(9090), int64(15000), int64(15999)},
	"timeout must be from 1ms to 1h, for example 2s":                       {"0s", "0ms", "1h1ms", "60m1s"},
	"cidr must be an address and the length of its prefix":                 {"", "10.20.0.7", "10.20.0.0/33", "10.20.0.0-10.20.0.9", "db.example.com", "fd00::/129"},
	"podLabels must have label keys":                                       {map[string]any{"my app": "a"}, map[string]any{"": "a"}, map[string]any{"a..b/c": "a"}},
	"podLabels must have label values":                                     {"a/b", "-a", "a b"},
	"image must be the reference of an image":                              {"", "a b", "a\n", "é"},
	"the name of a variable must consist of ":                              {"", "1A", "LOG-LEVEL", "LOG.LEVEL", "A=B"},
	"path must begin with a slash and have no spaces":                      {"", "health", "/he alth", "/é"},
	"limits must have names of resources":                                  {map[string]any{"gpu": "1"}, map[string]any{"CPU": "1"}, map[string]any{"a b/c": "1"}},
	"requests must have names of resources":                                {map[string]any{"gpu": "1"}, map[string]any{"mem": "1Gi"}, map[string]any{"": "1"}},
	"size must be at least 1Mi, for example 1Gi":                           {"1", "1023Ki", "1048575", "500m", "0", int64(1), int64(1_048_575)},
	"mountPath must be an absolute path":                                   {"", "data", "/", "/data/", "/data//a", "/data/../etc", "/./data", "/a:b"},
	"mountPath must not be in a folder of the system":                      {"/etc", "/etc/paymesh", "/proc/1", "/run/spire", "/usr/local", "/var/run/x", "/dev"},
}

func TestEachRuleOnAValueRefusesAndSaysWhatToWriteInstead(t *testing.T) {
	used := map[string]bool{}
	for plural := range meshKinds {
		t.Run(plural, func(t *testing.T) {
			from := storedObjects(t, plural)
			crdOf(t, plural).EachField(func(field, _ string, schema *apiextensions.JSONSchemaProps) {
				for _, rule := range schema.XValidations {
					beginning, ok := wrongValue(rule.Message)
					if !ok {
						continue // it is about several fields: ruleCases
					}
					used[beginning] = true
					for _, wrong := range wrongValues[beginning] {
						v := violation{does: fmt.Sprintf("%#v", wrong), wrong: wrong, cause: metav1.CauseTypeFieldValueInvalid, says: []string{rule.Message}}
						if _, text := wrong.(string); text && schema.Pattern != "" && beginning == "an amount must be " {
							v.says = append(v.says, "should match '"+schema.Pattern+"'")
						}
						tryEach(t, field, locate(from, field), func(place) violation { return v })
					}
				}
			})
		})
	}
	for beginning := range wrongValues {
		if !used[beginning] {
			t.Errorf("no rule's message begins with %q", beginning)
		}
	}
}

// wrongValue finds the entry of wrongValues for a message: its longest beginning.
func wrongValue(message string) (string, bool) {
	found := ""
	for beginning := range wrongValues {
		if strings.HasPrefix(message, beginning) && len(beginning) > len(found) {
			found = beginning
		}
	}
	return found, found != ""
}

// A ruleCase breaks one rule on several fields: alone, and where the message says.
type ruleCase struct {
	// from is the spec before, where the rule is on what may change.
	from string
	spec string
	// field is where the rule speaks, message how it begins, or where it is not plain what the value was.
	field, message string
}

const (
	anImage      = "image: a"
	aService     = "workload: {image: a}, ports: [{name: grpc, port: 8081, protocol: GRPC}]"
	theExposure  = "name: api, gateway: {name: public}, hostnames: [a.example], methods: [a.B/C], auth: {jwt: users}"
	aListener    = "listeners: [{name: https, port: 443, tls: {secretName: a}}]"
	fixedService = "identity.path and identity.name cannot be set, changed or removed later, for peers know the service by them: create another MeshService"
	fixedGateway = "identity.path and identity.name cannot be set, changed or removed later, for peers know the gateway by them: create another MeshGateway"
	fixedAccount = "workload.serviceAccountName cannot be set, changed or removed later, for the identity belongs to it: create another MeshService"
	fixedClass   = "storageClassName cannot be set, changed or removed later, for a volume stays in its class: create another MeshService"
	growing      = "size cannot shrink, for a volume only grows: leave it as it was, or create another MeshService"
	eitherName   = "identity has either name, of a ServiceIdentity that exists, or path, x509SVIDTTL, jwtSVIDTTL and dnsNames of the one to create: "
	listening    = " needs ports: say in ports where the process listens"
	served       = "expose must say how each is served: transcode: true for JSON over HTTP, protocols: [GRPC] for native gRPC, or both"
	namedPort    = "expose must name one of ports in port, by its name and not its number, and may leave it out only where there is one"
	fixedPort    = "port cannot change under the same name, for the pods that run listen there: have the callers name it, add another port under a new name"
	fixedLocal   = "localPort cannot change under the same name, for the pods that run dial it: add the dependency once more under a new name"
	oneAtATime   = "ports can be added or removed, but not both in one change, for the pods that run know the old ones only: add the new ones"
	onePlace     = "must have exactly one of "
)

var ruleCases = map[string]map[string]ruleCase{
	"meshservices": {
		"a name and a path of an identity":   {spec: "{identity: {name: a, path: /a}, workload: {image: a}}", field: "spec.identity", message: eitherName},
		"a name and a TTL of an identity":    {spec: "{identity: {name: a, x509SVIDTTL: 1h}, workload: {image: a}}", field: "spec.identity", message: eitherName},
		"a name and a JWT's TTL":             {spec: "{identity: {name: a, jwtSVIDTTL: 1h}, workload: {image: a}}", field: "spec.identity", message: eitherName},
		"a name and DNS names":               {spec: "{identity: {name: a, dnsNames: [a.example]}, workload: {image: a}}", field: "spec.identity", message: eitherName},
		"a path that changes":                {from: "{identity: {path: /a}, workload: {image: a}}", spec: "{identity: {path: /b}, workload: {image: a}}", field: "spec.identity", message: fixedService},
		"a path that is set":                 {from: "{workload: {image: a}}", spec: "{identity: {path: /b}, workload: {image: a}}", field: "spec.identity", message: fixedService},
		"a path that is removed":             {from: "{identity: {path: /a}, workload: {image: a}}", spec: "{workload: {image: a}}", field: "spec.identity", message: fixedService},
		"a name of an identity that changes": {from: "{identity: {name: a}, workload: {image: a}}", spec: "{identity: {name: b}, workload: {image: a}}", field: "spec.identity", message: fixedService},
		"a service account that changes": {
			from: "{workload: {image: a, serviceAccountName: a}}", spec: "{workload: {image: a, serviceAccountName: b}}", field: "spec.workload.serviceAccountName", message: fixedAccount,
		},
		"a service account that is set":       {from: "{workload: {image: a}}", spec: "{workload: {image: a, serviceAccountName: b}}", field: "spec.workload.serviceAccountName", message: fixedAccount},
		"a service account that is removed":   {from: "{workload: {image: a, serviceAccountName: a}}", spec: "{workload: {image: a}}", field: "spec.workload.serviceAccountName", message: fixedAccount},
		"a port that changes":                 {from: "{" + aService + "}", spec: "{workload: {image: a}, ports: [{name: grpc, port: 9999, protocol: GRPC}]}", field: "spec.ports[0].port", message: fixedPort},
		"a port that changes behind another":  {from: "{" + aService + "}", spec: "{workload: {image: a}, ports: [{name: new, port: 8082, protocol: GRPC}, {name: grpc, port: 9999, protocol: GRPC}]}", field: "spec.ports[1].port", message: fixedPort},
		"a port in place of another":          {from: "{" + aService + "}", spec: "{workload: {image: a}, ports: [{name: new, port: 8082, protocol: GRPC}]}", field: "spec.ports", message: oneAtATime},
		"a port that gets another name":       {from: "{" + aService + "}", spec: "{workload: {image: a}, ports: [{name: new, port: 8081, protocol: GRPC}]}", field: "spec.ports", message: oneAtATime},
		"a localPort that changes":            {from: "{workload: {image: a}, dependsOn: [{name: a, service: {name: a}, localPort: 5001}]}", spec: "{workload: {image: a}, dependsOn: [{name: a, service: {name: a}, localPort: 5002}]}", field: "spec.dependsOn[0].localPort", message: fixedLocal},
		"Library without a word of the image": {spec: "{dataPlane: Library, workload: {image: a}}", field: "spec.dataPlane", message: "dataPlane Library needs workload.policySupport: Enforced, "},
		"Library of an image that does not":   {spec: "{dataPlane: Library, workload: {image: a, policySupport: None}}", field: "spec.dataPlane", message: "dataPlane Library needs workload.policySupport: Enforced, "},
		"Library later":                       {from: "{workload: {image: a}}", spec: "{dataPlane: Library, workload: {image: a}}", field: "spec.dataPlane", message: "dataPlane Library needs workload.policySupport: Enforced, "},
		"two replicas of one volume":          {spec: "{workload: {image: a, replicas: 2, persistence: {size: 1Gi}}}", field: "spec.workload.replicas", message: "workload.replicas must be 0 or 1 with workload.persistence: "},
		"expose without ports":                {spec: "{workload: {image: a}, expose: [{" + theExposure + ", protocols: [GRPC]}]}", field: "spec.expose", message: "expose" + listening},
		"allow without ports":                 {spec: "{workload: {image: a}, allow: [{name: a, from: {service: {name: a}}, methods: ['*']}]}", field: "spec.allow", message: "allow" + listening},
		"transcode without api":               {spec: "{" + aService + ", expose: [{" + theExposure + ", transcode: true}]}", field: "spec.api", message: "api.descriptorSet must be given where expose has transcode: true"},
		"an exposure that says nothing":       {spec: "{" + aService + ", expose: [{" + theExposure + "}]}", field: "spec.expose[0]", message: served},
		"an exposure that is not transcoded":  {spec: "{" + aService + ", expose: [{" + theExposure + ", transcode: false}]}", field: "spec.expose[0]", message: served},
		"an exposure of an unknown port":      {spec: "{" + aService + ", expose: [{" + theExposure + ", protocols: [GRPC], port: admin}]}", field: "spec.expose", message: namedPort},
		"an exposure of a port by its number": {spec: "{" + aService + ", expose: [{" + theExposure + ", protocols: [GRPC], port: '8081'}]}", field: "spec.expose", message: namedPort},
		"an exposure of one of two ports":     {spec: "{workload: {image: a}, ports: [{name: a, port: 8081, protocol: GRPC}, {name: b, port: 8082, protocol: GRPC}], expose: [{" + theExposure + ", protocols: [GRPC]}]}", field: "spec.expose", message: namedPort},
		"one localPort twice":                 {spec: "{workload: {image: a}, dependsOn: [{name: a, service: {name: a}, localPort: 50051}, {name: b, service: {name: b}, localPort: 50051}]}", field: "spec.dependsOn", message: "dependsOn must each have a localPort of their own: choose another "},
		"a localPort that is a port":          {spec: "{" + aService + ", dependsOn: [{name: a, service: {name: a}, localPort: 8081}]}", field: "spec.dependsOn", message: "dependsOn must not have a localPort that is one of ports: "},
		"one port twice":                      {spec: "{workload: {image: a}, ports: [{name: a, port: 8081, protocol: GRPC}, {name: b, port: 8081, protocol: GRPC}]}", field: "spec.ports", message: "ports must each have a port of their own: choose another "},
		"health on one of ports":              {spec: "{workload: {image: a, health: {path: /, port: 8081}}, ports: [{name: grpc, port: 8081, protocol: GRPC}]}", field: "spec.workload.health.port", message: "workload.health.port must not be one of ports: "},
		"health on a localPort":               {spec: "{workload: {image: a, health: {path: /, port: 50051}}, dependsOn: [{name: a, service: {name: a}, localPort: 50051}]}", field: "spec.workload.health.port", message: "workload.health.port must not be a localPort of dependsOn, "},
		"methods of too many characters": {
			spec:  "{" + aService + ", allow: [" + manyRules(33, 64, 16) + "]}",
			field: "spec.allow", message: "allow must have methods and SPIFFE IDs of together at most 32,768 characters",
		},
		"a caller that is nobody":               {spec: "{" + aService + ", allow: [{name: a, from: {}, methods: ['*']}]}", field: "spec.allow[0].from", message: "from " + onePlace + "service, a MeshService, and spiffeID, "},
		"a caller that is two":                  {spec: "{" + aService + ", allow: [{name: a, from: {service: {name: a}, spiffeID: 'spiffe://a.example/b'}, methods: ['*']}]}", field: "spec.allow[0].from", message: "from " + onePlace + "service, a MeshService, and spiffeID, "},
		"a way out to nowhere":                  {spec: "{workload: {image: a}, egress: [{name: a, to: {}, port: 1}]}", field: "spec.egress[0].to", message: "to " + onePlace + "cidr, for addresses outside the cluster, and selector, "},
		"a way out to two places":               {spec: "{workload: {image: a}, egress: [{name: a, to: {cidr: 10.0.0.0/8, selector: {podLabels: {app: a}}}, port: 1}]}", field: "spec.egress[0].to", message: "to " + onePlace + "cidr, for addresses outside the cluster, and selector, "},
		"a variable with two values":            {spec: "{workload: {image: a, env: [{name: A, value: a, valueFrom: {secretKeyRef: {name: a, key: a}}}]}}", field: "spec.workload.env[0]", message: "env must have value or valueFrom of a variable, not both: leave one out"},
		"a volume that changes its class":       {from: "{workload: {image: a, persistence: {size: 1Gi, storageClassName: a}}}", spec: "{workload: {image: a, persistence: {size: 1Gi, storageClassName: b}}}", field: "spec.workload.persistence.storageClassName", message: fixedClass},
		"a volume that is given a class":        {from: "{workload: {image: a, persistence: {size: 1Gi}}}", spec: "{workload: {image: a, persistence: {size: 1Gi, storageClassName: b}}}", field: "spec.workload.persistence.storageClassName", message: fixedClass},
		"a volume that loses its class":         {from: "{workload: {image: a, persistence: {size: 1Gi, storageClassName: a}}}", spec: "{workload: {image: a, persistence: {size: 1Gi}}}", field: "spec.workload.persistence.storageClassName", message: fixedClass},
		"a volume that shrinks":                 {from: "{workload: {image: a, persistence: {size: 1Gi}}}", spec: "{workload: {image: a, persistence: {size: 1023Mi}}}", field: "spec.workload.persistence.size", message: growing},
		"a volume that shrinks, without a unit": {from: "{workload: {image: a, persistence: {size: 2097152}}}", spec: "{workload: {image: a, persistence: {size: 2097151}}}", field: "spec.workload.persistence.size", message: growing},
	},
	"meshgateways": {
		"a name and a path of an identity":   {spec: "{identity: {name: a, path: /a}, " + aListener + "}", field: "spec.identity", message: eitherName},
		"a path that changes":                {from: "{identity: {path: /a}, " + aListener + "}", spec: "{identity: {path: /b}, " + aListener + "}", field: "spec.identity", message: fixedGateway},
		"a path that is set":                 {from: "{" + aListener + "}", spec: "{identity: {path: /b}, " + aListener + "}", field: "spec.identity", message: fixedGateway},
		"a name of an identity that changes": {from: "{identity: {name: a}, " + aListener + "}", spec: "{identity: {name: b}, " + aListener + "}", field: "spec.identity", message: fixedGateway},
		"a listener that comes when another goes": {
			from: "{" + aListener + "}", spec: "{listeners: [{name: other, port: 8443, tls: {secretName: a}}]}", field: "spec.listeners", message: "listeners can be added or removed, but not both in one change, for the pods that run have the certificates of the old ones only: ",
		},
		"a listener that takes the port of another": {
			from: "{" + aListener + "}", spec: "{listeners: [{name: https, port: 8443, tls: {secretName: a}}, {name: other, port: 443, tls: {secretName: a}}]}", field: "spec.listeners", message: "listeners that are new must not take the port of one that is there, ",
		},
		"one port twice": {
			spec: "{listeners: [{name: a, port: 443, tls: {secretName: a}}, {name: b, port: 443, tls: {secretName: a}}]}", field: "spec.listeners", message: "listeners must each have a port of their own: choose another ",
		},
	},
}

func TestEachRuleOnSeveralFieldsRefusesAndSaysWhatToWriteInstead(t *testing.T) {
	for plural, kind := range meshKinds {
		var heard []metav1.StatusCause
		for name, c := range ruleCases[plural] {
			t.Run(plural+"/"+name, func(t *testing.T) {
				found := causes(c.submit(t, kind))
				if len(found) != 1 || found[0].Field != c.field || !strings.Contains(found[0].Message, c.message) {
					t.Errorf("got  %+v\nwant %s: %s, alone", found, c.field, c.message)
				}
				heard = append(heard, found...)
			})
		}
		for name, wrong := range names {
			t.Run(plural+"/"+name, func(t *testing.T) {
				object := whole(t, plural)[0]
				object.SetName(wrong)
				err := api.Create(t.Context(), object, client.DryRunAll)
				if err == nil || !strings.Contains(err.Error(), "metadata.name must be a DNS-1035 label of at most 52 characters, for example ") {
					t.Error(err)
				}
				heard = append(heard, causes(err)...)
			})
		}
		requireEveryRule(t, plural, heard)
	}
}

// submit returns what the API server says to the spec, as a new object or as a change of one that is there.
func (c ruleCase) submit(t *testing.T, kind string) error {
	t.Helper()
	object := parsed(t, kind, c.spec)
	if c.from == "" {
		return api.Create(t.Context(), object, client.DryRunAll)
	}
	stored := parsed(t, kind, c.from)
	stored.SetName("")
	stored.SetGenerateName("stored-")
	if err := api.Create(t.Context(), stored); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := api.Delete(context.WithoutCancel(t.Context()), stored); err != nil {
			t.Error(err)
		}
	})
	object.SetName(stored.GetName())
	object.SetResourceVersion(stored.GetResourceVersion())
	return api.Update(t.Context(), object, client.DryRunAll)
}

// requireEveryRule fails for each rule of a kind that no case is about. The bounds need none: their cases are made from the
// CRD, and so are those of the rules of wrongValues.
func requireEveryRule(t *testing.T, plural string, heard []metav1.StatusCause) {
	t.Helper()
	onValues, onFields := 0, 0
	require := func(field, message string) {
		if _, ok := wrongValue(message); ok {
			onValues++
			return
		}
		onFields++
		if !slices.ContainsFunc(heard, func(c metav1.StatusCause) bool {
			return regexp.MustCompile(`\[\d+\]`).ReplaceAllString(c.Field, "[]") == field && strings.HasSuffix(c.Message, message)
		}) {
			t.Errorf("%s: no case is refused at %q with %q: write one", plural, field, message)
		}
	}
	crd := crdOf(t, plural)
	for _, rule := range crd.Schema.XValidations {
		require("<nil>", rule.Message)
	}
	crd.EachField(func(field, _ string, schema *apiextensions.JSONSchemaProps) {
		for _, rule := range schema.XValidations {
			require(field+rule.FieldPath, rule.Message)
		}
	})
	t.Logf("%s: %d rules on a value, %d on several fields", plural, onValues, onFields)
}

// manyRules are so many rules of so many methods, each of so many characters.
func manyRules(rules, methods, characters int) string {
	const method = "a.B/M"
	var all []string
	for i := range rules {
		var of []string
		for j := range methods {
			of = append(of, fmt.Sprintf("%s%0*d", method, characters-len(method), j))
		}
		all = append(all, fmt.Sprintf("{name: r%d, from: {service: {name: a}}, methods: [%s]}", i, strings.Join(of, ", ")))
	}
	return strings.Join(all, ", ")
}
