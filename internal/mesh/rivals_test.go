package mesh_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"k8s.io/apimachinery/pkg/types"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/mesh"
)

const shop = "shop.example.com"

// served is, by path, the service and exposure that the gateway serves there; and what the others are told. It leaves in
// the statuses what the leader writes there.
func (e *edge) served(t *testing.T) (paths map[string]string, told string) {
	t.Helper()
	m, problems := mesh.Build(e.Objects)
	g, ok := m.Gateway(publicGateway)
	if !ok {
		t.Fatalf("there is no gateway: %v", problems)
	}
	paths = map[string]string{}
	for _, route := range g.Routes {
		for _, method := range route.Methods {
			for _, binding := range method.Bindings {
				paths[binding.Template.String()] = route.Service.Name + "/" + route.Name
			}
		}
	}
	for i := range e.Services {
		object := &e.Services[i]
		if service, ok := m.Service(types.NamespacedName{Namespace: object.Namespace, Name: object.Name}); ok {
			object.Status.Exposures = service.Exposures
		}
	}
	for _, problem := range problems {
		told += problem.String() + "\n"
	}
	return paths, told
}

// Each case begins with the service "young", which is served, and the older "old", which comes later.
func TestAnEditOfAnOlderServiceTakesNoPathFromWhoIsServed(t *testing.T) {
	type step struct {
		does string
		do   func(e *edge)
		want map[string]string
		says string
	}
	nothing := func(*edge) {}
	youngHas := map[string]string{"/v1/a/{id}": "young/api"}
	refused := "GET /v1/a/* at MeshGateway edge/public with shop.example.com belongs to expose api of MeshService pay/young, which had it first"
	oldComes := step{"an older one wants the same", func(e *edge) { e.add("pay", "old", 1000, shop, descriptorsWith(0, "/v1/a/{id}")) }, youngHas, refused}
	for name, steps := range map[string][]step{
		"for as long as both stay": {oldComes, {"nothing", nothing, youngHas, refused}},
		"though what is served grows": {oldComes, {
			"young adds a path", func(e *edge) { e.publish("young", "/v1/a/{id}", "/v1/b") },
			map[string]string{"/v1/a/{id}": "young/api", "/v1/b": "young/api"},
			refused,
		}},
		"though the exposure gets another name": {oldComes, {
			"young renames it", func(e *edge) { e.service("young").Spec.Expose[0].Name = "other" },
			map[string]string{"/v1/a/{id}": "young/other"},
			"belongs to expose other of MeshService pay/young",
		}},
		"though nobody is served for a while": {
			oldComes,
			{"the keys are gone", func(e *edge) { e.ConfigMaps[0].Data["k"] = "{}" }, nil, "GatewayNotAccepted"},
			{"they are back", func(e *edge) { e.ConfigMaps[0].Data["k"] = publicKeys }, youngHas, refused},
		},
		"until it gives it up, and then for good": {
			oldComes,
			{
				"young leaves it", func(e *edge) { e.publish("young", "/v1/b") },
				map[string]string{"/v1/a/{id}": "old/api", "/v1/b": "young/api"},
				"",
			},
			{
				"young wants it again", func(e *edge) { e.publish("young", "/v1/a/{id}", "/v1/b") },
				map[string]string{"/v1/a/{id}": "old/api"},
				"belongs to expose api of MeshService pay/old, which had it first",
			},
		},
		"until it gives it up, also for what it does not get": {
			{"an older one comes with a path of its own", func(e *edge) { e.add("pay", "old", 1000, shop, descriptorsWith(0, "/v1/b")) }, map[string]string{"/v1/a/{id}": "young/api", "/v1/b": "old/api"}, ""},
			{"young wants that instead", func(e *edge) { e.publish("young", "/v1/b") }, map[string]string{"/v1/b": "old/api"}, "belongs to expose api of MeshService pay/old"},
			{
				"it goes back, when the oldest comes", func(e *edge) {
					e.publish("young", "/v1/a/{id}")
					e.add("pay", "oldest", 500, shop, descriptorsWith(0, "/v1/a/{id}"))
				},
				map[string]string{"/v1/a/{id}": "oldest/api", "/v1/b": "old/api"},
				"belongs to expose api of MeshService pay/oldest",
			},
		},
		"but who cannot be served keeps nobody out, nor gets it back": {
			oldComes,
			{
				"young loses its descriptor set", func(e *edge) { e.service("young").Spec.API.DescriptorSet.Key = "gone" },
				map[string]string{"/v1/a/{id}": "old/api"},
				"DescriptorInvalid",
			},
			{
				"it has it again, and is the older one", func(e *edge) {
					e.service("young").Spec.API.DescriptorSet.Key = "k"
					e.service("young").CreationTimestamp.Time = e.service("old").CreationTimestamp.AddDate(-1, 0, 0)
				},
				map[string]string{"/v1/a/{id}": "old/api"},
				"belongs to expose api of MeshService pay/old, which had it first",
			},
		},
		"nor gets who is served what another is served": {
			{"an older one comes with a path of its own", func(e *edge) { e.add("pay", "old", 1000, shop, descriptorsWith(0, "/v1/b")) }, map[string]string{"/v1/a/{id}": "young/api", "/v1/b": "old/api"}, ""},
			{"each wants both", func(e *edge) {
				e.publish("young", "/v1/a/{id}", "/v1/b")
				e.publish("old", "/v1/a/{id}", "/v1/b")
			}, nil, "GET /v1/b at MeshGateway edge/public with shop.example.com belongs to expose api of MeshService pay/old"},
			{"one gives in", func(e *edge) { e.publish("old", "/v1/b") }, map[string]string{"/v1/b": "old/api"}, "belongs to expose api of MeshService pay/old, which had it first"},
			{"the other, too", func(e *edge) { e.publish("young", "/v1/a/{id}") }, map[string]string{"/v1/a/{id}": "young/api", "/v1/b": "old/api"}, ""},
		},
		"nor by a template that takes in what is served": {{
			"an older one wants all of it", func(e *edge) { e.add("pay", "old", 1000, shop, descriptorsWith(0, "/v1/{id=**}")) },
			youngHas, "GET /v1/** at MeshGateway edge/public with shop.example.com takes some of the same paths as GET /v1/a/*, which belongs to expose api of MeshService pay/young, which had it first: choose another host name, or leave t.S/M0 out",
		}},
		"nor by a template that takes out of what is served": {{
			"a younger one wants a part of it", func(e *edge) { e.add("pay", "younger", 3000, shop, descriptorsWith(0, "/v1/a/special")) },
			youngHas, "GET /v1/a/special at MeshGateway edge/public with shop.example.com takes some of the same paths as GET /v1/a/*, which belongs",
		}},
		"while one service may have both of two templates that overlap": {{
			"young adds a part and all", func(e *edge) { e.publish("young", "/v1/a/{id}", "/v1/a/special", "/v1/{id=**}") },
			map[string]string{"/v1/a/{id}": "young/api", "/v1/a/special": "young/api", "/v1/{id=**}": "young/api"},
			"",
		}, {
			"in two exposures, too", func(e *edge) {
				young := e.service("young")
				more := young.Spec.Expose[0]
				more.Name, more.Methods = "a-part", []meshv1alpha1.ExactMethod{"t.S/M1"}
				young.Spec.Expose[0].Methods = []meshv1alpha1.ExactMethod{"t.S/M0", "t.S/M2"}
				young.Spec.Expose = append(young.Spec.Expose, more)
			},
			map[string]string{"/v1/a/{id}": "young/api", "/v1/a/special": "young/a-part", "/v1/{id=**}": "young/api"},
			"",
		}},
		"and another exposure of the same service takes nothing from the first, whatever its name": {{
			"young exposes it once more", func(e *edge) {
				young := e.service("young")
				more := young.Spec.Expose[0]
				more.Name = "a-copy"
				young.Spec.Expose = append(young.Spec.Expose, more)
			},
			youngHas, "expose[name=a-copy]: GET /v1/a/* at MeshGateway edge/public with shop.example.com belongs to expose api of MeshService pay/young",
		}},
		"nor one that nobody has, while the older one is not served": {
			{"an older one comes with another path", func(e *edge) { e.add("pay", "old", 1000, shop, descriptorsWith(0, "/v1/b")) }, map[string]string{"/v1/a/{id}": "young/api", "/v1/b": "old/api"}, ""},
			{"both want one more, the older in an exposure of its own", func(e *edge) {
				e.publish("young", "/v1/a/{id}", "/v1/c")
				e.publish("old", "/v1/b", "/v1/c")
				old := e.service("old")
				more := old.Spec.Expose[0]
				more.Name, more.Methods = "more", []meshv1alpha1.ExactMethod{"t.S/M1"}
				old.Spec.Expose[0].Methods = []meshv1alpha1.ExactMethod{"t.S/M0"}
				old.Spec.Expose = append(old.Spec.Expose, more)
			}, map[string]string{"/v1/a/{id}": "young/api", "/v1/b": "old/api", "/v1/c": "young/api"}, "GET /v1/c at MeshGateway edge/public with shop.example.com belongs to expose api of MeshService pay/young"},
			{"the younger leaves it", func(e *edge) { e.publish("young", "/v1/a/{id}") }, map[string]string{"/v1/a/{id}": "young/api", "/v1/b": "old/api", "/v1/c": "old/more"}, ""},
		},
		"or at another gateway": {
			{"it goes to another gateway", func(e *edge) {
				e.addGateway("second")
				e.service("young").Spec.Expose[0].Gateway.Name = "second"
			}, nil, ""},
			{"both come back", func(e *edge) {
				e.service("young").Spec.Expose[0].Gateway.Name = "public"
				e.add("pay", "old", 1000, shop, descriptorsWith(0, "/v1/a/{id}"))
			}, map[string]string{"/v1/a/{id}": "old/api"}, "belongs to expose api of MeshService pay/old"},
		},
		"but an older one that has no claim to another of its paths keeps nobody from one": {
			{"it wants what young is served, and what nobody is", func(e *edge) {
				e.add("pay", "old", 1000, shop, descriptorsWith(0, "/v1/a/{id}", "/v1/c"))
				e.publish("young", "/v1/a/{id}", "/v1/c")
			}, map[string]string{"/v1/a/{id}": "young/api", "/v1/c": "young/api"}, "MeshService pay/old: Exposed RouteClaimed"},
		},
		"and another host name is free": {{
			"an older one comes with another", func(e *edge) { e.add("pay", "old", 1000, "other.example.com", descriptorsWith(0, "/v1/{id=**}")) },
			map[string]string{"/v1/a/{id}": "young/api", "/v1/{id=**}": "old/api"},
			"",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEdge(t)
			e.add("pay", "young", 2000, shop, descriptorsWith(0, "/v1/a/{id}"))
			if paths, told := e.served(t); !cmp.Equal(paths, youngHas) {
				t.Fatalf("at first: %v, %s", paths, told)
			}
			for _, step := range steps {
				step.do(e)
				for range 2 { // what is recorded of it changes nothing
					paths, told := e.served(t)
					if diff := cmp.Diff(step.want, paths, cmpopts.EquateEmpty()); diff != "" {
						t.Fatalf("%s (-want +got):\n%s%s", step.does, diff, told)
					}
					if step.says == "" && told != "" || !strings.Contains(told, step.says) {
						t.Fatalf("%s: got %q, want %q", step.does, told, step.says)
					}
				}
			}
		})
	}
}

