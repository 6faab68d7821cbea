package descriptor

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func TestADescriptorSetIsRefusedWhereAProxyCouldNotLoadIt(t *testing.T) {
	sound := func() []*descriptorpb.FileDescriptorProto { return setOf(&annotations.HttpRule{}).GetFile() }
	for name, test := range map[string]struct {
		change  func(files []*descriptorpb.FileDescriptorProto) []*descriptorpb.FileDescriptorProto
		message string
	}{
		"sound": {func(files []*descriptorpb.FileDescriptorProto) []*descriptorpb.FileDescriptorProto { return files }, ""},
		"no files": {
			func([]*descriptorpb.FileDescriptorProto) []*descriptorpb.FileDescriptorProto { return nil },
			"no google.protobuf.FileDescriptorSet",
		},
		"without imports": {
			func(files []*descriptorpb.FileDescriptorProto) []*descriptorpb.FileDescriptorProto {
				return files[len(files)-1:]
			},
			"t.proto imports google/protobuf/timestamp.proto, which is not there before it",
		},
		"imports after what needs them": {func(files []*descriptorpb.FileDescriptorProto) []*descriptorpb.FileDescriptorProto {
			slices.Reverse(files)
			return files
		}, "which is not there before it"},
		"a type that nobody has": {func(files []*descriptorpb.FileDescriptorProto) []*descriptorpb.FileDescriptorProto {
			files[len(files)-1].Service[0].Method[0].InputType = proto.String(".t.Nothing")
			return files
		}, "it does not hold together"},
		"more methods than a service has": {func(files []*descriptorpb.FileDescriptorProto) []*descriptorpb.FileDescriptorProto {
			service := files[len(files)-1].GetService()[0]
			for i := range maxEntries {
				method := proto.CloneOf(service.GetMethod()[0])
				method.Name = proto.String(fmt.Sprintf("More%d", i))
				service.Method = append(service.Method, method)
			}
			return files
		}, "it has 4098 services, methods and HTTP bindings, and may have 4096"},
		"fields with the same name in JSON": {func(files []*descriptorpb.FileDescriptorProto) []*descriptorpb.FileDescriptorProto {
			files[len(files)-1].MessageType[1].Field[1].JsonName = proto.String("text")
			return files
		}, "t.Message.text and t.Message.texts have the same name in JSON: rename one"},
		"values with the same name": {func(files []*descriptorpb.FileDescriptorProto) []*descriptorpb.FileDescriptorProto {
			file := files[len(files)-1]
			file.Syntax = proto.String("proto2")
			file.EnumType = []*descriptorpb.EnumDescriptorProto{{Name: proto.String("Kind"), Value: []*descriptorpb.EnumValueDescriptorProto{
				{Name: proto.String("NONE"), Number: proto.Int32(0)}, {Name: proto.String("KIND_NONE"), Number: proto.Int32(1)},
			}}}
			return files
		}, "t.NONE and t.KIND_NONE have the same name but for the enum's own, underscores and case: rename one"},
		"a name of a package of others": {func(files []*descriptorpb.FileDescriptorProto) []*descriptorpb.FileDescriptorProto {
			return append(files, &descriptorpb.FileDescriptorProto{Name: proto.String("x.proto"), MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("google")}}})
		}, "it does not hold together"}, // here they are in the set, and else a proxy adds them
		"a file of others that is not theirs": {func(files []*descriptorpb.FileDescriptorProto) []*descriptorpb.FileDescriptorProto {
			return append(files, &descriptorpb.FileDescriptorProto{Name: proto.String("google/rpc/status.proto"), Package: proto.String("google.rpc")})
		}, "google/rpc/status.proto is not the one that everybody has: take it from protobuf or googleapis"},
		"a file twice": {
			func(files []*descriptorpb.FileDescriptorProto) []*descriptorpb.FileDescriptorProto {
				return append(files, files[0])
			},
			"it does not hold together",
		},
	} {
		t.Run(name, func(t *testing.T) {
			raw, err := proto.Marshal(&descriptorpb.FileDescriptorSet{File: test.change(sound())})
			if err != nil {
				t.Fatal(err)
			}
			switch _, err := parse(raw); {
			case test.message == "" && err != nil:
				t.Error(err)
			case test.message != "" && (err == nil || !strings.Contains(err.Error(), test.message) || !strings.Contains(err.Error(), ": ")):
				t.Errorf("got %v, want an error with %q that says what to do", err, test.message)
			case test.message == "it does not hold together" && !strings.Contains(err.Error(), "buf build"):
				t.Errorf("%v does not say how to make it", err)
			}
		})
	}
}

