package xds_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"sigs.k8s.io/yaml"

	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/xds"
	"github.com/jia-app/paymesh/test/lab"
	"github.com/jia-app/paymesh/test/tokens"
)

// The model says what is good in a descriptor set and in keys, and a gateway that rejects it all the same would take no
// routes of anybody any more.
const shop = `
identities:
- {metadata: {namespace: edge, name: GATEWAY}, spec: {serviceAccountName: GATEWAY}, status: {conditions: [{type: Accepted, status: "True", reason: Accepted}]}}
- {metadata: {namespace: shop, name: shop}, spec: {serviceAccountName: shop}, status: {conditions: [{type: Accepted, status: "True", reason: Accepted}]}}
namespaces: [{metadata: {name: edge}}, {metadata: {name: shop}}]
services:
- metadata: {namespace: shop, name: shop}
  spec:
    ports: [{name: grpc, port: 50051, protocol: GRPC}]
    api: {descriptorSet: {configMap: api, key: shop.binpb}}
    workload: {image: example/shop:1}
    expose: [{name: api, gateway: {name: GATEWAY, namespace: edge}, hostnames: [shop.example.com], methods: [shop.v1.Shop/*], transcode: true, auth: {jwt: users}}]
gateways:
- metadata: {namespace: edge, name: GATEWAY}
  spec:
    listeners: [{name: https, port: 443, tls: {secretName: tls}}]
    jwt: [{name: users, issuer: https://issuer.jia.app, audiences: [shop], jwks: {configMap: keys, key: keys.json}}]
    routes: [{name: shop, namespaces: [shop], hostnames: ["*.example.com"]}]
configMaps:
- {metadata: {namespace: edge, name: keys}, data: {keys.json: 'KEYS'}}
- {metadata: {namespace: shop, name: api}, binaryData: {shop.binpb: SHOP}}
`

// shopGateway is what the model makes of a gateway with these keys and descriptors.
func shopGateway(t *testing.T, name, keys string, descriptors []byte) (mesh.Gateway, []mesh.Problem) {
	t.Helper()
	text := strings.NewReplacer("GATEWAY", name, "KEYS", keys, "SHOP", base64.StdEncoding.EncodeToString(descriptors)).Replace(shop)
	var objects mesh.Objects
	if err := yaml.UnmarshalStrict([]byte(text), &objects); err != nil {
		t.Fatal(err)
	}
	objects.Cluster = cluster
	m, problems := mesh.Build(objects)
	return m.Gateways[0], problems
}

func get1(path string) *annotations.HttpRule {
	return &annotations.HttpRule{Pattern: &annotations.HttpRule_Get{Get: path}}
}

func post1(path, body, responseBody string) *annotations.HttpRule {
	return &annotations.HttpRule{Pattern: &annotations.HttpRule_Post{Post: path}, Body: body, ResponseBody: responseBody}
}

func also(rule *annotations.HttpRule, more ...*annotations.HttpRule) *annotations.HttpRule {
	rule.AdditionalBindings = more
	return rule
}

