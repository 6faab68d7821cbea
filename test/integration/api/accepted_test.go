package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

func TestTheAPIServerAcceptsTheSamples(t *testing.T) {
	accepted := map[string]int{}
	files, err := filepath.Glob("../../../config/samples/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		for _, object := range objects(t, file) {
			if object.GroupVersionKind().Group != "mesh.jia.app" {
				continue
			}
			name := object.GetNamespace() + "/" + object.GetName()
			object.SetNamespace(namespace) // the only one that there is
			if err := api.Create(t.Context(), object, client.DryRunAll); err != nil {
				t.Errorf("%s: %s %s: %v", file, object.GetKind(), name, err)
				continue
			}
			accepted[object.GetKind()]++
		}
	}
	for kind, least := range map[string]int{"ServiceIdentity": 1, "MeshService": 4, "MeshGateway": 1} {
		if accepted[kind] < least {
			t.Errorf("%d samples of kind %s are accepted, want %d", accepted[kind], kind, least)
		}
	}
}

func TestTheAPIServerAcceptsWhatIsJustWithinTheBoundsOfServicesAndGateways(t *testing.T) {
	for plural, specs := range map[string]map[string]string{
		"meshservices": {
			"an image alone":                           "{workload: {image: a}}",
			"no replica":                               "{workload: {image: a, replicas: 0, persistence: {size: 1Mi}}}",
			"the longest image":                        fmt.Sprintf("{workload: {image: %s}}", strings.Repeat("a", 512)),
			"amounts as numbers":                       "{workload: {image: a, resources: {limits: {cpu: 2, memory: 1073741824}, requests: {cpu: 0}}, persistence: {size: 1048576}}}",
			"amounts of every unit":                    "{workload: {image: a, resources: {limits: {a/m: 1m, a/k: 1k, a/M: 1M, a/G: 1G, a/T: 1T, a/P: 1P}, requests: {a/Ki: 1Ki, a/Mi: 1Mi, a/Gi: 1Gi, a/Ti: 1Ti, a/Pi: 1Pi, a/Ei: 1Ei}}, persistence: {size: 1E}}}",
			"amounts with a dot":                       "{workload: {image: a, resources: {limits: {cpu: '0.5', memory: 1.5Gi, hugepages-2Mi: 4Mi, ephemeral-storage: '00000000000000000001'}}}}",
			"TTLs and no path":                         "{identity: {x509SVIDTTL: 1m, jwtSVIDTTL: 24h, dnsNames: [a]}, workload: {image: a}}",
			"the ports around those that are taken":    "{workload: {image: a, health: {path: /, port: 14999}}, ports: [{name: a, port: 1024, protocol: GRPC}, {name: b, port: 65535, protocol: GRPC}, {name: c, port: 16000, protocol: GRPC}, {name: d, port: 8499, protocol: GRPC}]}",
			"Library of an image that enforces":        "{dataPlane: Library, workload: {image: a, policySupport: Enforced}}",
			"a port that is named where there is one":  "{" + aService + ", expose: [{" + theExposure + ", protocols: [GRPC], port: grpc}]}",
			"transcode with api":                       "{" + aService + ", api: {descriptorSet: {configMap: a, key: a}}, expose: [{" + theExposure + ", transcode: true}]}",
			"a way out to one address of IPv6":         "{workload: {image: a}, egress: [{name: a, to: {cidr: 'fd00::1/128'}, port: 65535}]}",
			"the longest and the shortest timeout":     "{workload: {image: a}, dependsOn: [{name: a, service: {name: a}, localPort: 1024, timeout: 1ms}, {name: b, service: {name: a}, localPort: 1025, timeout: 1h}]}",
			"a volume beside the folders of a system":  "{workload: {image: a, persistence: {size: 1Gi, mountPath: /etcetera/.data}}}",
			"64 rules that allow, of 64 methods each":  "{" + aService + ", allow: [" + many(64, "{name: n%d, from: {service: {name: a}}, methods: ["+strings.ReplaceAll(many(64, "a.B/C%d"), "%", "%%")+"]}") + "]}",
			"64 variables of 4,096 characters each":    "{workload: {image: a, env: [" + many(64, "{name: N%d, value: "+strings.Repeat("a", 4096)+"}") + "]}}",
			"an unknown field in config and in patch":  "{workload: {image: a, config: {whatever: {it: is}}, patch: {whatever: [it, is]}}}",
			"16 dependencies on as many local ports":   "{workload: {image: a}, dependsOn: [" + many(16, "{name: n%d, service: {name: a}, localPort: 2%03[1]d}") + "]}",
			"16 exposures of 16 host names each":       "{" + aService + ", expose: [" + many(16, "{name: n%d, gateway: {name: a}, hostnames: ["+strings.ReplaceAll(many(16, "h%d.example.com"), "%", "%%")+"], methods: [a.B/C], protocols: [GRPC], auth: {jwt: a}}") + "]}",
			"an identity that exists, and its account": "{identity: {name: a}, workload: {image: a, serviceAccountName: a}}",
		},
		"meshgateways": {
			"a listener alone":                    "{" + aListener + "}",
			"the first and the last port":         "{listeners: [{name: a, port: 1, tls: {secretName: a}}, {name: b, port: 65535, tls: {secretName: a}}]}",
			"amounts as numbers":                  "{" + aListener + ", resources: {limits: {cpu: 2}}}",
			"no replica":                          "{" + aListener + ", replicas: 0}",
			"64 grants of 64 host names each":     "{" + aListener + ", routes: [" + many(64, "{name: n%d, namespaces: [a], hostnames: ["+strings.ReplaceAll(many(64, "'*.h%d.example.com'"), "%", "%%")+"]}") + "]}",
			"16 issuers with 16 audiences each":   "{" + aListener + ", jwt: [" + many(16, "{name: n%d, issuer: a, audiences: ["+strings.ReplaceAll(many(16, "a%d"), "%", "%%")+"], jwks: {configMap: a, key: a}}") + "]}",
			"a key with a dot and two dots later": "{" + aListener + ", jwt: [{name: a, issuer: a, audiences: [a], jwks: {configMap: a, key: .a..b}}]}",
		},
	} {
		for name, spec := range specs {
			t.Run(plural+"/"+name, func(t *testing.T) {
				object := parsed(t, meshKinds[plural], spec)
				object.SetName(strings.Repeat("a", 52))
				if err := api.Create(t.Context(), object, client.DryRunAll); err != nil {
					t.Error(err)
				}
			})
		}
		for _, object := range whole(t, plural) {
			if err := api.Create(t.Context(), object, client.DryRunAll); err != nil {
				t.Errorf("%s of testdata/full/%s.yaml: %v", object.GetName(), plural, err)
			}
		}
	}
}

