// Package workload_test has a real API server judge what the stage workload renders.
package workload_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"

	"github.com/jia-app/paymesh/internal/corpus"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/workload"
	"github.com/jia-app/paymesh/test/lab"
)

var options = workload.Options{
	ProxyImage:          "paymesh/envoy:test",
	ManagerNamespace:    "paymesh-system",
	ManagerLabels:       map[string]string{"app.kubernetes.io/name": "paymesh"},
	WorkloadAPIHostPath: "/run/spire/agent-sockets",
	WorkloadAPISocket:   "spire-agent.sock",
}

var proxyFiles = map[string]string{"envoy.yaml": "{}\n"}

var server *applier

func TestMain(m *testing.M) {
	lab.Main(m, func(t lab.T) {
		api := lab.StartAPIServer(t)
		client, err := dynamic.NewForConfig(api.Config)
		if err != nil {
			t.Fatalf("make a client: %v", err)
		}
		kinds, err := restmapper.GetAPIGroupResources(discovery.NewDiscoveryClientForConfigOrDie(api.Config))
		if err != nil {
			t.Fatalf("ask the API server for its kinds: %v", err)
		}
		server = &applier{api: api, client: client, kinds: restmapper.NewDiscoveryRESTMapper(kinds)}
	})
}

func TestTheAPIServerTakesEveryObjectOfEveryCase(t *testing.T) {
	csi := options
	csi.WorkloadAPIHostPath, csi.WorkloadAPICSIDriver = "", "csi.spiffe.io"
	corpus.Each(t, func(t *testing.T, c corpus.Case) {
		m, _ := mesh.Build(c.Objects)
		for _, o := range []workload.Options{options, csi} {
			for _, object := range objectsOf(m, o) {
				if _, err := server.apply(t, object, metav1.DryRunAll); err != nil {
					t.Errorf("%T %s/%s: %v", object, object.GetNamespace(), object.GetName(), err)
				}
			}
		}
	})
}

func TestWhatWasAppliedIsNotChangedByBeingAppliedAgain(t *testing.T) {
	corpus.Each(t, func(t *testing.T, c corpus.Case) {
		if c.Name != "the-payment-mesh" {
			return
		}
		m, _ := mesh.Build(c.Objects)
		for _, object := range objectsOf(m, options) {
			var first, second *unstructured.Unstructured
			// The API server gives a PersistentVolumeClaim another version at its first update, whatever is in it; never again.
			for range 3 {
				applied, err := server.apply(t, object)
				if err != nil {
					t.Fatal(err)
				}
				first, second = second, applied
			}
			if first.GetResourceVersion() != second.GetResourceVersion() {
				t.Errorf("%s %s/%s is changed by being applied again:\n%s", first.GetKind(), first.GetNamespace(), first.GetName(), cmp.Diff(first.Object, second.Object))
			}
		}
	})
}

// TestAPatchIsJudgedByTheAPIServerToo: what passes the operator's own check and is wrong all the same is refused there.
func TestAPatchIsJudgedByTheAPIServerToo(t *testing.T) {
	for patch, want := range map[string]string{
		`{"spec":{"template":{"spec":{"containers":[{"name":"app","livenessProbe":{"tcpSocket":{"port":9090}}}],"nodeSelector":{"disk":"ssd"}}}}}`:         "",
		`{"spec":{"template":{"spec":{"initContainers":[{"name":"proxy"},{"name":"migrate","image":"m"}],"containers":[{"name":"backup","image":"b"}]}}}}`: "",
		`{"spec":{"template":{"spec":{"containers":[{"name":"backup"}]}}}}`:                                                                                "spec.template.spec.containers[0].image: Required value",
		`{"spec":{"template":{"spec":{"containers":[{"name":"app","volumeMounts":[{"name":"nothing","mountPath":"/x"}]}]}}}}`:                              "volumeMounts",
	} {
		s := mesh.Service{Key: types.NamespacedName{Namespace: "payments", Name: "patched"}, ServiceAccountName: "patched"}
		s.Workload.Image, s.Workload.Patch = "image", &apiextensionsv1.JSON{Raw: []byte(patch)}
		objects, problems := workload.Service(s, proxyFiles, options)
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		var said []string
		for _, object := range objects {
			if _, err := server.apply(t, object, metav1.DryRunAll); err != nil {
				said = append(said, err.Error())
			}
		}
		if got := strings.Join(said, "\n"); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", patch, got, want)
		}
	}
}

func objectsOf(m mesh.Mesh, o workload.Options) []workload.Object {
	var all []workload.Object
	for _, s := range m.Services {
		objects, _ := workload.Service(s, proxyFiles, o)
		all = append(all, objects...)
	}
	for _, g := range m.Gateways {
		objects, _ := workload.Gateway(g, proxyFiles, o)
		all = append(all, objects...)
	}
	return all
}

type applier struct {
	api    *lab.APIServer
	client dynamic.Interface
	kinds  meta.RESTMapper
}

// apply applies an object as the operator does; the API server refuses what it does not know.
func (a *applier) apply(t *testing.T, object workload.Object, dryRun ...string) (*unstructured.Unstructured, error) {
	t.Helper()
	ctx := context.Background()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: object.GetNamespace()}}
	if _, err := a.api.Clients.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	if err != nil {
		t.Fatal(err)
	}
	delete(fields, "status")
	text, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	kind := object.GetObjectKind().GroupVersionKind()
	mapping, err := a.kinds.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		t.Fatal(err)
	}
	force := true
	return a.client.Resource(mapping.Resource).Namespace(object.GetNamespace()).Patch(ctx, object.GetName(), types.ApplyPatchType, text, metav1.PatchOptions{
		FieldManager: "paymesh", Force: &force, DryRun: dryRun, FieldValidation: metav1.FieldValidationStrict,
	})
}
