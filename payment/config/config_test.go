package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func document(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("testdata/config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func environment(overrides map[string]string) LookupEnv {
	variables := map[string]string{
		"API_GATEWAY_KEY": "canary-key", "MTLS_CERT_FILE": "/etc/spiffe/certs/server.crt",
		"MTLS_KEY_FILE": "/etc/spiffe/certs/server.key", "MTLS_CA_FILE": "/etc/spiffe/certs/ca.crt",
	}
	maps.Copy(variables, overrides)
	return func(name string) (string, bool) {
		value, set := variables[name]
		return value, set
	}
}

func TestTheFileIsReadAndItsReferencesExpanded(t *testing.T) {
	c, err := Load("testdata/config.yaml", environment(nil))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.APIGateway.APIKey.Reveal(); got != "canary-key" {
		t.Errorf("the key is %q", got)
	}
	if c.MTLS.CertFile != "/etc/spiffe/certs/server.crt" || c.ServiceMesh.Discovery.EnvoyAddress != "localhost:8500" || c.ExternalServices.ContactService.TimeoutSeconds != 2 {
		t.Errorf("got %+v", c)
	}
	if _, err := Load("testdata/none.yaml", environment(nil)); err == nil || !strings.Contains(err.Error(), "testdata/none.yaml") {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestTheEnvironmentOverridesTheFile(t *testing.T) {
	c, err := Parse("config.yaml", []byte(document(t)), environment(map[string]string{
		"SERVICE_MESH_SPIFFE_ID":                        "spiffe://jia.app/other",
		"SERVICE_MESH_DISCOVERY_ENVOY_ADDRESS":          "localhost:1",
		"EXTERNAL_SERVICES_CONTACT_SERVICE_ADDRESS":     "127.0.0.1:50051",
		"CIRCUIT_BREAKER_FAILURE_THRESHOLD":             "7",
		"AUTH_ALLOWED_SPIFFE_IDS":                       "spiffe://jia.app/a, spiffe://jia.app/b",
		"MTLS_CERT_FILE":                                "/elsewhere",
		"EXTERNAL_SERVICES_CONTACT_SERVICE_SPIFFE_ID":   "spiffe://jia.app/contacts",
		"API_GATEWAY_API_KEY":                           "${NOT_EXPANDED}",
		"SOMETHING_ELSE_THAT_NOBODY_READS_FROM_HERE_ON": "x",
	}))
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(c.ServiceMesh.SPIFFEID, c.ServiceMesh.Discovery.EnvoyAddress, c.ExternalServices.ContactService.Address, c.CircuitBreaker.FailureThreshold,
		c.Auth.AllowedSPIFFEIDs, c.MTLS.CertFile, c.ExternalServices.ContactService.SPIFFEID, c.APIGateway.APIKey.Reveal())
	if want := "spiffe://jia.app/other" + "localhost:1" + "127.0.0.1:50051 7 [spiffe://jia.app/a spiffe://jia.app/b] /elsewhere" + "spiffe://jia.app/contacts" + "${NOT_EXPANDED}"; strings.ReplaceAll(got, " ", "") != strings.ReplaceAll(want, " ", "") {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestWhatIsWrongIsNamedWithFileKeyAndReason(t *testing.T) {
	cases := map[string]struct {
		from, to  string
		variables map[string]string
		want      string
	}{
		"an unknown key":              {from: "  enable_reflection: false", to: "  enable_reflect: false", want: "config.yaml:10: grpc.enable_reflect: unknown key; grpc has address, enable_reflection,"},
		"an unknown section":          {from: "grpc:", to: "grcp:", want: "config.yaml:8: grcp: unknown key; the file has api_gateway,"},
		"a key twice":                 {from: "  enable_tls: true", to: "  enable_tls: true\n  enable_tls: true", want: "config.yaml:5: api_gateway.enable_tls: is there twice"},
		"text for a number":           {from: "dial_timeout_seconds: 30", to: `dial_timeout_seconds: "30"`, want: "config.yaml:6: api_gateway.dial_timeout_seconds: want a whole number, not text"},
		"a number for text":           {from: `namespace: "default"`, to: "namespace: 5", want: "service_mesh.discovery.namespace: want text (in quotes, where it looks like something else), not a number"},
		"text for a switch":           {from: "enable_reflection: false", to: "enable_reflection: maybe", want: "grpc.enable_reflection: want true or false, not text"},
		"nothing":                     {from: `namespace: "default"`, to: "namespace:", want: "service_mesh.discovery.namespace: want text (in quotes, where it looks like something else), not nothing"},
		"text for a list":             {from: "allowed_spiffe_ids:\n  - spiffe://jia.app/api-gateway", to: "allowed_spiffe_ids: a", want: "auth.allowed_spiffe_ids: want a list, not text"},
		"text for a section":          {from: "grpc:\n  address: \"127.0.0.1:8081\"\n  enable_reflection: false", to: "grpc: yes", want: "config.yaml:8: grpc: want keys with values below it, not text"},
		"a variable that is not set":  {from: "${API_GATEWAY_KEY}", to: "${NO_SUCH_KEY}", want: "config.yaml:5: api_gateway.api_key: the variable NO_SUCH_KEY is not set"},
		"a broken reference":          {from: `namespace: "default"`, to: `namespace: "${NAME"`, want: `service_mesh.discovery.namespace: "${NAME" is not a reference: want ${NAME}`},
		"a secret that looks like it": {from: "${API_GATEWAY_KEY}", to: "a${canary}-${canary", want: "api_gateway.api_key: it has a ${ that begins no reference: want ${NAME}, of letters, digits and underscores", variables: map[string]string{"canary": "x"}},
		"a secret as an alias":        {from: `"${API_GATEWAY_KEY}"`, to: "*canary", want: "config.yaml: has an alias of nothing: put a text that begins with * in quotes"},
		"a wrong override":            {variables: map[string]string{"GRPC_ENABLE_REFLECTION": "1"}, want: "the variable GRPC_ENABLE_REFLECTION, for grpc.enable_reflection of config.yaml: want true or false"},
		"a document behind":           {from: "api_gateway:", to: "a: b\n---\napi_gateway:", want: "config.yaml: has more than one document"},
		"no YAML":                     {from: "api_gateway:", to: "\tapi_gateway:", want: "config.yaml: yaml:"},
		"open without mTLS":           {from: "127.0.0.1:8081", to: ":8081", want: `config.yaml: grpc.address: is ":8081": without mtls.enabled want a loopback address`},
		"two sources of identity":     {from: "mtls:\n  enabled: false", to: "mtls:\n  enabled: true", want: "service_mesh.trust_xfcc: is true: want exactly one of"},
		"no source of identity":       {from: "trust_xfcc: true", to: "trust_xfcc: false", want: "service_mesh.trust_xfcc: is false: want exactly one of"},
		"XFCC without the mesh":       {from: "service_mesh:\n  enabled: true", to: "service_mesh:\n  enabled: false", want: "service_mesh.enabled: must be true where"},
		"nobody may call": {
			from: "  allowed_spiffe_ids:\n  - spiffe://jia.app/api-gateway\n", to: "", want: "auth.policy_file: is empty, and auth.allowed_spiffe_ids too: nobody may call",
			variables: map[string]string{"MTLS_ENABLED": "true", "SERVICE_MESH_TRUST_XFCC": "false", "SERVICE_MESH_DISCOVERY_SCHEME": "dns"},
		},
		"two lists of callers":             {from: "auth:", to: "auth:\n  policy_file: /policy.yaml", want: "auth.policy_file: is set, and auth.allowed_spiffe_ids too"},
		"xds without a sidecar":            {variables: map[string]string{"MTLS_ENABLED": "true", "SERVICE_MESH_TRUST_XFCC": "false"}, want: "service_mesh.discovery.scheme: is xds: with mtls.enabled there is no sidecar"},
		"a way around the sidecar":         {from: "127.0.0.1:50051", to: "contact-service:50051", want: `external_services.contact_service.address: is "contact-service:50051": behind a sidecar want the sidecar's address`},
		"an optional service, half":        {from: "external_services:", to: "external_services:\n  family_service: {address: family}", want: `external_services.family_service.address: is "family": want host:port`},
		"two services of one name":         {from: "external_services:", to: "external_services:\n  family_service: {address: 127.0.0.1:1, name: contact-service}", want: `external_services.family_service.name: is "contact-service", as that of external_services.contact_service`},
		"a namespace that is none":         {from: `namespace: "default"`, to: `namespace: "a.b"`, want: `service_mesh.discovery.namespace: is "a.b": want the name of a namespace`},
		"authorities and nothing verified": {from: "  enable_tls: true\n  api_key: \"${API_GATEWAY_KEY}\"", to: "  enable_tls: false\n  ca_file: /ca.pem", want: "api_gateway.enable_tls: must be true where api_gateway.ca_file is set"},
		"an ID that is none":               {from: "spiffe://jia.app/api-gateway", to: "jia.app/api-gateway", want: "auth.allowed_spiffe_ids[0]: is \"jia.app/api-gateway\""},
		"a trust domain for an ID":         {from: "spiffe://jia.app/api-gateway", to: "spiffe://jia.app", want: "want the ID of a workload, with a path"},
		"too short a retention":            {from: "store:", to: "store:\n  idempotency_retention_hours: 23", want: "store.idempotency_retention_hours: is 23: want 24 to"},
		"too wide a leeway":                {from: "audience: payments", to: "audience: payments\n    leeway_seconds: 61", want: "auth.jwt.leeway_seconds: is 61: want 0 to 60"},
		"no audience":                      {from: "    audience: payments\n", to: "", want: "auth.jwt.audience: is required"},
		"a key in the clear":               {from: "enable_tls: true", to: "enable_tls: false", want: "api_gateway.enable_tls: must be true where api_gateway.api_key is set"},
		"an address without a port":        {from: "127.0.0.1:50051", to: "127.0.0.1", want: `external_services.contact_service.address: is "127.0.0.1": want host:port`},
		"another scheme of discovery":      {from: `scheme: "xds"`, to: `scheme: "consul"`, want: `service_mesh.discovery.scheme: is "consul": want xds, dns or srv`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			before := document(t)
			text := strings.Replace(before, c.from, c.to, 1)
			if text == before && c.variables == nil {
				t.Fatal("the case changes nothing")
			}
			_, err := Parse("config.yaml", []byte(text), environment(c.variables))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "canary") {
				t.Errorf("the error shows a secret: %v", err)
			}
		})
	}
}

func TestAllThatIsWrongIsToldAtOnce(t *testing.T) {
	_, err := Parse("config.yaml", []byte("grpc: {adr: x}\nhtpp: {}\n"), environment(nil))
	if err == nil || strings.Count(err.Error(), "unknown key") != 2 {
		t.Errorf("got %v", err)
	}
}

func TestWhatIsWrongIsAValueWithItsKeyForWhoeverShowsItElsewhere(t *testing.T) {
	const jwt = "auth: {jwt: {issuer: i, audience: a, jwks_file: k}}\n"
	for name, c := range map[string]struct {
		file string
		env  map[string]string
		want []Problem
	}{
		"a key of the file": {file: "grpc: {place: x}", want: []Problem{{Key: "grpc.place", Text: "unknown key; grpc has address, enable_reflection, shutdown_timeout_seconds", where: "config.yaml:1: grpc.place"}}},
		"a variable": {
			file: jwt, env: map[string]string{"GRPC_SHUTDOWN_TIMEOUT_SECONDS": "long"},
			want: []Problem{{Key: "grpc.shutdown_timeout_seconds", Variable: "GRPC_SHUTDOWN_TIMEOUT_SECONDS", Text: "want a whole number", where: "the variable GRPC_SHUTDOWN_TIMEOUT_SECONDS, for grpc.shutdown_timeout_seconds of config.yaml"}},
		},
		"a reference to nothing": {file: "store: {path: '${PLACE}'}", want: []Problem{{Key: "store.path", Unset: "PLACE", Text: "the variable PLACE is not set", where: "config.yaml:1: store.path"}}},
		"what is missing":        {file: jwt + "store: {path: /p}", want: []Problem{{Key: "external_services.contact_service.address", Text: `is "": want host:port, or :port for all addresses`, where: "config.yaml: external_services.contact_service.address"}}},
		"the file":               {file: "5", want: []Problem{{Text: "want keys with values below it, not a number", where: "config.yaml:1: the file"}}},
		"the file's other parts": {file: "grpc: {}\n---\n{}", want: []Problem{{Text: "has more than one document", where: "config.yaml"}}},
	} {
		_, err := Parse("config.yaml", []byte(c.file), environment(c.env))
		var invalid *InvalidError
		if !errors.As(err, &invalid) || !slices.Equal(invalid.Problems, c.want) {
			t.Errorf("%s: got %#v, want %#v", name, err, c.want)
		}
	}
}

func TestASecretIsShownNowhere(t *testing.T) {
	c := Default()
	c.APIGateway.APIKey = NewSecret("canary-key")
	asJSON, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("configured", "config", c, "key", c.APIGateway.APIKey)
	hidden := struct{ config Config }{c}
	for _, text := range []string{string(asJSON), log.String(), fmt.Sprintf("%v %+v %#v %s", c, c, c, c.APIGateway.APIKey), fmt.Sprintf("%v %+v %#v", hidden, hidden, hidden)} {
		if strings.Contains(text, "canary") {
			t.Errorf("shown: %s", text)
		}
	}
	if text, err := yaml.Marshal(c); err == nil {
		t.Errorf("written to a file: %s", text)
	}
}

func TestWhatTheOperatorWritesIsWhatTheProcessReads(t *testing.T) {
	want, err := Load("testdata/config.yaml", environment(nil))
	if err != nil {
		t.Fatal(err)
	}
	written := want
	written.APIGateway.APIKey = NewSecret("${API_GATEWAY_KEY}")
	text, err := written.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := written.Marshal(); err != nil || string(again) != string(text) {
		t.Errorf("the same configuration is written as\n%s and as\n%s, %v", text, again, err)
	}
	got, err := Parse("config.yaml", text, environment(nil))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestADraftKeepsItsReferencesAndIsCheckedForKeysAndTypesOnly(t *testing.T) {
	draft, err := Draft("spec.workload.config", []byte(`{"api_gateway": {"api_key": "${API_GATEWAY_KEY}"}, "auth": {"jwt": {"issuer": "${ISSUER}"}}}`))
	if err != nil || draft.APIGateway.APIKey.Reveal() != "${API_GATEWAY_KEY}" || draft.Auth.JWT.Issuer != "${ISSUER}" || draft.HTTP.Address != ":9090" {
		t.Errorf("got %+v, %v", draft, err)
	}
	_, err = Draft("spec.workload.config", []byte(`{"grpc": {"place": "x", "enable_reflection": 1}}`))
	if err == nil || !strings.Contains(err.Error(), "spec.workload.config:1: grpc.place: unknown key") || !strings.Contains(err.Error(), "grpc.enable_reflection: want true or false, not a number") {
		t.Errorf("got %v", err)
	}
}

func TestBehindASidecarWhoeverItLetInMayCall(t *testing.T) {
	c, err := Parse("config.yaml", []byte(strings.Replace(document(t), "  allowed_spiffe_ids:\n  - spiffe://jia.app/api-gateway\n", "", 1)), environment(nil))
	if err != nil || len(c.Auth.AllowedSPIFFEIDs) > 0 {
		t.Errorf("got %v, %v", c.Auth, err)
	}
}

func TestTheGuideListsEachVariableWithItsKeyAndDefault(t *testing.T) {
	guide, err := os.ReadFile("../../docs/payment-service.md")
	if err != nil {
		t.Fatal(err)
	}
	var rows []string
	for line := range strings.Lines(string(guide)) {
		if strings.HasPrefix(line, "| `") && strings.Count(line, "|") == 5 {
			cells := strings.Split(line, "|")
			rows = append(rows, strings.Join(cells[1:4], "|"))
		}
	}
	var want []string
	variables := map[string]string{}
	for _, key := range Keys() {
		value := ""
		if key.Default != "" {
			value = "`" + key.Default + "`"
		}
		want = append(want, fmt.Sprintf(" `%s` | `%s` | %s ", Variable(key.Path), key.Path, value))
		if other := variables[Variable(key.Path)]; other != "" {
			t.Errorf("%s and %s have one variable", other, key.Path)
		}
		variables[Variable(key.Path)] = key.Path
	}
	for i, row := range want {
		want[i] = strings.ReplaceAll(row, "|  ", "| ")
	}
	for i, row := range rows {
		rows[i] = strings.ReplaceAll(row, "|  ", "| ")
	}
	if !slices.Equal(rows, want) {
		t.Errorf("docs/payment-service.md has\n%s\nwant\n%s", strings.Join(rows, "\n"), strings.Join(want, "\n"))
	}
}