// An API server gives the rules of one object a budget: an object that is as large as its bounds let it must not exhaust it.
func TestTheAPIServerAcceptsTheLargestServiceAndGateway(t *testing.T) {
	long := func(n int, prefix string) string { return prefix + strings.Repeat("a", n-len(prefix)-3) + "%03d" }
	methods := strings.ReplaceAll(many(64, long(256, "package.Service/")), "%", "%%")
	// Of allow, as many items as it may have, with as many characters in all.
	allowed := strings.ReplaceAll(many(64, "a.B/C%02[1]d"), "%", "%%")
	hosts := func(n int) string {
		return many(n, strings.Repeat("a.", 124)+"a%03[1]d")
	}
	service := "{identity: {path: " + strings.Repeat("/a", 892) + ", dnsNames: [" + hosts(32) + "]}, api: {descriptorSet: {configMap: a, key: a}}, " +
		"ports: [" + many(8, "{name: "+long(15, "")+", port: 2%03[1]d, protocol: GRPC}") + "], " +
		"workload: {image: a, env: [" + many(64, "{name: "+long(128, "A")+"}") + "], files: [" + many(8, "{name: "+long(63, "")+", configMap: a}") + "], " +
		"resources: {limits: {" + many(6, "example.com/"+long(63, "")+": 1.23456789012345678M") + "}}}, " +
		"dependsOn: [" + many(16, "{name: "+long(63, "")+", service: {name: "+strings.Repeat("a", 52)+", namespace: "+strings.Repeat("a", 63)+"}, localPort: 3%03[1]d, timeout: 59m59s999ms}") + "], " +
		"allow: [" + many(64, "{name: "+long(63, "")+", from: {spiffeID: 'spiffe://a"+strings.Repeat("/a", 27)+"'}, methods: ["+allowed+"]}") + "], " +
		"expose: [" + many(16, "{name: "+long(63, "")+", gateway: {name: a}, port: aaaaaaaaaaaa007, hostnames: ["+hosts(16)+"], methods: ["+methods+"], transcode: true, auth: {jwt: a}}") + "], " +
		"egress: [" + many(16, "{name: "+long(63, "")+", to: {selector: {podLabels: {"+strings.ReplaceAll(many(16, "example.com/"+long(63, "")+": "+strings.Repeat("a", 63)), "%", "%%")+"}}}, port: 1}") + "]}"
	gateway := "{listeners: [" + many(8, "{name: "+long(15, "")+", port: 2%03[1]d, tls: {secretName: "+strings.Repeat("a.", 126)+"a}}") + "], " +
		"jwt: [" + many(16, "{name: "+long(63, "")+", issuer: "+strings.Repeat("a", 512)+", audiences: [a], jwks: {configMap: a, key: "+strings.Repeat("a", 253)+"}}") + "], " +
		"routes: [" + many(64, "{name: "+long(63, "")+", namespaces: ["+strings.ReplaceAll(many(64, long(63, "")), "%", "%%")+"], hostnames: ["+hosts(64)+"]}") + "]}"
	for kind, spec := range map[string]string{"MeshService": service, "MeshGateway": gateway} {
		object := parsed(t, kind, spec)
		start := time.Now()
		if err := api.Create(t.Context(), object, client.DryRunAll); err != nil {
			t.Errorf("%s of %d bytes: %.2000v", kind, len(spec), err)
		}
		t.Logf("%s of %d bytes took %s", kind, len(spec), time.Since(start))
	}
}

