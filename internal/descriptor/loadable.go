package descriptor

import (
	"bytes"
	"cmp"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/api/httpbody"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// What Envoy's own reading of descriptors bounds, or this one so that it stays far below.
const (
	maxNesting   = 30   // messages in messages
	maxNameChars = 1024 // of a full name, of a JSON name, of a file
)

// checkLoadable says which part of a descriptor set the protobuf library of proxies (in C++) refuses and Go's accepts, as far
// as it is not dropped anyway (stripper). The proxy names nothing, and refuses the routes of everybody.
func checkLoadable(file protoreflect.FileDescriptor) error {
	if err := checkText("the file name", file.Path()); err != nil {
		return err
	}
	if err := checkKnown(file); err != nil {
		return err
	}
	if err := checkMessages(file.Messages(), 1); err != nil {
		return err
	}
	if err := checkEnums(file.Enums()); err != nil {
		return err
	}
	for i := range file.Services().Len() {
		service := file.Services().Get(i)
		if err := checkName(service); err != nil {
			return err
		}
		for j := range service.Methods().Len() {
			if err := checkName(service.Methods().Get(j)); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkMessages(messages protoreflect.MessageDescriptors, depth int) error {
	for i := range messages.Len() {
		message := messages.Get(i)
		if depth > maxNesting {
			return fmt.Errorf("%s is in more than %d messages: move it out of them", message.FullName(), maxNesting-1)
		}
		if err := checkName(message); err != nil {
			return err
		}
		if err := checkFields(message); err != nil {
			return err
		}
		if err := checkEnums(message.Enums()); err != nil {
			return err
		}
		for j := range message.Oneofs().Len() {
			if err := checkName(message.Oneofs().Get(j)); err != nil {
				return err
			}
		}
		if err := checkMessages(message.Messages(), depth+1); err != nil {
			return err
		}
	}
	return nil
}

func checkEnums(enums protoreflect.EnumDescriptors) error {
	for i := range enums.Len() {
		enum, named := enums.Get(i), map[string]protoreflect.EnumValueDescriptor{}
		if err := checkName(enum); err != nil {
			return err
		}
		for j := range enum.Values().Len() {
			value := enum.Values().Get(j)
			if err := checkName(value); err != nil {
				return err
			}
			name := pascalCase(withoutPrefix(string(value.Name()), string(enum.Name())))
			if other := named[name]; other != nil && other.Number() != value.Number() {
				return fmt.Errorf("%s and %s have the same name but for the enum's own, underscores and case: rename one", other.FullName(), value.FullName())
			} else if other == nil {
				named[name] = value
			}
		}
	}
	return nil
}

// withoutPrefix is the name of a value without that of its enum, in whatever case and with whatever underscores it begins.
func withoutPrefix(name, enum string) string {
	rest := name
	for _, char := range strings.ToLower(strings.ReplaceAll(enum, "_", "")) {
		rest = strings.TrimLeft(rest, "_")
		if rest == "" || unicode.ToLower(rune(rest[0])) != char {
			return name
		}
		rest = rest[1:]
	}
	if rest = strings.TrimLeft(rest, "_"); rest == "" {
		return name
	}
	return rest
}

// pascalCase is FooBar for FOO_BAR.
func pascalCase(name string) string {
	var text strings.Builder
	upper := true
	for _, char := range name {
		switch {
		case char == '_':
			upper = true
		case upper:
			text.WriteRune(unicode.ToUpper(char))
			upper = false
		default:
			text.WriteRune(unicode.ToLower(char))
		}
	}
	return text.String()
}

// checkFields wants fields that JSON tells apart, by the names that they have without an option and by those that they have.
// In proto2 names without an option may be the same.
func checkFields(message protoreflect.MessageDescriptor) error {
	byDefault, named := map[string]protoreflect.FieldDescriptor{}, map[string]protoreflect.FieldDescriptor{}
	lenient := message.ParentFile().Syntax() == protoreflect.Proto2
	for i := range message.Fields().Len() {
		field := message.Fields().Get(i)
		if err := checkName(field); err != nil {
			return err
		}
		name, usual := field.JSONName(), camelCase(string(field.Name()))
		if err := checkText("json_name of "+string(field.FullName()), name); err != nil {
			return err
		}
		if strings.ContainsAny(name, "[]") {
			return fmt.Errorf("json_name of %s has a bracket, which JSON keeps for extensions: choose another", field.FullName())
		}
		other := named[name]
		if other == nil && !lenient {
			other = byDefault[usual]
		}
		if other != nil && (!lenient || name != usual && other.JSONName() != camelCase(string(other.Name()))) {
			return fmt.Errorf("%s and %s have the same name in JSON: rename one, or give it another json_name", other.FullName(), field.FullName())
		}
		if named[name] == nil {
			named[name] = field
		}
		byDefault[usual] = field
	}
	return nil
}

// camelCase is what the name of a field becomes in JSON without an option.
func camelCase(name string) string {
	var text strings.Builder
	upper := false
	for _, char := range name {
		switch {
		case char == '_':
			upper = true
		case upper:
			text.WriteRune(unicode.ToUpper(char))
			upper = false
		default:
			text.WriteRune(char)
		}
	}
	return text.String()
}

func checkName(descriptor protoreflect.Descriptor) error {
	if path, ok := reserved[descriptor.FullName()]; ok && path != descriptor.ParentFile().Path() {
		return fmt.Errorf("%s has %s, a name that protobuf or googleapis has (%s): choose another", descriptor.ParentFile().Path(), descriptor.FullName(), cmp.Or(path, "a package"))
	}
	if name := descriptor.FullName(); len(name) > maxNameChars {
		return fmt.Errorf("%.100s... is a name of %d characters, and may have %d: shorten it", name, len(name), maxNameChars)
	}
	return nil
}

func checkText(what, text string) error {
	if len(text) > maxNameChars {
		return fmt.Errorf("%.200s has %d characters, and may have %d: shorten it", what, len(text), maxNameChars)
	}
	if !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
		return fmt.Errorf("%.200s has characters that nobody can read (%.100q): leave them out", what, text)
	}
	return nil
}

// known are files that proxies add to a set that lacks them, or whose messages they translate in a way of their own. What they
// find under these names must be what everybody has.
var known = byPath(
	anypb.File_google_protobuf_any_proto, durationpb.File_google_protobuf_duration_proto, emptypb.File_google_protobuf_empty_proto,
	fieldmaskpb.File_google_protobuf_field_mask_proto, structpb.File_google_protobuf_struct_proto,
	timestamppb.File_google_protobuf_timestamp_proto, wrapperspb.File_google_protobuf_wrappers_proto,
	httpbody.File_google_api_httpbody_proto, rpcstatus.File_google_rpc_status_proto,
)

func byPath(files ...protoreflect.FileDescriptor) map[string]protoreflect.FileDescriptor {
	of := map[string]protoreflect.FileDescriptor{}
	for _, file := range files {
		of[file.Path()] = file
	}
	return of
}

// reserved are the names of what is in known, and the file in which each is; of packages, none.
var reserved = func() map[protoreflect.FullName]string {
	names := map[protoreflect.FullName]string{}
	for path, file := range known {
		for i := range file.Messages().Len() {
			names[file.Messages().Get(i).FullName()] = path
		}
		for name := file.Package(); name != ""; name = name.Parent() {
			names[name] = ""
		}
	}
	return names
}()

// checkKnown wants the files that everybody has as they are, and no package by the name of a message of theirs.
func checkKnown(file protoreflect.FileDescriptor) error {
	original := known[file.Path()]
	if original != nil && !bytes.Equal(bare(file), bare(original)) {
		return fmt.Errorf("%s is not the one that everybody has: take it from protobuf or googleapis", file.Path())
	}
	for name := file.Package(); name != ""; name = name.Parent() {
		if path := reserved[name]; path != "" {
			return fmt.Errorf("%s has the package %s, and %s a message by that name: choose another", file.Path(), name, path)
		}
	}
	return nil
}

// bare is a file as a transcoder gets it, with nothing but its package, messages and enums.
func bare(file protoreflect.FileDescriptor) []byte {
	whole, keep := protodesc.ToFileDescriptorProto(file), stripper{}
	for i, message := range whole.GetMessageType() {
		keep.message(message, file.Messages().Get(i))
		unnamed(message)
	}
	for i, enum := range whole.GetEnumType() {
		keep.enum(enum, file.Enums().Get(i))
	}
	raw, _ := proto.MarshalOptions{Deterministic: true}.Marshal(&descriptorpb.FileDescriptorProto{
		Package: whole.Package, MessageType: whole.GetMessageType(), EnumType: whole.GetEnumType(), Service: whole.GetService(),
	})
	return raw
}

// unnamed drops JSON names that are the usual ones: some compilers write them out.
func unnamed(message *descriptorpb.DescriptorProto) {
	for _, field := range message.GetField() {
		if field.GetJsonName() == camelCase(field.GetName()) {
			field.JsonName = nil
		}
	}
	for _, nested := range message.GetNestedType() {
		unnamed(nested)
	}
}