func TestARecordOfWhatIsNotWantedAnyMoreCountsForNothing(t *testing.T) {
	e := newEdge(t)
	e.add("pay", "first", 1000, shop, descriptorsWith(0, "/v1/a"))
	forged := e.add("pay", "forged", 2000, shop, descriptorsWith(0, "/v1/b"))
	forged.Status.Exposures = []meshv1alpha1.ExposureRecord{{
		Name: "api", Gateway: meshv1alpha1.ObjectReference{Name: "public", Namespace: "edge"},
		Hostnames: []meshv1alpha1.Hostname{shop}, Paths: []string{"GET /v1/a", "", "/", "GET", "GET  //:"},
	}, {Name: "gone", Hostnames: []meshv1alpha1.Hostname{shop}, Paths: []string{"GET /v1/a"}}}
	paths, told := e.served(t)
	if diff := cmp.Diff(map[string]string{"/v1/a": "first/api", "/v1/b": "forged/api"}, paths); diff != "" {
		t.Errorf("(-want +got):\n%s%s", diff, told)
	}
	want := []meshv1alpha1.ExposureRecord{{
		Name: "api", Gateway: meshv1alpha1.ObjectReference{Name: "public", Namespace: "edge"}, Hostnames: []meshv1alpha1.Hostname{shop}, Paths: []string{"GET /v1/b"},
		Port: "grpc",
	}}
	sizes := cmpopts.IgnoreFields(meshv1alpha1.ExposureRecord{}, "Size", "SharedSize")
	if diff := cmp.Diff(want, e.service("forged").Status.Exposures, sizes); diff != "" {
		t.Errorf("recorded (-want +got):\n%s", diff)
	}
}