// many is n times the text, with a number for its verb, separated by commas.
func many(n int, format string) string {
	all := make([]string, 0, n)
	for i := range n {
		all = append(all, fmt.Sprintf(format, i))
	}
	return strings.Join(all, ", ")
}

func TestServicesAndGatewaysCanChangeWhatIsNotTheirIdentity(t *testing.T) {
	two := "{name: https, port: 443, tls: {secretName: a}}, {name: admin, port: 8443, tls: {secretName: a}}"
	for what, change := range map[string][3]string{
		"a service": {
			"meshservices",
			"{identity: {path: /a, x509SVIDTTL: 1h}, workload: {image: a, serviceAccountName: a, persistence: {size: 1Gi, storageClassName: a}}}",
			"{identity: {path: /a, dnsNames: [a.example]}, dataPlane: Library, ports: [{name: grpc, port: 8081, protocol: GRPC}], workload: {image: b, serviceAccountName: a, policySupport: Enforced, persistence: {size: 2147483648, storageClassName: a, mountPath: /data, whenDeleted: Delete}}}",
		},
		"a gateway": {
			"meshgateways",
			"{identity: {path: /a}, " + aListener + "}",
			"{identity: {path: /a, jwtSVIDTTL: 5m}, listeners: [{name: other, port: 8443, tls: {secretName: b}}, {name: https, port: 444, tls: {secretName: b}}], replicas: 3, serviceType: NodePort}",
		},
		"two listeners that exchange their ports and places": {"meshgateways", "{listeners: [" + two + "]}", "{listeners: [{name: admin, port: 443, tls: {secretName: a}}, {name: https, port: 8443, tls: {secretName: a}}]}"},
		"a listener that goes":                               {"meshgateways", "{listeners: [" + two + "]}", "{listeners: [{name: admin, port: 443, tls: {secretName: a}}]}"},
	} {
		t.Run(what, func(t *testing.T) {
			c := ruleCase{from: change[1], spec: change[2]}
			if err := c.submit(t, meshKinds[change[0]]); err != nil {
				t.Error(err)
			}
		})
	}
}

