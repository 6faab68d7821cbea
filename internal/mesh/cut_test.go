package mesh

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
)

// bookshop is in three files: what a method uses, what its errors tell, and what only options and other methods use.
const bookshop = `
file { name: "types.proto" package: "shop" syntax: "proto3"
  message_type { name: "Book" field { name: "kind" number: 1 label: LABEL_OPTIONAL type: TYPE_ENUM type_name: ".shop.Kind" }
    field { name: "pages" number: 2 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: ".shop.Book.PagesEntry" }
    nested_type { name: "PagesEntry" options { map_entry: true } field { name: "key" number: 1 label: LABEL_OPTIONAL type: TYPE_STRING }
      field { name: "value" number: 2 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: ".shop.Page.Text" } } }
  message_type { name: "Unrelated" }
  message_type { name: "Page" nested_type { name: "Text" } }
  enum_type { name: "Kind" value { name: "NONE" number: 0 } } }
file { name: "other.proto" package: "shop" syntax: "proto3" dependency: "types.proto" message_type { name: "Other" } message_type { name: "Rules" } }
file { name: "errors.proto" package: "shop" syntax: "proto3" message_type { name: "WhyNot" } }
file { name: "google/rpc/error_details.proto" package: "google.rpc" syntax: "proto3" message_type { name: "ErrorInfo" } message_type { name: "Help" } }
file { name: "shop.proto" package: "shop" syntax: "proto3" dependency: "types.proto" dependency: "other.proto" dependency: "google/rpc/error_details.proto" dependency: "google/protobuf/descriptor.proto"
  message_type { name: "Ask" field { name: "id" number: 1 label: LABEL_OPTIONAL type: TYPE_STRING } }
  extension { name: "rules" number: 50000 label: LABEL_OPTIONAL type: TYPE_MESSAGE type_name: ".shop.Rules" extendee: ".google.protobuf.MessageOptions" }
  service { name: "Shop" method { name: "Get" input_type: ".shop.Ask" output_type: ".shop.Book" }
    method { name: "Delete" input_type: ".shop.Ask" output_type: ".shop.Other" } method { name: "Explain" input_type: ".shop.Ask" output_type: ".google.rpc.Help" }
    method { name: "Move" input_type: ".shop.Unrelated" output_type: ".shop.Ask" } }
  service { name: "Admin" method { name: "Get" input_type: ".shop.Ask" output_type: ".shop.Other" } }
  source_code_info { location { span: [0, 0, 0] leading_comments: "secret plans" } } }
`

func TestACutSetHasItsMethodsWhatTheyUseAndWhatErrorsTell(t *testing.T) {
	set := &descriptorpb.FileDescriptorSet{}
	if err := prototext.Unmarshal([]byte(bookshop), set); err != nil {
		t.Fatal(err)
	}
	for _, method := range set.GetFile()[4].GetService()[0].GetMethod() {
		method.Options = &descriptorpb.MethodOptions{}
		proto.SetExtension(method.GetOptions(), annotations.E_Http, &annotations.HttpRule{Pattern: &annotations.HttpRule_Get{Get: "/v1/" + method.GetName()}})
	}
	set.File = slices.Insert(set.File, 0, protodesc.ToFileDescriptorProto(descriptorpb.File_google_protobuf_descriptor_proto))
	d := parsed(t, set)
	methods := []Method{{Service: "shop.Shop", Name: "Get"}}
	got := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(d.cut(methods), got); err != nil {
		t.Fatal(err)
	}
	var has []string
	for _, file := range got.GetFile() {
		has = append(has, file.GetName()+" "+strings.Join(file.GetDependency(), "+"))
		for _, message := range file.GetMessageType() {
			has = append(has, message.GetName())
		}
		for _, enum := range file.GetEnumType() {
			has = append(has, enum.GetName())
		}
		for _, service := range file.GetService() {
			for _, method := range service.GetMethod() {
				has = append(has, service.GetName()+"/"+method.GetName())
				if !proto.HasExtension(method.GetOptions(), annotations.E_Http) {
					t.Errorf("%s has lost its path", method.GetName())
				}
			}
		}
		if len(file.GetExtension()) > 0 || file.GetSourceCodeInfo() != nil {
			t.Errorf("%s has extensions or comments", file.GetName())
		}
	}
	want := []string{
		"errors.proto ", "WhyNot", "google/rpc/error_details.proto ", "ErrorInfo", "Help", "types.proto ", "Book", "Page", "Kind",
		"shop.proto types.proto", "Ask", "Shop/Get",
	}
	if !slices.Equal(has, want) {
		t.Errorf("got  %q\nwant %q", has, want)
	}
	for _, methods := range [][]Method{nil, methods, {{Service: "shop.Shop", Name: "Delete"}}, {{Service: "shop.Shop", Name: "Get"}, {Service: "shop.Shop", Name: "Explain"}, {Service: "shop.Admin", Name: "Get"}}} {
		if cut, counted := len(d.cut(methods)), apis.sizeOf(d.api, d.raw, methods); cut != counted {
			t.Errorf("%v: %d bytes are counted, and there are %d", methods, counted, cut)
		}
	}
	again := parsed(t, set)
	again.cut([]Method{{Service: "shop.Admin", Name: "Get"}})
	if !bytes.Equal(again.cut(methods), d.cut(methods)) {
		t.Error("the same methods of the same set give other bytes")
	}
}

