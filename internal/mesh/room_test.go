package mesh

import (
	"fmt"
	"testing"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
	"github.com/jia-app/paymesh/internal/descriptor"
)

// manyMethods is a set of the service t.S, with so many methods that share a message of about so many bytes.
func manyMethods(t *testing.T, prefix string, methods, size int) []byte {
	t.Helper()
	message := &descriptorpb.DescriptorProto{Name: proto.String("Message")}
	for i := range max(size/32, 1) {
		message.Field = append(message.Field, &descriptorpb.FieldDescriptorProto{
			Name: proto.String(fmt.Sprintf("a_field_of_some_length_%04d", i)), Number: proto.Int32(int32(100 + i)),
			Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(), Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(),
		})
	}
	service := &descriptorpb.ServiceDescriptorProto{Name: proto.String("S")}
	for i := range methods {
		options := &descriptorpb.MethodOptions{}
		path := fmt.Sprintf("/v1/%s/m%d/{%s}", prefix, i, message.GetField()[0].GetName())
		proto.SetExtension(options, annotations.E_Http, &annotations.HttpRule{Pattern: &annotations.HttpRule_Get{Get: path}})
		service.Method = append(service.Method, &descriptorpb.MethodDescriptorProto{
			Name: proto.String(fmt.Sprintf("M%d", i)), InputType: proto.String(".t.Message"), OutputType: proto.String(".t.Message"), Options: options,
		})
	}
	raw, err := proto.Marshal(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{{
		Name: proto.String("t.proto"), Package: proto.String("t"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{message}, Service: []*descriptorpb.ServiceDescriptorProto{service},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestAGatewayWithoutRoomRefusesWhoComesAndKeepsWhoIsThere(t *testing.T) {
	g := &gateway{Gateway: Gateway{Key: types.NamespacedName{Namespace: "edge", Name: "public"}}}
	cache := &descriptor.Cache{}
	comes := func(name string, methods, size int, hostnames ...string) *candidate {
		set, err := cache.Read(manyMethods(t, name, methods, size))
		if err != nil {
			t.Fatal(err)
		}
		s := &service{object: &meshv1alpha1.MeshService{ObjectMeta: metav1.ObjectMeta{Namespace: "pay", Name: name}}, api: set}
		s.Key = keyOf(s.object)
		c := &candidate{gateway: g, service: s, exposure: &meshv1alpha1.Exposure{Name: "api"}, route: Route{Service: s.Key, Name: "api", Hostnames: hostnames, Transcode: true}}
		found, err := set.Methods("t.S/*")
		if err != nil || set.CheckBindings("t.S") != nil {
			t.Fatal(err, set.CheckBindings("t.S"))
		}
		for _, method := range found {
			c.route.Methods = append(c.route.Methods, Method{Service: method.Service, Name: method.Name, Bindings: method.Bindings})
		}
		c.route.Descriptors = set.Cut(c.route.methodNames()...)
		return c
	}
	large, small := comes("large", 64, 600<<10, "api.example.com"), comes("small", 2, 100, "api.example.com")
	used := rooms{}
	add := func(c *candidate) *refusal {
		take, refused := used.fit(c)
		if refused == nil {
			take()
		}
		return refused
	}
	if refused := add(large); refused != nil {
		t.Fatal(refused)
	}
	if refused := add(small); refused == nil || refused.reason != meshv1alpha1.ReasonGatewayFull {
		t.Errorf("the second is let in: %v", refused)
	}
	if size := used[g].size; size > gatewayRoom {
		t.Errorf("%d bytes are served", size)
	}
	// Under a host name of its own there is room for it, and many small ones can share one.
	all := []*candidate{large, comes("small", 2, 100, "small.example.com")}
	for i := range 40 {
		all = append(all, comes(fmt.Sprintf("shared-%d", i), 8, 100, "shared.example.com", "also-shared.example.com"))
	}
	used = rooms{}
	for _, c := range all {
		if refused := add(c); refused != nil {
			t.Error(refused)
		}
	}
	used.describe()
	if all[0].route.Methods[0].Descriptors != nil || all[2].route.Methods[0].Descriptors == nil {
		t.Error("where an exposure is alone its methods need no descriptors of their own, and where not they do")
	}
	// What was counted one after the other is what there is: host names that the same exposures have share their routes.
	counted, seen := 0, map[*shownHost]bool{}
	for _, h := range used[g].hosts {
		if !seen[h] {
			seen[h], counted = true, counted+h.size
		}
	}
	if counted != used[g].size || len(seen) != 3 {
		t.Errorf("%d bytes were counted for %d kinds of hosts, and there are %d", used[g].size, len(seen), counted)
	}
	t.Logf("%d bytes of %d", used[g].size, gatewayRoom)
}
