package workload_test

import (
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/workload"
)

func text(t *testing.T, value any) string {
	t.Helper()
	text, err := yaml.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// fields are a JSON object, written as YAML.
func fields(t *testing.T, text string) *apiextensionsv1.JSON {
	t.Helper()
	raw, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return &apiextensionsv1.JSON{Raw: raw}
}

func key(namespace, name string) types.NamespacedName {
	return types.NamespacedName{Namespace: namespace, Name: name}
}

const jwt = "auth: {jwt: {issuer: https://issuer.jia.app, audience: payments, jwks_file: /keys/jwks.json}}\n"

// payment is a service with everything: it is called by the gateway and by somebody outside, and calls two services, of
// which one consents.
func payment(t *testing.T) mesh.Service {
	t.Helper()
	contact := spiffeid.RequireFromString("spiffe://jia.app/contact-service")
	return mesh.Service{
		Key: key("payments", "payment-service"), ID: spiffeid.RequireFromString("spiffe://jia.app/payment-service"), Trusted: true,
		Identity:           key("payments", "payment-service"),
		NewIdentity:        &meshv1alpha1.ServiceIdentitySpec{Path: "/payment-service", ServiceAccountName: "payment-service"},
		ServiceAccountName: "payment-service", NewServiceAccount: true, DataPlane: meshv1alpha1.DataPlaneSidecar,
		Ports: []mesh.Port{{Name: "grpc", Port: 8081, MeshPort: 15443, Protocol: meshv1alpha1.ProtocolGRPC}},
		Workload: meshv1alpha1.Workload{
			Image: "paymesh/payment:dev", Config: fields(t, jwt),
			Persistence: &meshv1alpha1.Persistence{Size: "1Gi", MountPath: "/var/lib/paymesh"},
		},
		Dependencies: []mesh.Dependency{
			{Name: "contact-service", Service: key("people", "contact-service"), LocalPort: 50051, ID: contact, MeshPort: 15443, Timeout: metav1.Duration{Duration: 1500 * time.Millisecond}},
			{Name: "ledger", Service: key("books", "ledger"), LocalPort: 50052, ID: spiffeid.RequireFromString("spiffe://jia.app/ledger"), MeshPort: 15444},
		},
		Upstreams: []mesh.Upstream{{Name: "contact-service", Service: key("people", "contact-service"), ID: contact, PortName: "grpc", MeshPort: 15443, LocalPort: 50051}},
		Rules: []mesh.Rule{{
			Name: "expose:api", ID: spiffeid.RequireFromString("spiffe://jia.app/ns/edge/sa/public"),
			Caller: mesh.Caller{Kind: mesh.KindMeshGateway, Key: key("edge", "public")}, Methods: []string{"payment.v1.PaymentService/CreatePayment"}, PortName: "grpc",
		}},
	}
}

// library is the same service without a sidecar.
func library(t *testing.T) mesh.Service {
	t.Helper()
	s := payment(t)
	s.DataPlane, s.Workload.PolicySupport = meshv1alpha1.DataPlaneLibrary, meshv1alpha1.PolicySupportEnforced
	return s
}

// find is the object of a kind and name; nil where there is none.
func find[T workload.Object](objects []workload.Object, name string) (found T) {
	for _, object := range objects {
		if one, ok := object.(T); ok && one.GetName() == name {
			return one
		}
	}
	return found
}

func mustRender(t *testing.T, s mesh.Service) []workload.Object {
	t.Helper()
	objects, problems := workload.Service(s, proxyFiles, options)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return objects
}

func deployment(t *testing.T, s mesh.Service) *appsv1.Deployment {
	t.Helper()
	d := find[*appsv1.Deployment](mustRender(t, s), s.Key.Name)
	if d == nil {
		t.Fatal("there is no Deployment")
	}
	return d
}

func configYAML(t *testing.T, s mesh.Service) string {
	t.Helper()
	return find[*corev1.ConfigMap](mustRender(t, s), s.Key.Name+"-config").Data["config.yaml"]
}

// template is a pod template as text: what rolls the pods when it changes.
func template(t *testing.T, s mesh.Service) string {
	t.Helper()
	return text(t, deployment(t, s).Spec.Template)
}

// said is all that problems say, one a line.
func said(problems []mesh.Problem) string {
	var lines []string
	for _, problem := range problems {
		lines = append(lines, problem.Condition+" "+problem.Reason+" "+problem.Field+" | "+problem.Message)
	}
	return strings.Join(lines, "\n")
}
