package descriptor

import (
	"bytes"
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
	methods := []string{"shop.Shop/Get"}
	got := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(d.Cut(methods...), got); err != nil {
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
	for _, methods := range [][]string{nil, methods, {"shop.Shop/Delete"}, {"shop.Shop/Get", "shop.Shop/Explain", "shop.Admin/Get"}} {
		if cut, counted := len(d.Cut(methods...)), d.SizeOfCut(methods...); cut != counted {
			t.Errorf("%v: %d bytes are counted, and there are %d", methods, counted, cut)
		}
	}
	again := parsed(t, set)
	again.Cut("shop.Admin/Get")
	if !bytes.Equal(again.Cut(methods...), d.Cut(methods...)) {
		t.Error("the same methods of the same set give other bytes")
	}
}

func parsed(t *testing.T, set *descriptorpb.FileDescriptorSet) *Set {
	t.Helper()
	raw, err := proto.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return read(t, raw)
}

func read(t *testing.T, raw []byte) *Set {
	t.Helper()
	set, err := new(Cache).Read(raw)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestACutOfARealSetHoldsTogether(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", "..", "config", "samples", "payment.binpb"))
	if err != nil {
		t.Fatal(err)
	}
	d := read(t, raw)
	methods, err := d.Methods("payment.v1.PaymentService/*")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, method := range methods {
		all = append(all, method.Service+"/"+method.Name)
	}
	for i := range all {
		part := d.Cut(all[i])
		again := read(t, part)
		found, err := again.Methods("payment.v1.PaymentService/*")
		if err != nil || len(found) != 1 || again.CheckBindings("payment.v1.PaymentService") != nil || len(found[0].Bindings) == 0 {
			t.Errorf("%s: the methods are %v (%v)", all[i], found, err)
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
		if counted := d.SizeOfCut(all[i]); counted != len(part) {
			t.Errorf("%s: %d bytes are counted, and there are %d", all[i], counted, len(part))
		}
		t.Logf("%s: %d of %d bytes", all[i], len(part), len(raw))
	}
	whole := d.Cut(all...)
	if _, err := parse(whole); err != nil || len(whole) > len(raw)/2 {
		t.Errorf("all methods: %d of %d bytes (%v)", len(whole), len(raw), err)
	}
	t.Logf("all methods: %d of %d bytes", len(whole), len(raw))
}