func TestAnExposureWithMorePathsThanARecordHoldsIsRefused(t *testing.T) {
	many := func(n int, path string) []string {
		paths := make([]string, n)
		for i := range paths {
			paths[i] = fmt.Sprintf(path, i)
		}
		return paths
	}
	for name, test := range map[string]struct {
		paths []string
		fits  bool
	}{
		"as many as there can be": {many(256, "/v1/%d"), true},
		"one more":                {many(257, "/v1/%d"), false},
		"few, and long":           {many(17, "/v1/"+strings.Repeat("a", 1000)+"%d"), false},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEdge(t)
			e.add("pay", "many", 1000, shop, descriptorsWith(0, test.paths...))
			paths, told := e.served(t)
			if fits := len(paths) == len(test.paths); fits != test.fits || test.fits == strings.Contains(told, "TooManyPaths: spec.expose[name=api].methods: ") {
				t.Errorf("got %d paths, told %q", len(paths), told)
			}
		})
	}
}

// large are descriptors of 600 KB that each method of these paths needs.
func large(t *testing.T, paths ...string) []byte {
	t.Helper()
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(descriptorsWith(0, paths...), set); err != nil {
		t.Fatal(err)
	}
	message := set.GetFile()[3].GetMessageType()[0]
	for i := range 15_000 {
		field := proto.CloneOf(message.GetField()[0])
		field.Name, field.Number = proto.String(fmt.Sprintf("field_of_some_length_%d", i)), proto.Int32(int32(100+i))
		message.Field = append(message.Field, field)
	}
	raw, err := proto.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestWhoIsRefusedForLackOfRoomKeepsNobodyElseFromAPath(t *testing.T) {
	e := newEdge(t)
	var paths []string
	for i := range 10 {
		paths = append(paths, fmt.Sprintf("/v1/large%d", i))
	}
	e.add("pay", "large", 1000, shop, large(t, paths...))
	crowded := e.add("pay", "crowded", 2000, shop, descriptorsWith(0, "/v1/a"))
	crowded.Spec.Expose[0].Hostnames = append(crowded.Spec.Expose[0].Hostnames, "other.example.com")
	e.add("pay", "young", 3000, "other.example.com", descriptorsWith(0, "/v1/a"))
	for range 3 { // with what is recorded of the round before
		served, told := e.served(t)
		if served["/v1/a"] != "young/api" || served["/v1/large0"] != "large/api" {
			t.Fatalf("served are %v, and told is %s", served, told)
		}
		if !strings.Contains(told, "MeshService pay/crowded: Exposed") {
			t.Errorf("told is %s", told)
		}
	}
}