func TestABindingIsRefusedWhereATranscoderCouldNotLoadIt(t *testing.T) {
	get := func(path string) *annotations.HttpRule {
		return &annotations.HttpRule{Pattern: &annotations.HttpRule_Get{Get: path}}
	}
	with := func(rule *annotations.HttpRule, change func(*annotations.HttpRule)) *annotations.HttpRule {
		change(rule)
		return rule
	}
	body := func(body string) func(*annotations.HttpRule) { return func(r *annotations.HttpRule) { r.Body = body } }
	response := func(body string) func(*annotations.HttpRule) {
		return func(r *annotations.HttpRule) { r.ResponseBody = body }
	}
	custom := func(kind string) *annotations.HttpRule {
		return &annotations.HttpRule{Pattern: &annotations.HttpRule_Custom{Custom: &annotations.CustomHttpPattern{Kind: kind, Path: "/v1"}}}
	}
	for name, test := range map[string]struct {
		rule *annotations.HttpRule
		want []string
		err  string
	}{
		"a field":                {rule: get("/v1/{text}"), want: []string{"GET /v1/{text}"}},
		"a field of a field":     {rule: get("/v1/{inner.text}"), want: []string{"GET /v1/{inner.text}"}},
		"a timestamp":            {rule: get("/v1/{time}"), want: []string{"GET /v1/{time}"}},
		"a body that is a field": {rule: with(get("/v1"), body("inner")), want: []string{"GET /v1"}},
		"the whole body":         {rule: with(get("/v1"), body("*")), want: []string{"GET /v1"}},
		"a patch":                {rule: &annotations.HttpRule{Pattern: &annotations.HttpRule_Patch{Patch: "/v1"}}, want: []string{"PATCH /v1"}},
		"a delete":               {rule: &annotations.HttpRule{Pattern: &annotations.HttpRule_Delete{Delete: "/v1"}}, want: []string{"DELETE /v1"}},
		"several, sorted, each once": {
			rule: with(get("/v1/b"), func(r *annotations.HttpRule) {
				r.AdditionalBindings = []*annotations.HttpRule{get("/v1/a"), get("/v1/b")}
			}),
			want: []string{"GET /v1/a", "GET /v1/b"},
		},
		"no path at all":                        {rule: &annotations.HttpRule{}, err: "it names no HTTP method and path"},
		"any HTTP method":                       {rule: custom("*"), err: "it names no HTTP method and path"},
		"an HTTP method in lower case":          {rule: custom("head"), err: "it names no HTTP method and path"},
		"no template":                           {rule: get("v1"), err: "it is no path template"},
		"an unknown field":                      {rule: get("/v1/{nothing}"), err: "there is no field nothing"},
		"an unknown field of a field":           {rule: get("/v1/{inner.nothing}"), err: "there is no field inner.nothing"},
		"a field of a text":                     {rule: get("/v1/{text.nothing}"), err: "there is no field text.nothing"},
		"a field of a list":                     {rule: get("/v1/{inners.text}"), err: "there is no field inners.text"},
		"a message":                             {rule: get("/v1/{inner}"), err: "the variable inner is not a single value"},
		"a list":                                {rule: get("/v1/{texts}"), err: "the variable texts is not a single value"},
		"a body that the request lacks":         {rule: with(get("/v1"), body("nothing")), err: "body: there is no field nothing"},
		"a part of the answer":                  {rule: with(get("/v1"), response("texts")), err: "response_body: Envoy sends a part of an answer only where it is a google.api.HttpBody"},
		"a body of the answer that it lacks":    {rule: with(get("/v1"), response("nothing")), err: "response_body: there is no field nothing"},
		"additional bindings within themselves": {rule: nested(get), err: "additional_bindings within additional_bindings"},
	} {
		t.Run(name, func(t *testing.T) {
			bindings, err := bindingsOf(methodWith(t, test.rule))
			var got []string
			for _, binding := range bindings {
				got = append(got, binding.HTTPMethod+" "+binding.Template.String())
			}
			switch {
			case test.err == "" && (err != nil || !slices.Equal(got, test.want)):
				t.Errorf("got %v, %v; want %v", got, err, test.want)
			case test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err) || !strings.HasPrefix(err.Error(), "google.api.http of t.S.M")):
				t.Errorf("got error %v, want one of t.S.M with %q", err, test.err)
			}
		})
	}
}

