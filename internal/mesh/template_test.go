package mesh_test

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
)

func TestAPathTemplateMakesOnePathOrSaysWhatItLacks(t *testing.T) {
	cluster, err := mesh.NewClusterID("jia.app", "eu-1")
	if err != nil {
		t.Fatal(err)
	}
	for template, test := range map[string]struct{ path, lacks string }{
		"/a":                                     {path: "/a"},
		"/{{cluster}}":                           {path: "/eu-1"},
		"/{{namespace}}/{{serviceAccount}}":      {path: "/payments/pay.v2"},
		"/x-{{podLabels.app}}.{{podLabels.app}}": {path: "/x-Pay_1.Pay_1"},
		"/{{podLabels.app.kubernetes.io/part_of}}":  {path: "/shop"},
		"/{{podLabels.namespace}}":                  {path: "/label"},
		"/{{podLabels.values}}":                     {path: "/--cluster--"},
		"/{{podLabels.none}}/{{podLabels.neither}}": {lacks: "{{podLabels.none}} needs the label none in spec.podLabels"},
		"/{{podLabels.empty}}":                      {lacks: "that of empty in spec.podLabels is empty"},
		"/{{podLabels.App}}":                        {lacks: "the label App"},
		"/{{ namespace }}":                          {lacks: "{{ namespace }} is no variable"}, // which the schema refuses
	} {
		t.Run(template, func(t *testing.T) {
			object := &meshv1alpha1.ServiceIdentity{
				ObjectMeta: metav1.ObjectMeta{Namespace: "payments", Name: "x"},
				Spec: meshv1alpha1.ServiceIdentitySpec{PathTemplate: template, ServiceAccountName: "pay.v2", PodLabels: map[string]meshv1alpha1.LabelValue{
					"app": "Pay_1", "app.kubernetes.io/part_of": "shop", "namespace": "label", "empty": "", "values": "--cluster--",
				}},
			}
			path, err := cluster.Path(object)
			switch {
			case test.lacks == "" && (err != nil || path != test.path || cluster.IDOf(object) != "spiffe://jia.app"+test.path):
				t.Errorf("got %s, %v, want %s", path, err, test.path)
			case test.lacks != "" && (err == nil || !strings.Contains(err.Error(), test.lacks) || cluster.IDOf(object) != ""):
				t.Errorf("got %s, %v, want an error with %s", path, err, test.lacks)
			}
		})
	}
}
