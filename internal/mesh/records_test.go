package mesh_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
)

func TestAPortStaysWhereItIsWhateverBecomesOfTheOthers(t *testing.T) {
	const first = mesh.FirstMeshPort
	for name, test := range map[string]struct {
		records []meshv1alpha1.PortRecord
		ports   []string
		want    map[string]int32
	}{
		"at first in the spec's order":              {nil, []string{"b", "a"}, map[string]int32{"b": first, "a": first + 1}},
		"one comes before it":                       {records("a", first), []string{"new", "a"}, map[string]int32{"a": first, "new": first + 1}},
		"the one before it goes":                    {records("a", first, "b", first+1), []string{"b"}, map[string]int32{"b": first + 1}},
		"the order changes":                         {records("a", first, "b", first+1), []string{"b", "a"}, map[string]int32{"a": first, "b": first + 1}},
		"what is free is taken up":                  {records("a", first, "b", first+1), []string{"c", "b"}, map[string]int32{"c": first, "b": first + 1}},
		"a record out of range is none":             {records("a", first-1, "b", first+8), []string{"a", "b"}, map[string]int32{"a": first, "b": first + 1}},
		"a number that two have belongs to one":     {records("a", first+1, "b", first+1), []string{"a", "b"}, map[string]int32{"a": first + 1, "b": first}},
		"two numbers of one port are one":           {records("a", first, "a", first+1), []string{"a", "b"}, map[string]int32{"a": first + 1, "b": first + 2}},
		"a number of a port that is gone is free":   {records("gone", first, "a", first), []string{"a"}, map[string]int32{"a": first}},
		"no port has no number, whatever was there": {records("a", first), nil, map[string]int32{}},
	} {
		t.Run(name, func(t *testing.T) {
			cluster, err := mesh.NewClusterID("jia.app", "main")
			if err != nil {
				t.Fatal(err)
			}
			object := meshv1alpha1.MeshService{ObjectMeta: metav1.ObjectMeta{Namespace: "pay", Name: "pay"}}
			for i, port := range test.ports {
				object.Spec.Ports = append(object.Spec.Ports, meshv1alpha1.ServicePort{Name: port, Port: 8081 + int32(i), Protocol: meshv1alpha1.ProtocolGRPC})
			}
			object.Status.Ports = test.records
			for range 2 { // what is recorded of it changes nothing
				m, problems := mesh.Build(mesh.Objects{Cluster: cluster, Services: []meshv1alpha1.MeshService{object}})
				service, ok := m.Service(types.NamespacedName{Namespace: "pay", Name: "pay"})
				if !ok {
					t.Fatal(problems)
				}
				got := map[string]int32{}
				for i, port := range service.Ports {
					got[port.Name] = port.MeshPort
					if i > 0 && service.Ports[i-1].MeshPort >= port.MeshPort {
						t.Errorf("not sorted, or twice: %v", service.Ports)
					}
				}
				if diff := cmp.Diff(test.want, got); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				object.Status.Ports = service.PortRecords()
			}
		})
	}
}

func records(pairs ...any) []meshv1alpha1.PortRecord {
	var list []meshv1alpha1.PortRecord
	for i := 0; i < len(pairs); i += 2 {
		list = append(list, meshv1alpha1.PortRecord{Name: pairs[i].(string), MeshPort: int32(pairs[i+1].(int))})
	}
	return list
}
