// Package api_test holds the kinds against a real API server and a real SPIRE server.
package api_test

import (
	"context"
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/jia-app/paymesh/test/integration/api/verdict"
	"github.com/jia-app/paymesh/test/lab"
)

const (
	crdFile   = "../../../config/crd/bases/mesh.jia.app_serviceidentities.yaml"
	namespace = "payments"
)

var (
	// config reaches an API server that has the CRD, without a limit on requests.
	config *rest.Config
	// api refuses unknown fields, as kubectl does.
	api client.Client
)

func TestMain(m *testing.M) {
	lab.Main(m, func(t lab.T) {
		config = lab.StartAPIServer(t).Config
		c, err := client.New(config, client.Options{Scheme: scheme.Scheme})
		if err != nil {
			t.Fatalf("make a client of the API server: %v", err)
		}
		api = client.WithFieldValidation(c, metav1.FieldValidationStrict)
		if err := api.Create(context.Background(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}); err != nil {
			t.Fatalf("create Namespace %s: %v", namespace, err)
		}
	})
}

func TestTheKindsOnAnAPIServer(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "The kinds on an API server")
}

func loadCRD(t testing.TB) *verdict.CRD {
	t.Helper()
	crd, err := verdict.LoadCRD(crdFile)
	if err != nil {
		t.Fatal(err)
	}
	return crd
}

// identity returns a valid ServiceIdentity, changed by the fields of spec: nil leaves one out.
func identity(name string, spec map[string]any) *unstructured.Unstructured {
	fields := map[string]any{"serviceAccountName": "payment"}
	for field, value := range spec {
		if value == nil {
			delete(fields, field)
		} else {
			fields[field] = value
		}
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "mesh.jia.app/v1alpha1",
		"kind":       "ServiceIdentity",
		"metadata":   map[string]any{"name": name, "namespace": namespace},
		"spec":       fields,
	}}
}