func nested(get func(string) *annotations.HttpRule) *annotations.HttpRule {
	inner := get("/v1/inner")
	inner.AdditionalBindings = []*annotations.HttpRule{get("/v1/innermost")}
	rule := get("/v1")
	rule.AdditionalBindings = []*annotations.HttpRule{inner}
	return rule
}

func methodWith(t *testing.T, rule *annotations.HttpRule) protoreflect.MethodDescriptor {
	t.Helper()
	files, err := protodesc.NewFiles(setOf(rule))
	if err != nil {
		t.Fatal(err)
	}
	service, err := files.FindDescriptorByName("t.S")
	if err != nil {
		t.Fatal(err)
	}
	return service.(protoreflect.ServiceDescriptor).Methods().ByName("M")
}

// setOf is a descriptor set with the method t.S/M, which has the rule.
func setOf(rule *annotations.HttpRule) *descriptorpb.FileDescriptorSet {
	field := func(name string, number int32, label descriptorpb.FieldDescriptorProto_Label, typeName string) *descriptorpb.FieldDescriptorProto {
		f := &descriptorpb.FieldDescriptorProto{Name: &name, Number: &number, Label: &label, Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum()}
		if typeName != "" {
			f.Type, f.TypeName = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), &typeName
		}
		return f
	}
	const one, many = descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL, descriptorpb.FieldDescriptorProto_LABEL_REPEATED
	options := &descriptorpb.MethodOptions{}
	proto.SetExtension(options, annotations.E_Http, rule)
	file := &descriptorpb.FileDescriptorProto{
		Name: proto.String("t.proto"), Package: proto.String("t"), Syntax: proto.String("proto3"),
		Dependency: []string{"google/protobuf/timestamp.proto", "google/protobuf/duration.proto"},
		MessageType: []*descriptorpb.DescriptorProto{
			{Name: proto.String("Inner"), Field: []*descriptorpb.FieldDescriptorProto{field("text", 1, one, "")}},
			{Name: proto.String("Message"), Field: []*descriptorpb.FieldDescriptorProto{
				field("text", 1, one, ""), field("texts", 2, many, ""), field("inner", 3, one, ".t.Inner"),
				field("inners", 4, many, ".t.Inner"), field("time", 5, one, ".google.protobuf.Timestamp"),
			}},
		},
		Service: []*descriptorpb.ServiceDescriptorProto{{Name: proto.String("S"), Method: []*descriptorpb.MethodDescriptorProto{
			{Name: proto.String("M"), InputType: proto.String(".t.Message"), OutputType: proto.String(".t.Message"), Options: options},
		}}},
	}
	return &descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{
		protodesc.ToFileDescriptorProto(timestamppb.File_google_protobuf_timestamp_proto),
		protodesc.ToFileDescriptorProto(durationpb.File_google_protobuf_duration_proto),
		file,
	}}
}
