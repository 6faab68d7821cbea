package owned_test

import (
	"testing"

	"github.com/go-logr/logr"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/test/lab"
)

func TestOwned(t *testing.T) {
	RegisterFailHandler(Fail)
	ctrl.SetLogger(logr.Discard()) // else it complains
	RunSpecs(t, "what an owner has, on a real API server")
}

var (
	apiServer *lab.APIServer
	scheme    = runtime.NewScheme()
	// live reads from and writes to the API server itself.
	live client.Client
)

var _ = BeforeSuite(func() {
	Expect(clientgoscheme.AddToScheme(scheme)).To(Succeed())
	Expect(meshv1alpha1.AddToScheme(scheme)).To(Succeed())
	apiServer = lab.StartAPIServer(GinkgoT())
	var err error
	live, err = client.New(apiServer.Config, client.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())
})