// kubectl writes whole numbers plainly; other clients may not.
func TestAnAmountThatIsANumberWithAnExponentIsRefusedAtOnce(t *testing.T) {
	c, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	const body = `{"apiVersion": "mesh.jia.app/v1alpha1", "kind": "MeshService", "metadata": {"name": "a"}, "spec": {"workload": {"image": "a", "resources": {"limits": {"cpu": %s}}}}}`
	for number, accepted := range map[string]bool{
		"1000": true, "0": true, "9223372036854775807": true, `"1000"`: true,
		"1e3": false, "2.0": false, "1.5": false, "1e-3": false, "1e19": false, "1e-999999999": false, "1e999999999": false, `"1e3"`: false, `"1e-999999999"`: false, `"1e999999999"`: false,
	} {
		ctx, cancel := context.WithTimeout(t.Context(), quick)
		answer, err := c.RESTClient().Post().AbsPath("apis", "mesh.jia.app", "v1alpha1", "namespaces", namespace, "meshservices").
			Param("dryRun", metav1.DryRunAll).SetHeader("Content-Type", "application/json").Body(fmt.Appendf(nil, body, number)).DoRaw(ctx)
		cancel()
		refused := apierrors.IsInvalid(err) || apierrors.IsBadRequest(err)
		if accepted != (err == nil) || accepted == refused {
			t.Errorf("%s: %v %s", number, err, answer)
		}
	}
}

func TestAFieldThatThereIsNotIsRefusedByItsPath(t *testing.T) {
	for field, object := range map[string]*unstructured.Unstructured{
		"spec.workload.resources.claims": parsed(t, "MeshService", "{workload: {image: a, resources: {claims: [{name: gpu}]}}}"),
		"spec.depends":                   parsed(t, "MeshService", "{workload: {image: a}, depends: []}"),
		"spec.resources.claims":          parsed(t, "MeshGateway", "{"+aListener+", resources: {claims: [{name: gpu}]}}"),
		"spec.apiKeys":                   parsed(t, "MeshGateway", "{"+aListener+", apiKeys: []}"),
	} {
		err := api.Create(t.Context(), object, client.DryRunAll)
		if err == nil || !strings.Contains(err.Error(), `unknown field "`+field+`"`) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// kubectl apply, unless it is told otherwise, keeps what it applied in an annotation; all annotations of an object together have
// at most 262,144 bytes. The API server itself says here whether they have.
func TestEachCRDIsSmallEnoughForKubectlApply(t *testing.T) {
	const most = 262_144
	files, err := filepath.Glob(filepath.Join(filepath.Dir(crdFile), "*.yaml"))
	if err != nil || len(files) != 3 {
		t.Fatalf("%v, %v", files, err)
	}
	extensions, err := client.New(config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var crd unstructured.Unstructured
		if err := yaml.Unmarshal(text, &crd.Object); err != nil {
			t.Fatal(err)
		}
		applied, err := json.Marshal(crd.Object)
		if err != nil {
			t.Fatal(err)
		}
		// What stands in the way of one more field is seen long before it does.
		if len(applied) > most*3/4 {
			t.Errorf("%s has %d of %d bytes", file, len(applied), most)
		}
		t.Logf("%s has %d of %d bytes", filepath.Base(file), len(applied), most)
		stored := &unstructured.Unstructured{}
		stored.SetGroupVersionKind(apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition"))
		if err := extensions.Get(t.Context(), client.ObjectKey{Name: crd.GetName()}, stored); err != nil {
			t.Fatal(err)
		}
		annotate := func(text string) error {
			changed := stored.DeepCopy()
			annotations := crd.GetAnnotations()
			annotations["kubectl.kubernetes.io/last-applied-configuration"] = text
			changed.SetAnnotations(annotations)
			return extensions.Update(t.Context(), changed, client.DryRunAll)
		}
		if err := annotate(string(applied)); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		if err := annotate(strings.Repeat("a", most)); err == nil || !strings.Contains(err.Error(), "metadata.annotations: Too long") {
			t.Errorf("the API server no longer limits annotations to %d bytes: %v", most, err)
		}
	}
}
