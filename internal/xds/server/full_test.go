package server

import (
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	corev1 "k8s.io/api/core/v1"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
	"github.com/jia-app/paymesh/internal/xds"
)

const edgeKeys = `{"keys":[{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`

// exposing is a gateway and so many services, each of which exposes each of 8 ports there; with is what their names are made of.
func exposing(t *testing.T, services int, with func(i int) (namespace, name, port string)) mesh.Objects {
	t.Helper()
	cluster, err := mesh.NewClusterID("jia.app", "main")
	if err != nil {
		t.Fatal(err)
	}
	g := meshv1alpha1.MeshGateway{ObjectMeta: metav1.ObjectMeta{Namespace: "edge", Name: "public"}}
	g.Spec.Listeners = []meshv1alpha1.GatewayListener{{Name: "https", Port: 443}}
	g.Spec.JWT = []meshv1alpha1.JWTProvider{{Name: "users", Issuer: "i", Audiences: []string{"a"}, JWKS: meshv1alpha1.ConfigMapKey{ConfigMap: "jwks", Key: "k"}}}
	grant := meshv1alpha1.RouteGrant{Name: "all", Hostnames: []meshv1alpha1.HostnamePattern{"*.example.com"}}
	objects := mesh.Objects{Cluster: cluster, ConfigMaps: []corev1.ConfigMap{{ObjectMeta: metav1.ObjectMeta{Namespace: "edge", Name: "jwks"}, Data: map[string]string{"k": edgeKeys}}}}
	identify := func(namespace, name, label string) {
		identity := meshv1alpha1.ServiceIdentity{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
		identity.Spec.ServiceAccountName, identity.Spec.PodLabels = name, map[string]meshv1alpha1.LabelValue{label: meshv1alpha1.LabelValue(name)}
		identity.Status.Conditions = []metav1.Condition{{Type: meshv1alpha1.ConditionAccepted, Status: metav1.ConditionTrue}}
		objects.Identities = append(objects.Identities, identity)
	}
	identify("edge", "public", meshv1alpha1.LabelGateway)
	for i := range services {
		namespace, name, port := with(i)
		s := meshv1alpha1.MeshService{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, CreationTimestamp: metav1.Unix(int64(i), 0)}}
		for p := range 8 {
			of := fmt.Sprintf("%s%d", port, p)
			s.Spec.Ports = append(s.Spec.Ports, meshv1alpha1.ServicePort{Name: of, Port: int32(2000 + p), Protocol: meshv1alpha1.ProtocolGRPC})
			s.Spec.Expose = append(s.Spec.Expose, meshv1alpha1.Exposure{
				Name: meshv1alpha1.ItemName(of), Port: of, Gateway: meshv1alpha1.ObjectReference{Namespace: "edge", Name: "public"}, Hostnames: []meshv1alpha1.Hostname{"x.example.com"},
				Methods: []meshv1alpha1.ExactMethod{meshv1alpha1.ExactMethod(fmt.Sprintf("a%d.S/M%d", i, p))}, Protocols: []meshv1alpha1.NativeProtocol{meshv1alpha1.NativeGRPC}, Auth: meshv1alpha1.ExposureAuth{JWT: "users"},
			})
		}
		identify(namespace, name, meshv1alpha1.LabelService)
		objects.Services = append(objects.Services, s)
		grant.Namespaces = append(grant.Namespaces, meshv1alpha1.NamespaceName(namespace))
	}
	g.Spec.Routes = []meshv1alpha1.RouteGrant{grant}
	objects.Gateways = append(objects.Gateways, g)
	return objects
}

func TestAGatewayTakesNoMorePortsThanItsProxiesCanName(t *testing.T) {
	for name, with := range map[string]func(i int) (string, string, string){
		"of long names": func(i int) (string, string, string) {
			return strings.Repeat("n", 63), fmt.Sprintf("%s%03d", strings.Repeat("s", 49), i), strings.Repeat("p", 14)
		},
		"of short names": func(i int) (string, string, string) { return "a", fmt.Sprintf("s%d", i), "p" },
	} {
		t.Run(name, func(t *testing.T) {
			const services = 260
			m, problems := mesh.Build(exposing(t, services, with))
			g, ok := m.Gateway(types.NamespacedName{Namespace: "edge", Name: "public"})
			if !ok {
				t.Fatal("there is no gateway")
			}
			r := xds.Gateway(g)
			if _, err := newContents(r); err != nil {
				t.Errorf("what the model accepts is not served, to nobody: %v", err)
			}
			full := 0
			for _, problem := range problems {
				if problem.Reason != meshv1alpha1.ReasonGatewayFull || !strings.Contains(problem.Message, "MeshGateway edge/public") {
					t.Fatal(problem)
				}
				full++
			}
			if len(g.Routes)+full != 8*services || full == 0 || len(g.Routes) < 400 {
				t.Errorf("of %d ports %d are served and %d refused", 8*services, len(g.Routes), full)
			}
			// It is no less than what fits: one port more, and the server refuses it.
			if len(r.Clusters) < mesh.MaxNamed {
				taken := 0
				for _, ref := range r.Endpoints {
					taken += mesh.NamedSize(len(ref.Name))
				}
				if one := mesh.NamedSize(len(r.Endpoints[0].Name)); taken+one <= mesh.MaxNamedBytes {
					t.Errorf("%d of %d bytes are taken: there is room for another of %d", taken, mesh.MaxNamedBytes, one)
				}
			}
			t.Log(len(g.Routes), "served,", problems[0])
		})
	}
}
