package api_test

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/jia-app/paymesh/test/lab"
)

// maxAnnotations is what all annotations of an object may have, in bytes. Client-side kubectl apply keeps the whole object
// in one.
const maxAnnotations = 256 * 1024

var _ = Describe("config/samples", func() {
	It("is taken by the API server, object by object and without an unknown field", func(ctx context.Context) {
		var kinds []string
		for _, object := range built("config/samples") {
			kinds = append(kinds, object.GetKind())
			text, err := object.MarshalJSON()
			Expect(err).NotTo(HaveOccurred())
			Expect(len(text)).To(BeNumerically("<", maxAnnotations), object.GetName()+" is too long for client-side kubectl apply")
			var options []client.CreateOption
			if object.GetKind() != "Namespace" { // which must be there for what is in it
				options = append(options, client.DryRunAll)
			}
			if err := api.Create(ctx, object, options...); !apierrors.IsAlreadyExists(err) {
				Expect(err).NotTo(HaveOccurred(), object.GetKind()+" "+object.GetName())
			}
		}
		Expect(kinds).To(ContainElements("Namespace", "ServiceIdentity", "MeshService", "MeshGateway", "ConfigMap"))
	})

	It("brings back by kubectl apply what the demo changes: apply leaves alone a field that is not named", func() {
		for _, object := range built("config/samples") {
			support, _, _ := unstructured.NestedString(object.Object, "spec", "workload", "policySupport")
			if object.GetKind() == "MeshService" && support != "" {
				dataPlane, _, _ := unstructured.NestedString(object.Object, "spec", "dataPlane")
				Expect(dataPlane).To(Equal("Sidecar"), object.GetName())
			}
		}
	})
})

var _ = Describe("config/crd", func() {
	It("has kinds that are short enough for client-side kubectl apply", func() {
		files, err := filepath.Glob(filepath.Join(filepath.Dir(crdFile), "*.yaml"))
		Expect(err).NotTo(HaveOccurred())
		objects := built("config/crd")
		Expect(objects).To(HaveLen(len(files)), "a kind that is generated is not installed")
		for _, object := range objects {
			text, err := object.MarshalJSON()
			Expect(err).NotTo(HaveOccurred())
			Expect(len(text)).To(BeNumerically("<", maxAnnotations), object.GetName())
		}
	})
})

// built are the objects of a kustomization.
func built(folder string) []*unstructured.Unstructured {
	GinkgoHelper()
	command := exec.Command(lab.Binary(GinkgoTB(), "kustomize"), "build", filepath.Join("../../..", folder))
	command.Stderr = os.Stderr
	out, err := command.Output()
	Expect(err).NotTo(HaveOccurred())
	var objects []*unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(string(out)), 4096)
	for {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(&object.Object)
		if errors.Is(err, io.EOF) {
			return objects
		}
		Expect(err).NotTo(HaveOccurred())
		objects = append(objects, object)
	}
}