func parsed(t *testing.T, set *descriptorpb.FileDescriptorSet) parsedSet {
	t.Helper()
	raw, err := proto.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return read(t, raw)
}

func read(t *testing.T, raw []byte) parsedSet {
	t.Helper()
	d, err := apis.read(raw)
	if err != nil {
		t.Fatal(err)
	}
	return parsedSet{d, raw}
}

// parsedSet is a descriptor set with what it says.
type parsedSet struct {
	*api
	raw []byte
}

func (p parsedSet) cut(methods []Method) []byte { return apis.cut(p.api, p.raw, methods) }

func TestACutOfARealSetHoldsTogether(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", "..", "config", "samples", "payment.binpb"))
	if err != nil {
		t.Fatal(err)
	}
	d := read(t, raw)
	_, methods, err := d.expand("payment.v1.PaymentService/*")
	if err != nil {
		t.Fatal(err)
	}
	var all []Method
	for _, method := range methods {
		all = append(all, method.Method)
	}
	for i := range all {
		part := d.cut(all[i : i+1])
		service, found, err := read(t, part).expand("payment.v1.PaymentService/*")
		if err != nil || len(found) != 1 || service.err != nil || len(found[0].Bindings) == 0 {
			t.Errorf("%s: the methods are %v (%v)", all[i].Name, found, err)
		}
		set := &descriptorpb.FileDescriptorSet{}
		if err := proto.Unmarshal(part, set); err != nil {
			t.Fatal(err)
		}
		files, err := protodesc.NewFiles(set)
		if err != nil {
			t.Fatal(err)
		}
		for _, detail := range []protoreflect.FullName{"google.rpc.ErrorInfo", "google.rpc.BadRequest"} {
			if _, err := files.FindDescriptorByName(detail); err != nil {
				t.Errorf("%s: %v", detail, err)
			}
		}
		if counted := apis.sizeOf(d.api, d.raw, all[i:i+1]); counted != len(part) {
			t.Errorf("%s: %d bytes are counted, and there are %d", all[i].Name, counted, len(part))
		}
		t.Logf("%s: %d of %d bytes", all[i].Name, len(part), len(raw))
	}
	whole := d.cut(all)
	if _, err := parseDescriptors(whole); err != nil || len(whole) > len(raw)/2 {
		t.Errorf("all methods: %d of %d bytes (%v)", len(whole), len(raw), err)
	}
	t.Logf("all methods: %d of %d bytes", len(whole), len(raw))
}

// manyMethods is a set of the service t.S, with so many methods that share a message of about so many bytes.
func manyMethods(t *testing.T, prefix string, methods, size int) []byte {
	t.Helper()
	set := setOf(&annotations.HttpRule{})
	file := set.GetFile()[2]
	for i := range size / 32 {
		name := fmt.Sprintf("a_field_of_some_length_%04d", i)
		field := proto.CloneOf(file.GetMessageType()[1].GetField()[0])
		field.Name, field.Number = &name, proto.Int32(int32(100+i))
		file.MessageType[1].Field = append(file.MessageType[1].Field, field)
	}
	of := file.GetService()[0].GetMethod()[0]
	file.Service[0].Method = nil
	for i := range methods {
		method := proto.CloneOf(of)
		name := fmt.Sprintf("M%d", i)
		method.Name = &name
		proto.SetExtension(method.GetOptions(), annotations.E_Http, &annotations.HttpRule{Pattern: &annotations.HttpRule_Get{Get: fmt.Sprintf("/v1/%s/m%d/{text}", prefix, i)}})
		file.Service[0].Method = append(file.Service[0].Method, method)
	}
	raw, err := proto.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestAGatewayWithoutRoomRefusesWhoComesAndKeepsWhoIsThere(t *testing.T) {
	g := &gateway{Gateway: Gateway{Key: types.NamespacedName{Namespace: "edge", Name: "public"}}}
	comes := func(name string, methods, size int, hostnames ...string) *candidate {
		d := read(t, manyMethods(t, name, methods, size))
		s := &service{object: &meshv1alpha1.MeshService{ObjectMeta: metav1.ObjectMeta{Namespace: "pay", Name: name}}, api: d.api, descriptors: d.raw}
		s.Key = keyOf(s.object)
		c := &candidate{gateway: g, service: s, exposure: &meshv1alpha1.Exposure{Name: "api"}, route: Route{Service: s.Key, Name: "api", Hostnames: hostnames, Transcode: true}}
		of, expanded, err := d.expand("t.S/*")
		if err != nil || of.err != nil {
			t.Fatal(err, of.err)
		}
		for _, method := range expanded {
			c.route.Methods = append(c.route.Methods, method.Method)
		}
		c.route.Descriptors = d.cut(c.route.Methods)
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
