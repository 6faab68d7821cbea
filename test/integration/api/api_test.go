// Package api_test holds the kinds against a real API server and a real SPIRE server.
package api_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/jia-app/paymesh/test/integration/api/verdict"
)

const (
	root      = "../../.."
	crdFile   = root + "/config/crd/bases/mesh.jia.app_serviceidentities.yaml"
	namespace = "payments"
)

var (
	// config reaches an API server that has the CRD, without a limit on requests.
	config *rest.Config
	// api refuses unknown fields, as kubectl does.
	api client.Client
)

func TestMain(m *testing.M) {
	os.Exit(func() int {
		stop, err := start()
		defer stop()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

func TestTheKindsOnAnAPIServer(t *testing.T) {
	RegisterFailHandler(Fail)
	RunSpecs(t, "The kinds on an API server")
}

// start starts the API server; stop is never nil.
func start() (stop func(), err error) {
	dir, err := binaries()
	if err != nil {
		return func() {}, err
	}
	environment := &envtest.Environment{
		BinaryAssetsDirectory: dir,
		CRDDirectoryPaths:     []string{filepath.Dir(crdFile)},
		ErrorIfCRDPathMissing: true,
	}
	environment.ControlPlane.GetAPIServer().Configure().Set("service-cluster-ip-range", "10.0.0.0/24")
	stop = func() {
		if err := environment.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stop the API server:", err)
		}
	}
	if config, err = environment.Start(); err != nil {
		return stop, fmt.Errorf("start an API server with the CRD: %w", err)
	}
	config.QPS = -1
	c, err := client.New(config, client.Options{Scheme: scheme.Scheme})
	if err != nil {
		return stop, err
	}
	api = client.WithFieldValidation(c, metav1.FieldValidationStrict)
	return stop, api.Create(context.Background(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
}

func binaries() (string, error) {
	dir := os.Getenv("KUBEBUILDER_ASSETS")
	if dir == "" {
		dir = os.Getenv("PAYMESH_BIN_DIR")
	}
	if dir == "" {
		out, err := exec.Command(root+"/hack/tools/tools.sh", "--dir").Output()
		if err != nil {
			return "", fmt.Errorf("find the tools: %w", err)
		}
		dir = strings.TrimSpace(string(out))
	}
	for _, tool := range []string{"etcd", "kube-apiserver"} {
		if _, err := os.Stat(filepath.Join(dir, tool)); err != nil {
			return "", errors.Join(err, errors.New("build the tools: hack/tools/tools.sh etcd kube-apiserver"))
		}
	}
	return dir, nil
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