// shopDescriptors is a service with a method for each rule; out is what the methods answer.
func shopDescriptors(t *testing.T, out string, rules ...*annotations.HttpRule) []byte {
	t.Helper()
	field := func(name string, number int32, kind descriptorpb.FieldDescriptorProto_Type, of string) *descriptorpb.FieldDescriptorProto {
		f := &descriptorpb.FieldDescriptorProto{Name: &name, Number: &number, Type: &kind, Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()}
		if of != "" {
			f.TypeName = &of
		}
		return f
	}
	str, msg, enum := descriptorpb.FieldDescriptorProto_TYPE_STRING, descriptorpb.FieldDescriptorProto_TYPE_MESSAGE, descriptorpb.FieldDescriptorProto_TYPE_ENUM
	list := field("list", 5, str, "")
	list.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
	thing := &descriptorpb.DescriptorProto{Name: proto.String("Thing"), Field: []*descriptorpb.FieldDescriptorProto{
		field("id", 1, str, ""), field("number", 2, descriptorpb.FieldDescriptorProto_TYPE_INT64, ""), field("inner", 3, msg, ".shop.v1.Thing"),
		field("kind", 4, enum, ".shop.v1.Kind"), list, field("at", 6, msg, ".google.protobuf.Timestamp"), field("wrapped", 7, msg, ".google.protobuf.StringValue"),
		field("mask", 8, msg, ".google.protobuf.FieldMask"), field("struct", 9, msg, ".google.protobuf.Struct"), field("raw", 10, descriptorpb.FieldDescriptorProto_TYPE_BYTES, ""),
		field("real", 11, descriptorpb.FieldDescriptorProto_TYPE_DOUBLE, ""), field("truth", 12, descriptorpb.FieldDescriptorProto_TYPE_BOOL, ""),
		field("body", 13, msg, ".google.api.HttpBody"), field("empty", 14, msg, ".google.protobuf.Empty"), field("camelCase", 15, str, ""),
	}}
	service := &descriptorpb.ServiceDescriptorProto{Name: proto.String("Shop")}
	for i, rule := range rules {
		options := &descriptorpb.MethodOptions{}
		proto.SetExtension(options, annotations.E_Http, rule)
		service.Method = append(service.Method, &descriptorpb.MethodDescriptorProto{
			Name: proto.String(fmt.Sprintf("Do%d", i)), InputType: proto.String(".shop.v1.Thing"), OutputType: proto.String(out), Options: options,
		})
	}
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(descriptors(t, annotations.File_google_api_annotations_proto, timestamppb.File_google_protobuf_timestamp_proto,
		wrapperspb.File_google_protobuf_wrappers_proto, fieldmaskpb.File_google_protobuf_field_mask_proto, structpb.File_google_protobuf_struct_proto,
		emptypb.File_google_protobuf_empty_proto, httpbody.File_google_api_httpbody_proto), set); err != nil {
		t.Fatal(err)
	}
	file := &descriptorpb.FileDescriptorProto{
		Name: proto.String("shop.proto"), Package: proto.String("shop.v1"), Syntax: proto.String("proto3"), MessageType: []*descriptorpb.DescriptorProto{thing},
		EnumType: []*descriptorpb.EnumDescriptorProto{{Name: proto.String("Kind"), Value: []*descriptorpb.EnumValueDescriptorProto{{Name: proto.String("NONE"), Number: proto.Int32(0)}}}},
		Service:  []*descriptorpb.ServiceDescriptorProto{service},
	}
	for _, dependency := range set.GetFile() {
		file.Dependency = append(file.Dependency, dependency.GetName())
	}
	set.File = append(set.File, file)
	raw, err := proto.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestWhatTheModelAcceptsAGatewayLoads(t *testing.T) {
	const out = ".shop.v1.Thing"
	d := &door{issuer: tokens.NewIssuer(t, issuer, audience), dir: t.TempDir()}
	name := newService(t, "shop").Key.Name
	spire.AddUnixEntry(t, agent, "/ns/edge/sa/"+name)
	good := shopDescriptors(t, out, get1("/v1/good/{id}"))
	keys := string(d.issuer.Keys())
	d.gateway, _ = shopGateway(t, name, keys, good)
	if len(d.gateway.Routes) != 1 {
		t.Fatal("the good case is not accepted")
	}
	d.start(t)

	rsa := `{"kty":"RSA","kid":"1","alg":"RS256","use":"sig","e":"AQAB","n":"sXchDaQebHnPiGvyDOAT4saGEUetSyo9MKLOoWFsueri23bOdgWp4Dy1WlUzewbgBHod5pcM9H95GQRV3JDXboIRROSBigeC5yjU1hGzHHyXss8UDprecbAYxknTcQkhslANGRUZmdTOQ5qTRsLAt6BTYuyvVRdhS8exSZEy_c4gs_7svlJJQ4H9_NxsiIoLwAEk7-Q3UXERGYw_75IDrGA84-lA_-Ct4eTlXHBIY2EaV7t7LjJaynVJCpkv4LKjTTAumiGUIuQhrNhZLuF_RJLqHpM2kgWFLU7-VTdL1VbC2tejvcI2BlMkEpk1BzBZI0KQB0GaDWFLN-aEAw3vRw"}`
	ec := strings.TrimSuffix(strings.TrimPrefix(keys, `{"keys":[`), `]}`)
	for what, set := range map[string]string{
		"RSA": rsa, "EC": ec, "RSA and EC": rsa + "," + ec,
		"an RSA key without alg":      strings.Replace(rsa, `"alg":"RS256",`, "", 1),
		"a key without kid":           strings.Replace(rsa, `"kid":"1",`, "", 1),
		"a key for encryption":        strings.Replace(rsa, `"use":"sig"`, `"use":"enc"`, 1),
		"an unknown alg":              strings.Replace(rsa, `RS256`, `XS999`, 1),
		"an alg of another type":      strings.Replace(rsa, `RS256`, `ES256`, 1),
		"alg none":                    strings.Replace(rsa, `RS256`, `none`, 1),
		"alg that is a number":        strings.Replace(rsa, `"RS256"`, `5`, 1),
		"kid that is a number":        strings.Replace(rsa, `"kid":"1"`, `"kid":1`, 1),
		"a short modulus":             `{"kty":"RSA","alg":"RS256","e":"AQAB","n":"sXch"}`,
		"no exponent worth it":        `{"kty":"RSA","alg":"RS256","e":"AA","n":"sXch"}`,
		"an EC curve that nobody has": strings.Replace(ec, "P-256", "P-999", 1),
		"a curve of another size":     strings.Replace(strings.Replace(ec, "P-256", "P-384", 1), "ES256", "ES384", 1),
		"secp256k1":                   strings.Replace(strings.Replace(ec, "P-256", "secp256k1", 1), "ES256", "ES256K", 1),
		"an EC point off the curve":   `{"kty":"EC","crv":"P-256","alg":"ES256","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE","y":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE"}`,
		"a short EC point":            `{"kty":"EC","crv":"P-256","alg":"ES256","x":"AAE","y":"AAE"}`,
		"Ed25519":                     `{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`,
		"a short Ed25519 key":         `{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","x":"11qY"}`,
		"X25519":                      `{"kty":"OKP","crv":"X25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`,
		"a good key beside a bad one": rsa + `,{"kty":"EC","crv":"P-256","alg":"ES256","x":"AAE","y":"AAE"}`,
		"a bad key before a good one": `{"kty":"EC","crv":"P-256","alg":"ES256","x":"AAE","y":"AAE"},` + rsa,
		"the same key twice":          rsa + "," + rsa,
	} {
		t.Run("keys/"+what, func(t *testing.T) { d.tries(t, name, `{"keys":[`+set+`]}`, good) })
	}
	for what, raw := range map[string][]byte{
		"a long path":                   shopDescriptors(t, out, get1("/v1/"+strings.Repeat("abcdefghij", 100)+"/{id}")),
		"a path of many segments":       shopDescriptors(t, out, get1("/v1"+strings.Repeat("/*", 510))),
		"a path of many short literals": shopDescriptors(t, out, get1("/v1"+strings.Repeat("/a", 507)+"/{id}")),
		"too long a path":               shopDescriptors(t, out, get1("/v1/"+strings.Repeat("abcdefghij", 200)+"/{id}")),
		"a literal path":                shopDescriptors(t, out, get1("/v1/things")),
		"the root":                      shopDescriptors(t, out, get1("/")),
		"a variable alone":              shopDescriptors(t, out, get1("/{id}")),
		"a nested variable":             shopDescriptors(t, out, get1("/v1/{inner.id}/x")),
		"deeper":                        shopDescriptors(t, out, get1("/v1/{inner.inner.inner.id}")),
		"a number":                      shopDescriptors(t, out, get1("/v1/{number}")),
		"an enum":                       shopDescriptors(t, out, get1("/v1/{kind}")),
		"bytes":                         shopDescriptors(t, out, get1("/v1/{raw}")),
		"a double":                      shopDescriptors(t, out, get1("/v1/{real}")),
		"a bool":                        shopDescriptors(t, out, get1("/v1/{truth}")),
		"a time":                        shopDescriptors(t, out, get1("/v1/{at}")),
		"a wrapper":                     shopDescriptors(t, out, get1("/v1/{wrapped}")),
		"a field mask":                  shopDescriptors(t, out, get1("/v1/{mask}")),
		"a struct":                      shopDescriptors(t, out, get1("/v1/{struct}")),
		"an empty":                      shopDescriptors(t, out, get1("/v1/{empty}")),
		"a field of a time":             shopDescriptors(t, out, get1("/v1/{at.seconds}")),
		"a field of a wrapper":          shopDescriptors(t, out, get1("/v1/{wrapped.value}")),
		"a repeated field":              shopDescriptors(t, out, get1("/v1/{list}")),
		"a message":                     shopDescriptors(t, out, get1("/v1/{inner}")),
		"a camel case field":            shopDescriptors(t, out, get1("/v1/{camelCase}")),
		"a pattern":                     shopDescriptors(t, out, get1("/v1/{id=a/*/b}")),
		"a literal as pattern":          shopDescriptors(t, out, get1("/v1/{id=a}")),
		"all that follows":              shopDescriptors(t, out, get1("/v1/{id=**}")),
		"a prefix and all that follows": shopDescriptors(t, out, get1("/v1/{id=a/**}")),
		"everything":                    shopDescriptors(t, out, get1("/**")),
		"everything as a variable":      shopDescriptors(t, out, get1("/{id=**}")),
		"a star":                        shopDescriptors(t, out, get1("/v1/*/x")),
		"a verb":                        shopDescriptors(t, out, get1("/v1/things:go")),
		"a verb after a variable":       shopDescriptors(t, out, get1("/v1/{id}:go")),
		"a verb after all that follows": shopDescriptors(t, out, get1("/v1/{id=**}:go")),
		"odd characters":                shopDescriptors(t, out, get1("/v1/a-b_c.d~e/$&'()+,;@!x")),
		"an escape":                     shopDescriptors(t, out, get1("/v1/%2D/x")),
		"an escaped slash":              shopDescriptors(t, out, get1("/v1/%2F/x")),
		"dots":                          shopDescriptors(t, out, get1("/v1/../x")),
		"two variables":                 shopDescriptors(t, out, get1("/v1/{id}/{number}")),
		"a field and its part":          shopDescriptors(t, out, get1("/v1/{inner.id}/{inner.number}")),
		"a whole body":                  shopDescriptors(t, out, post1("/v1/things", "*", "")),
		"a body field":                  shopDescriptors(t, out, post1("/v1/things", "inner", "")),
		"a nested body field":           shopDescriptors(t, out, post1("/v1/things", "inner.inner", "")),
		"a string as body":              shopDescriptors(t, out, post1("/v1/things", "id", "")),
		"a list as body":                shopDescriptors(t, out, post1("/v1/things", "list", "")),
		"an HttpBody as body":           shopDescriptors(t, out, post1("/v1/things", "body", "")),
		"a nested HttpBody as body":     shopDescriptors(t, out, post1("/v1/things", "inner.body", "")),
		"a struct as body":              shopDescriptors(t, out, post1("/v1/things", "struct", "")),
		"a body that is a variable":     shopDescriptors(t, out, post1("/v1/{id}", "id", "")),
		"a body with a variable in it":  shopDescriptors(t, out, post1("/v1/{inner.id}", "inner", "")),
		"a body with GET":               shopDescriptors(t, out, &annotations.HttpRule{Pattern: &annotations.HttpRule_Get{Get: "/v1/things"}, Body: "*"}),
		"a response field":              shopDescriptors(t, out, post1("/v1/things", "*", "id")),
		"a response message":            shopDescriptors(t, out, post1("/v1/things", "*", "inner")),
		"a response HttpBody":           shopDescriptors(t, out, post1("/v1/things", "*", "body")),
		"an HttpBody answer":            shopDescriptors(t, ".google.api.HttpBody", get1("/v1/things")),
		"an empty answer":               shopDescriptors(t, ".google.protobuf.Empty", get1("/v1/things")),
		"a struct answer":               shopDescriptors(t, ".google.protobuf.Struct", get1("/v1/things")),
		"two bindings":                  shopDescriptors(t, out, also(get1("/v1/things/{id}"), get1("/v1/other/{id}"), post1("/v1/things", "*", ""))),
		"one binding twice":             shopDescriptors(t, out, also(get1("/v1/things/{id}"), get1("/v1/things/{id}"))),
		"one path by two names":         shopDescriptors(t, out, also(get1("/v1/things/{id}"), get1("/v1/things/{camelCase}"))),
		"one path with two bodies":      shopDescriptors(t, out, also(post1("/v1/things", "*", ""), post1("/v1/things", "inner", ""))),
		"two methods":                   shopDescriptors(t, out, get1("/v1/things/{id}"), get1("/v1/things/{id}:go"), get1("/v1/things/**")),
		"two methods with one path":     shopDescriptors(t, out, get1("/v1/things/{id}"), get1("/v1/things/{camelCase}")),
		"a method of its own":           shopDescriptors(t, out, &annotations.HttpRule{Pattern: &annotations.HttpRule_Custom{Custom: &annotations.CustomHttpPattern{Kind: "HEAD", Path: "/v1/things"}}}),
		"a method nobody knows":         shopDescriptors(t, out, &annotations.HttpRule{Pattern: &annotations.HttpRule_Custom{Custom: &annotations.CustomHttpPattern{Kind: "PURGE", Path: "/v1/things"}}}),
		"any method":                    shopDescriptors(t, out, &annotations.HttpRule{Pattern: &annotations.HttpRule_Custom{Custom: &annotations.CustomHttpPattern{Kind: "*", Path: "/v1/things"}}}),
	} {
		t.Run("paths/"+what, func(t *testing.T) { d.tries(t, name, keys, raw) })
	}
	for what, change := range crafted() {
		t.Run("descriptors/"+what, func(t *testing.T) { d.tries(t, name, keys, craft(t, change)) })
	}
	for what, change := range forged() {
		t.Run("files/"+what, func(t *testing.T) { d.tries(t, name, keys, craftOther(t, change)) })
	}
}

// tries has the gateway load what the model makes of keys and descriptors, if it takes them.
func (d *door) tries(t *testing.T, name, keys string, descriptors []byte) {
	t.Helper()
	g, problems := shopGateway(t, name, keys, descriptors)
	if len(g.Routes) == 0 {
		t.Logf("the model refuses it: %v", problems)
		return
	}
	r := xds.Gateway(g)
	for _, l := range r.Listeners {
		refile(t, l, d.dir)
	}
	d.pod.serve(t, g.ID, r)
	lab.Eventually(t, 5*time.Second, func() error {
		proxies := manager.Proxies(d.pod.key)
		if len(proxies) != 1 {
			return fmt.Errorf("%d proxies", len(proxies))
		}
		if nack := proxies[0].NACK; nack != nil {
			t.Errorf("the model accepts it, and a gateway says: %s", nack.Message)
			return nil
		}
		if !proxies[0].Synced {
			return fmt.Errorf("not synced")
		}
		return nil
	})
}
