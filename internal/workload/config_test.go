package workload_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/workload"
	"github.com/jia-app/paymesh/payment/config"
)

func TestBehindASidecarTheProcessListensOnLoopbackAndBelievesTheSidecar(t *testing.T) {
	c, err := config.Parse("config.yaml", []byte(configYAML(t, payment(t))), noEnv)
	if err != nil {
		t.Fatal(err)
	}
	want := config.Default()
	want.GRPC.Address = "127.0.0.1:8081"
	want.ServiceMesh = config.ServiceMesh{
		Enabled: true, SPIFFEID: "spiffe://jia.app/payment-service", TrustXFCC: true,
		Discovery: config.Discovery{Scheme: "xds", EnvoyAddress: "127.0.0.1:8500"},
	}
	want.ExternalServices.ContactService.Address, want.ExternalServices.ContactService.TimeoutSeconds = "127.0.0.1:50051", 2
	want.Store.Path = "/var/lib/paymesh/payments.db"
	want.Auth.JWT.Issuer, want.Auth.JWT.Audience, want.Auth.JWT.JWKSFile = "https://issuer.jia.app", "payments", "/keys/jwks.json"
	if diff := cmp.Diff(want, c, cmp.Comparer(func(x, y config.Secret) bool { return x.Reveal() == y.Reveal() })); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWithoutASidecarTheProcessSpeaksMTLSAndReadsTheRules(t *testing.T) {
	c, err := config.Parse("config.yaml", []byte(configYAML(t, library(t))), noEnv)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]any{
		"grpc.address": c.GRPC.Address, "trust_xfcc": c.ServiceMesh.TrustXFCC, "mtls": c.MTLS, "scheme": c.ServiceMesh.Discovery.Scheme,
		"contact": c.ExternalServices.ContactService, "policy_file": c.Auth.PolicyFile,
	}
	want := map[string]any{
		"grpc.address": ":15443", "trust_xfcc": false,
		"mtls":        config.MTLS{Enabled: true, WorkloadAPI: "unix:///run/spiffe/workload-api/spire-agent.sock"},
		"scheme":      "dns",
		"contact":     config.ExternalService{Name: "contact-service", Address: "contact-service.people.svc:15443", SPIFFEID: "spiffe://jia.app/contact-service", TimeoutSeconds: 2},
		"policy_file": "/etc/paymesh/policy/policy.yaml",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTheRulesAreAPolicyThatTheProcessReads(t *testing.T) {
	s := library(t)
	s.Workload.Config = nil // an image with a config of its own has the rules all the same
	two := s.Rules[0]
	two.PortName = "another" // the mesh has a rule for each port, a process has one
	s.Rules = append(s.Rules, two)
	data := find[*corev1.ConfigMap](mustRender(t, s), "payment-service-policy").Data
	policy, err := config.ParsePolicy("policy.yaml", []byte(data["policy.yaml"]))
	if err != nil || len(data) != 1 {
		t.Fatal(err, data)
	}
	want := config.Policy{Rules: []config.PolicyRule{{Name: "expose:api", SPIFFEID: "spiffe://jia.app/ns/edge/sa/public", Methods: []string{"payment.v1.PaymentService/CreatePayment"}}}}
	if diff := cmp.Diff(want, policy); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWhatIsWrongWithAConfigIsNamedWithItsFieldAndTheRestIsRendered(t *testing.T) {
	env := func(name, value string) func(*mesh.Service) {
		return func(s *mesh.Service) {
			s.Workload.Env = append(s.Workload.Env, meshv1alpha1.EnvVar{Name: name, Value: value})
		}
	}
	for name, c := range map[string]struct {
		config string
		change func(*mesh.Service)
		want   []string
	}{
		"an unknown key":           {config: jwt + "store: {paht: /x}\n", want: []string{"spec.workload.config.store.paht | spec.workload.config.store.paht: unknown key; store has path"}},
		"an unknown section":       {config: jwt + "shop: {}\n", want: []string{"spec.workload.config.shop: unknown key"}},
		"what can be no key":       {config: jwt + "'store path': /x\n", want: []string{"spec.workload.config: config.yaml:25: store path: unknown key; the file has"}},
		"a wrong type":             {config: jwt + "circuit_breaker: {failure_threshold: many}\n", want: []string{"spec.workload.config.circuit_breaker.failure_threshold: want a whole number"}},
		"out of bounds":            {config: jwt + "store: {idempotency_retention_hours: 1}\n", want: []string{"spec.workload.config.store.idempotency_retention_hours: is 1: want 24"}},
		"no section":               {config: jwt + "grpc: 5\n", want: []string{"spec.workload.config.grpc: want keys with values"}},
		"what the mesh decides":    {config: jwt + "grpc: {address: '127.0.0.1:9999'}\n", want: []string{"spec.workload.config.grpc.address: is decided by the mesh (127.0.0.1:8081): leave it out"}},
		"somebody else's identity": {config: jwt + "service_mesh: {spiffe_id: spiffe://jia.app/x, enabled: false}\n", want: []string{"service_mesh.enabled: is decided by the mesh (true)", "service_mesh.spiffe_id: is decided by the mesh (spiffe://jia.app/payment-service)"}},
		"a variable that is not set": {
			config: "auth: {jwt: {issuer: '${ISSUER}', audience: payments, jwks_file: /k}}\n", want: []string{"spec.workload.config.auth.jwt.issuer: the variable ISSUER is not set: set it in spec.workload.env"},
		},
		"a secret in the clear": {config: jwt + "api_gateway: {api_key: hunter2}\n", want: []string{"as a reference only, like ${API_GATEWAY_KEY}"}},
		"no issuer":             {config: "{}\n", want: []string{"auth.jwt.issuer: is required", "auth.jwt.audience: is required", "auth.jwt.jwks_file: is required"}},
		"null":                  {config: "null\n", want: []string{"spec.workload.config: is no object"}},
		"no dependency": {config: jwt, change: func(s *mesh.Service) { s.Dependencies = nil }, want: []string{
			`spec.workload.config.external_services.contact_service.address: is "": want host:port, or :port for all addresses; add spec.dependsOn with the name contact-service`,
		}},
		"no volume":                            {config: jwt, change: func(s *mesh.Service) { s.Workload.Persistence = nil }, want: []string{"spec.workload.config.store.path: is required; add spec.workload.persistence"}},
		"a store that ends with its pod":       {config: jwt + "store: {path: /tmp/payments.db}\n", change: func(s *mesh.Service) { s.Workload.Persistence = nil }, want: []string{"spec.workload.config.store.path: is /tmp/payments.db, which no volume keeps: payments and idempotency keys would end with the container, and each replica would have its own, so that a repeated call pays again; add spec.workload.persistence"}},
		"a store beside its volume":            {config: jwt + "store: {path: /var/lib/paymesh/../payments.db}\n", want: []string{"spec.workload.config.store.path: is /var/lib/paymesh/../payments.db, which is not below /var/lib/paymesh, where the volume is"}},
		"a store elsewhere by a variable":      {config: jwt, change: env("STORE_PATH", "/tmp/payments.db"), want: []string{"spec.workload.env[name=STORE_PATH].value: is /tmp/payments.db, which is not below /var/lib/paymesh"}},
		"a store elsewhere by a reference":     {config: jwt + "store: {path: '${DIR}/payments.db'}\n", change: env("DIR", "/tmp"), want: []string{"spec.workload.config.store.path: is /tmp/payments.db, which is not below /var/lib/paymesh"}},
		"another file by an argument":          {config: jwt, change: func(s *mesh.Service) { s.Workload.Args = []string{"-v", "-config=/mine/config.yaml"} }, want: []string{"spec.workload.args[1]: the process would read that file in place of spec.workload.config: leave it out"}},
		"a variable against the mesh":          {config: jwt, change: env("GRPC_ADDRESS", "0.0.0.0:8081"), want: []string{"spec.workload.env[name=GRPC_ADDRESS] | spec.workload.env[name=GRPC_ADDRESS]: the process would take it for grpc.address"}},
		"a variable of a wrong type":           {config: jwt, change: env("STORE_IDEMPOTENCY_RETENTION_HOURS", "long"), want: []string{"spec.workload.env[name=STORE_IDEMPOTENCY_RETENTION_HOURS].value: for store.idempotency_retention_hours of config.yaml want a whole number"}},
		"a dependency that is a key's name":    {config: jwt, change: func(s *mesh.Service) { s.Dependencies[1].Name = "http" }, want: []string{"spec.dependsOn[name=http].name: the process would take its variable HTTP_ADDRESS for http.address"}},
		"two lists of callers, in the library": {config: jwt[:len(jwt)-2] + ", allowed_spiffe_ids: ['spiffe://jia.app/x']}\n", change: func(s *mesh.Service) { s.DataPlane = meshv1alpha1.DataPlaneLibrary }, want: []string{"spec.workload.config.auth.policy_file: is set, and auth.allowed_spiffe_ids too"}},
	} {
		s := payment(t)
		s.Workload.Config = fields(t, c.config)
		if c.change != nil {
			c.change(&s)
		}
		objects, problems := workload.Service(s, proxyFiles, options)
		got := said(problems)
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: it is said\n%s\nand not %s", name, got, want)
			}
		}
		if len(problems) != len(c.want) || strings.Count(got, "Accepted ConfigInvalid ") != len(problems) {
			t.Errorf("%s: %d problems, want %d:\n%s", name, len(problems), len(c.want), got)
		}
		if find[*appsv1.Deployment](objects, s.Key.Name) != nil || find[*corev1.ConfigMap](objects, s.Key.Name+"-config") != nil || find[*corev1.Service](objects, s.Key.Name) == nil {
			t.Errorf("%s: rendered is what cannot be, or not what can", name)
		}
	}
}

func TestWhatOnlyTheProcessWillSeeIsNotJudged(t *testing.T) {
	secret := &meshv1alpha1.EnvVarSource{SecretKeyRef: meshv1alpha1.SecretKey{Name: "s", Key: "k"}}
	for name, c := range map[string]struct {
		config string
		env    []meshv1alpha1.EnvVar
	}{
		"a variable of the spec":                     {"auth: {jwt: {issuer: '${ISSUER}', audience: a, jwks_file: /k}}", []meshv1alpha1.EnvVar{{Name: "ISSUER", Value: "https://i"}}},
		"a secret":                                   {"auth: {jwt: {issuer: '${ISSUER}', audience: a, jwks_file: /k}}", []meshv1alpha1.EnvVar{{Name: "ISSUER", ValueFrom: secret}}},
		"a secret that is an address":                {jwt + "api_gateway: {address: 'gw:${PORT}', enable_tls: true}", []meshv1alpha1.EnvVar{{Name: "PORT", ValueFrom: secret}}},
		"a store of one's own choice on the volume":  {jwt + "store: {path: '/var/lib/paymesh/${NAME}'}", []meshv1alpha1.EnvVar{{Name: "NAME", Value: "a.db"}}},
		"a store that a Secret names":                {jwt + "store: {path: '${NAME}'}", []meshv1alpha1.EnvVar{{Name: "NAME", ValueFrom: secret}}},
		"a secret that is a number":                  {jwt + "store: {idempotency_retention_hours: '${HOURS}'}", []meshv1alpha1.EnvVar{{Name: "HOURS", ValueFrom: secret}}},
		"a secret that overrides":                    {"auth: {jwt: {audience: a, jwks_file: /k}}", []meshv1alpha1.EnvVar{{Name: "AUTH_JWT_ISSUER", ValueFrom: secret}}},
		"a value of other variables":                 {jwt + "store: {idempotency_retention_hours: '${HOURS}'}", []meshv1alpha1.EnvVar{{Name: "HOURS", Value: "2$(DIGIT)"}}},
		"a variable of the operator":                 {jwt + "api_gateway: {address: '${CONTACT_SERVICE_ADDRESS}'}", nil},
		"the API key":                                {jwt + "api_gateway: {api_key: '${KEY}'}", []meshv1alpha1.EnvVar{{Name: "KEY", ValueFrom: secret}}},
		"the same as the mesh decides":               {jwt + "grpc: {address: '127.0.0.1:8081'}\nmtls: {enabled: false}", nil},
		"the same as the mesh decides by a variable": {jwt, []meshv1alpha1.EnvVar{{Name: "GRPC_ADDRESS", Value: "127.0.0.1:8081"}}},
	} {
		s := payment(t)
		s.Workload.Config, s.Workload.Env = fields(t, c.config), c.env
		if _, problems := workload.Service(s, proxyFiles, options); len(problems) > 0 {
			t.Errorf("%s: %s", name, said(problems))
		}
	}
}

func TestReferencesStayInTheFileForTheProcess(t *testing.T) {
	s := payment(t)
	s.Workload.Config = fields(t, "auth: {jwt: {issuer: '${ISSUER}', audience: a, jwks_file: /k, leeway_seconds: 5}}")
	s.Workload.Env = []meshv1alpha1.EnvVar{{Name: "ISSUER", Value: "https://i"}}
	if got := configYAML(t, s); !strings.Contains(got, "issuer: ${ISSUER}\n") || !strings.Contains(got, "leeway_seconds: 5\n") {
		t.Error(got)
	}
}

func TestAProcessThatTakesLongToEndHasTheTimeFor(t *testing.T) {
	s := payment(t)
	s.Workload.Config = fields(t, jwt+"grpc: {shutdown_timeout_seconds: 100}")
	if got := *deployment(t, s).Spec.Template.Spec.TerminationGracePeriodSeconds; got != 110 {
		t.Errorf("grace period %d, want 5 + 100 + 5", got)
	}
	s.Workload.Env = []meshv1alpha1.EnvVar{{Name: "GRPC_SHUTDOWN_TIMEOUT_SECONDS", Value: "40"}}
	if got := *deployment(t, s).Spec.Template.Spec.TerminationGracePeriodSeconds; got != 50 {
		t.Errorf("grace period %d, want 5 + 40 + 5", got)
	}
}

func TestConfigsOfAnyKindAreJudgedAndNeverCrash(t *testing.T) {
	for _, raw := range []string{"", "{", "[]", "5", `""`, `{"grpc":null}`, `{"grpc":{"address":null}}`, `{"a":{"b":[{}]}}`, `{"auth":[]}`, `{"":{}}`, `{"auth":{"jwt":{"issuer":1e400}}}`} {
		s := payment(t)
		s.Workload.Config = &apiextensionsv1.JSON{Raw: []byte(raw)}
		if _, problems := workload.Service(s, proxyFiles, options); len(problems) == 0 {
			t.Errorf("%s is taken", raw)
		}
	}
}

func noEnv(string) (string, bool) { return "", false }
