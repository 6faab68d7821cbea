package mesh_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
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
		"two numbers of one port are one":           {records("a", first, "a", first+1), []string{"a", "b"}, map[string]int32{"a": first, "b": first + 1}},
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

func TestAListenerStaysWhereItIsAndNobodyGetsThePlaceOfOneThatIsGone(t *testing.T) {
	const first, last = mesh.FirstGatewayPort, mesh.FirstGatewayPort + mesh.GatewayPorts - 1
	eight := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	var all []any
	want := map[string]int32{}
	for i, name := range []string{"i", "j", "k", "l", "m", "n", "o", "p", "a", "b", "c", "d", "e", "f", "g", "q"} {
		all = append(all, name, first+i)
		if i >= 8 && i < 15 {
			want[name] = first + int32(i)
		}
	}
	want["h"] = last
	for name, test := range map[string]struct {
		records    []meshv1alpha1.ListenerRecord
		listeners  []string
		want, gone map[string]int32
	}{
		"at first in the spec's order":        {nil, []string{"b", "a"}, map[string]int32{"b": first, "a": first + 1}, nil},
		"one comes before it":                 {at("a", first), []string{"new", "a"}, map[string]int32{"a": first, "new": first + 1}, nil},
		"the one before it goes":              {at("a", first, "b", first+1), []string{"b"}, map[string]int32{"b": first + 1}, map[string]int32{"a": first}},
		"the order changes":                   {at("a", first, "b", first+1), []string{"b", "a"}, map[string]int32{"a": first, "b": first + 1}, nil},
		"another comes when one has gone":     {at("a", first, "b", first+1), []string{"c", "b"}, map[string]int32{"c": first + 2, "b": first + 1}, map[string]int32{"a": first}},
		"one that is gone comes again":        {at("a", first, "b", first+1), []string{"b", "a"}, map[string]int32{"a": first, "b": first + 1}, nil},
		"a record out of range is none":       {at("a", first-1, "b", last+1), []string{"a", "b"}, map[string]int32{"a": first, "b": first + 1}, nil},
		"a number of two is of who is wanted": {at("gone", first, "a", first), []string{"a"}, map[string]int32{"a": first}, nil},
		"there is room for no more that are gone": {at(all...), eight, want, map[string]int32{
			"i": first, "j": first + 1, "k": first + 2, "l": first + 3, "m": first + 4, "n": first + 5, "o": first + 6, "p": first + 7,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			object := meshv1alpha1.MeshGateway{ObjectMeta: metav1.ObjectMeta{Namespace: "edge", Name: "public"}}
			for i, name := range test.listeners {
				object.Spec.Listeners = append(object.Spec.Listeners, meshv1alpha1.GatewayListener{Name: name, Port: int32(443 + i)})
			}
			object.Status.Listeners = test.records
			for range 2 { // what is recorded of it changes nothing
				gateway := buildGateway(t, object)
				got, gone := map[string]int32{}, map[string]int32{}
				for i, l := range gateway.Listeners {
					if got[l.Name] = l.TargetPort; i > 0 && gateway.Listeners[i-1].TargetPort >= l.TargetPort {
						t.Errorf("not sorted, or twice: %v", gateway.Listeners)
					}
				}
				for _, r := range gateway.Gone {
					gone[r.Name] = r.TargetPort
				}
				if diff := cmp.Diff(test.want, got); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(test.gone, gone, cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("gone (-want +got):\n%s", diff)
				}
				object.Status.Listeners = gateway.ListenerRecords(true)
			}
			object.Status.Listeners = buildGateway(t, object).ListenerRecords(false)
			if gone := buildGateway(t, object).Gone; len(gone) > 0 {
				t.Errorf("no pod of an older revision is there, and %v is spared", gone)
			}
		})
	}
}

func buildGateway(t *testing.T, object meshv1alpha1.MeshGateway) mesh.Gateway {
	t.Helper()
	cluster, err := mesh.NewClusterID("jia.app", "main")
	if err != nil {
		t.Fatal(err)
	}
	m, problems := mesh.Build(mesh.Objects{Cluster: cluster, Gateways: []meshv1alpha1.MeshGateway{object}})
	gateway, ok := m.Gateway(types.NamespacedName{Namespace: object.Namespace, Name: object.Name})
	if !ok {
		t.Fatal(problems)
	}
	return gateway
}

func at(pairs ...any) []meshv1alpha1.ListenerRecord {
	var list []meshv1alpha1.ListenerRecord
	for i := 0; i < len(pairs); i += 2 {
		list = append(list, meshv1alpha1.ListenerRecord{Name: pairs[i].(string), TargetPort: int32(pairs[i+1].(int))})
	}
	return list
}

func records(pairs ...any) []meshv1alpha1.PortRecord {
	var list []meshv1alpha1.PortRecord
	for i := 0; i < len(pairs); i += 2 {
		list = append(list, meshv1alpha1.PortRecord{Name: pairs[i].(string), MeshPort: int32(pairs[i+1].(int))})
	}
	return list
}
