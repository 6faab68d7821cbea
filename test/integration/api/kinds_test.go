package api_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/jia-app/paymesh/test/integration/api/verdict"
)

// meshKinds are the kinds whose refusals are made from their CRD, by the plural names.
var meshKinds = map[string]string{"meshservices": "MeshService", "meshgateways": "MeshGateway"}

func crdOf(t testing.TB, plural string) *verdict.CRD {
	t.Helper()
	crd, err := verdict.LoadCRD(filepath.Join(filepath.Dir(crdFile), "mesh.jia.app_"+plural+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return crd
}

// objects are those of a file.
func objects(t testing.TB, file string) []*unstructured.Unstructured {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all []*unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(object); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if len(object.Object) > 0 {
			all = append(all, object)
		}
	}
}

// whole are valid objects of a kind that together have every field.
func whole(t testing.TB, plural string) []*unstructured.Unstructured {
	t.Helper()
	return objects(t, filepath.Join("testdata", "full", plural+".yaml"))
}

// parsed is an object of the kind with a spec in YAML.
func parsed(t testing.TB, kind, spec string) *unstructured.Unstructured {
	t.Helper()
	var fields map[string]any
	if err := yaml.NewYAMLOrJSONDecoder(strings.NewReader(spec), 4096).Decode(&fields); err != nil {
		t.Fatalf("%s: %v", spec, err)
	}
	object := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "mesh.jia.app/v1alpha1", "kind": kind, "spec": fields}}
	object.SetNamespace(namespace)
	object.SetName("case")
	// As a client would send it: numbers are int64.
	text, err := object.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	if err := object.UnmarshalJSON(text); err != nil {
		t.Fatal(err)
	}
	return object
}
