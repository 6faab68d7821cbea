package xds_test

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
)

type (
	file    = descriptorpb.FileDescriptorProto
	message = descriptorpb.DescriptorProto
	field   = descriptorpb.FieldDescriptorProto
)

// craft is a descriptor set of shopDescriptors, with something done to its file and its message.
func craft(t *testing.T, change func(f *file, thing *message)) []byte {
	t.Helper()
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(shopDescriptors(t, ".shop.v1.Thing", get1("/v1/good/{id}")), set); err != nil {
		t.Fatal(err)
	}
	f := set.GetFile()[len(set.GetFile())-1]
	change(f, f.GetMessageType()[0])
	raw, err := proto.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// craftOther is one with something done to another of its files, as the one before the last.
func craftOther(t *testing.T, change func(set *descriptorpb.FileDescriptorSet)) []byte {
	t.Helper()
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(shopDescriptors(t, ".shop.v1.Thing", get1("/v1/good/{id}")), set); err != nil {
		t.Fatal(err)
	}
	change(set)
	raw, err := proto.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

const (
	asText    = descriptorpb.FieldDescriptorProto_TYPE_STRING
	asMessage = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE
	asGroup   = descriptorpb.FieldDescriptorProto_TYPE_GROUP
	asEnum    = descriptorpb.FieldDescriptorProto_TYPE_ENUM
)

func newField(name string, number int32, kind descriptorpb.FieldDescriptorProto_Type, of string) *field {
	f := &field{Name: &name, Number: &number, Type: kind.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()}
	if of != "" {
		f.TypeName = &of
	}
	return f
}

func newEnum(name string, first int32) *descriptorpb.EnumDescriptorProto {
	return &descriptorpb.EnumDescriptorProto{Name: &name, Value: []*descriptorpb.EnumValueDescriptorProto{{Name: proto.String(strings.ToUpper(name) + "_X"), Number: &first}}}
}

// inEdition is a change of a file that has an edition.
func inEdition(edition descriptorpb.Edition, change func(f *file, m *message)) func(f *file, m *message) {
	return func(f *file, m *message) {
		f.Syntax, f.Edition = proto.String("editions"), edition.Enum()
		change(f, m)
	}
}

func inProto2(change func(f *file, m *message)) func(f *file, m *message) {
	return func(f *file, m *message) { f.Syntax = proto.String("proto2"); change(f, m) }
}

func featured(f *field, features *descriptorpb.FeatureSet) {
	f.Options = &descriptorpb.FieldOptions{Features: features}
}

func jsonNamed(f *field, name string) *field { f.JsonName = &name; return f }

func nestedIn(m *message, levels int) {
	for i := range levels {
		inner := &message{Name: proto.String(fmt.Sprintf("N%d", i))}
		m.NestedType = append(m.NestedType, inner)
		m = inner
	}
}

// crafted are descriptor sets that no compiler makes, most of them.
func crafted() map[string]func(f *file, m *message) {
	const edition = descriptorpb.Edition_EDITION_2023
	all := map[string]func(f *file, m *message){
		"JSON names that are the same": func(_ *file, m *message) {
			m.Field = append(m.Field, jsonNamed(newField("aa", 51, asText, ""), "x"), jsonNamed(newField("bb", 52, asText, ""), "x"))
		},
		"JSON names that are the same in proto2": inProto2(func(_ *file, m *message) {
			m.Field = append(m.Field, jsonNamed(newField("aa", 51, asText, ""), "x"), jsonNamed(newField("bb", 52, asText, ""), "x"))
		}),
		"three JSON names that are the same in proto2": inProto2(func(_ *file, m *message) {
			m.Field = append(m.Field, jsonNamed(newField("aa", 51, asText, ""), "x"), newField("x", 53, asText, ""), jsonNamed(newField("bb", 52, asText, ""), "x"))
		}),
		"a JSON name like another's usual one": func(_ *file, m *message) { m.Field = append(m.Field, jsonNamed(newField("aa", 51, asText, ""), "id")) },
		"a JSON name like another's usual one in proto2": inProto2(func(_ *file, m *message) {
			m.Field = append(m.Field, jsonNamed(newField("aa", 51, asText, ""), "id"))
		}),
		"usual names that are the same beneath others": func(_ *file, m *message) {
			m.Field = append(m.Field, jsonNamed(newField("foo_bar", 51, asText, ""), "x"), jsonNamed(newField("fooBar", 52, asText, ""), "y"))
		},
		"a JSON name with brackets": func(_ *file, m *message) { m.Field = append(m.Field, jsonNamed(newField("aa", 51, asText, ""), "[x]")) },
		"a JSON name with a null": func(_ *file, m *message) {
			m.Field = append(m.Field, jsonNamed(newField("aa", 51, asText, ""), "a\x00b"))
		},
		"an empty JSON name": func(_ *file, m *message) { m.Field = append(m.Field, jsonNamed(newField("aa", 51, asText, ""), "")) },
		"an odd JSON name": func(_ *file, m *message) {
			m.Field = append(m.Field, jsonNamed(newField("aa", 51, asText, ""), "@a b.\"c"))
		},
		"names in camel case that are the same": func(_ *file, m *message) {
			m.Field = append(m.Field, newField("foo_bar", 51, asText, ""), newField("fooBar", 52, asText, ""))
		},
		"names with more underscores": func(_ *file, m *message) {
			m.Field = append(m.Field, newField("foo__bar_", 51, asText, ""), newField("foo_bar", 52, asText, ""))
		},
		"names in camel case that are the same in proto2": inProto2(func(_ *file, m *message) {
			m.Field = append(m.Field, newField("foo_bar", 51, asText, ""), newField("fooBar", 52, asText, ""))
		}),
		"an option for names that are the same": func(_ *file, m *message) {
			m.Options = &descriptorpb.MessageOptions{DeprecatedLegacyJsonFieldConflicts: proto.Bool(true)} //nolint:staticcheck // a set can have it
			m.Field = append(m.Field, newField("foo_bar", 51, asText, ""), newField("fooBar", 52, asText, ""))
		},
		"an option for values that are the same": func(f *file, _ *message) {
			f.EnumType[0].Options = &descriptorpb.EnumOptions{DeprecatedLegacyJsonFieldConflicts: proto.Bool(true)} //nolint:staticcheck // a set can have it
			f.EnumType[0].Value = append(f.EnumType[0].Value, &descriptorpb.EnumValueDescriptorProto{Name: proto.String("KIND_NONE"), Number: proto.Int32(5)})
		},
		"messages as deep as may be":   func(_ *file, m *message) { nestedIn(m, 29) },
		"messages that are too deep":   func(_ *file, m *message) { nestedIn(m, 30) },
		"messages that are far deeper": func(_ *file, m *message) { nestedIn(m, 60) },
		"a long name": func(_ *file, m *message) {
			m.Field = append(m.Field, newField("a"+strings.Repeat("b", 70000), 51, asText, ""))
		},
		"a long name of an enum's": func(f *file, _ *message) {
			f.EnumType[0].Value = append(f.EnumType[0].Value, &descriptorpb.EnumValueDescriptorProto{Name: proto.String("A" + strings.Repeat("B", 70000)), Number: proto.Int32(5)})
		},
		"a name as long as may be": func(_ *file, m *message) {
			m.Field = append(m.Field, newField(strings.Repeat("b", 1024-len("shop.v1.Thing.")), 51, asText, ""))
		},
		"a name of a file with a null": func(f *file, _ *message) { f.Name = proto.String("a\x00b.proto") },
		"a long name of a file":        func(f *file, _ *message) { f.Name = proto.String(strings.Repeat("a", 70000) + ".proto") },
		"packed text":                  func(_ *file, m *message) { m.Field[4].Options = &descriptorpb.FieldOptions{Packed: proto.Bool(true)} },
		"packed, and no list":          func(_ *file, m *message) { m.Field[1].Options = &descriptorpb.FieldOptions{Packed: proto.Bool(true)} },
		"packed in an edition": inEdition(edition, func(_ *file, m *message) {
			m.Field[1].Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
			m.Field[1].Options = &descriptorpb.FieldOptions{Packed: proto.Bool(true)}
		}),
		"lazy text": func(_ *file, m *message) { m.Field[0].Options = &descriptorpb.FieldOptions{Lazy: proto.Bool(true)} },
		"jstype text": func(_ *file, m *message) {
			m.Field[0].Options = &descriptorpb.FieldOptions{Jstype: descriptorpb.FieldOptions_JS_STRING.Enum()}
		},
		"ctype number": func(_ *file, m *message) {
			m.Field[1].Options = &descriptorpb.FieldOptions{Ctype: descriptorpb.FieldOptions_CORD.Enum()}
		},
		"a weak field": func(_ *file, m *message) { m.Field[2].Options = &descriptorpb.FieldOptions{Weak: proto.Bool(true)} }, //nolint:staticcheck // a set can have it
		"odd options of a file": func(f *file, _ *message) {
			f.Options = &descriptorpb.FileOptions{OptimizeFor: descriptorpb.FileOptions_LITE_RUNTIME.Enum(), JavaStringCheckUtf8: proto.Bool(true), PhpNamespace: proto.String("\x00")}
		},
		"features in proto3": func(_ *file, m *message) {
			featured(m.Field[0], &descriptorpb.FeatureSet{FieldPresence: descriptorpb.FeatureSet_EXPLICIT.Enum()})
		},
		"a closed enum in proto3, by a feature": func(f *file, _ *message) {
			f.EnumType[0].Options = &descriptorpb.EnumOptions{Features: &descriptorpb.FeatureSet{EnumType: descriptorpb.FeatureSet_CLOSED.Enum()}}
		},
		"a map entry that no field has": func(_ *file, m *message) {
			m.NestedType = append(m.NestedType, &message{Name: proto.String("E"), Options: &descriptorpb.MessageOptions{MapEntry: proto.Bool(true)}})
		},
		"a map entry at the top": func(f *file, _ *message) {
			f.MessageType = append(f.MessageType, &message{Name: proto.String("E"), Field: []*field{newField("key", 1, asText, ""), newField("value", 2, asText, "")}, Options: &descriptorpb.MessageOptions{MapEntry: proto.Bool(true)}})
		},
		"a map entry as a method's request": func(f *file, m *message) {
			m.NestedType = append(m.NestedType, &message{Name: proto.String("E"), Field: []*field{newField("key", 1, asText, ""), newField("value", 2, asText, "")}, Options: &descriptorpb.MessageOptions{MapEntry: proto.Bool(true)}})
			f.Service[0].Method[0].OutputType = proto.String(".shop.v1.Thing.E")
		},
		"a map entry with a field too many": func(_ *file, m *message) {
			m.NestedType = append(m.NestedType, &message{Name: proto.String("FooEntry"), Field: []*field{newField("key", 1, asText, ""), newField("value", 2, asText, ""), newField("more", 3, asText, "")}, Options: &descriptorpb.MessageOptions{MapEntry: proto.Bool(true)}})
			of := newField("foo", 51, asMessage, ".shop.v1.Thing.FooEntry")
			of.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
			m.Field = append(m.Field, of)
		},
		"a map of enums that do not begin at zero": inProto2(func(f *file, m *message) {
			f.EnumType = append(f.EnumType, newEnum("Odd", 3))
			m.NestedType = append(m.NestedType, &message{Name: proto.String("FooEntry"), Field: []*field{newField("key", 1, asText, ""), newField("value", 2, asEnum, ".shop.v1.Odd")}, Options: &descriptorpb.MessageOptions{MapEntry: proto.Bool(true)}})
			of := newField("foo", 51, asMessage, ".shop.v1.Thing.FooEntry")
			of.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
			m.Field = append(m.Field, of)
		}),
		"optional as of proto3, in proto2": inProto2(func(_ *file, m *message) {
			m.OneofDecl = append(m.OneofDecl, &descriptorpb.OneofDescriptorProto{Name: proto.String("_id")})
			m.Field[0].OneofIndex, m.Field[0].Proto3Optional = proto.Int32(0), proto.Bool(true)
		}),
		"optional as of proto3, without a oneof": func(_ *file, m *message) { m.Field[0].Proto3Optional = proto.Bool(true) },
		"optional as of proto3, two in a oneof": func(_ *file, m *message) {
			m.OneofDecl = append(m.OneofDecl, &descriptorpb.OneofDescriptorProto{Name: proto.String("_id")})
			m.Field[0].OneofIndex, m.Field[0].Proto3Optional = proto.Int32(0), proto.Bool(true)
			m.Field[1].OneofIndex, m.Field[1].Proto3Optional = proto.Int32(0), proto.Bool(true)
		},
		"optional as of proto3, a list": func(_ *file, m *message) {
			m.OneofDecl = append(m.OneofDecl, &descriptorpb.OneofDescriptorProto{Name: proto.String("_id")})
			m.Field[4].OneofIndex, m.Field[4].Proto3Optional = proto.Int32(0), proto.Bool(true)
		},
		"a list in a oneof": func(_ *file, m *message) {
			m.OneofDecl = append(m.OneofDecl, &descriptorpb.OneofDescriptorProto{Name: proto.String("o")})
			m.Field[4].OneofIndex = proto.Int32(0)
		},
		"required in a oneof": inProto2(func(_ *file, m *message) {
			m.OneofDecl = append(m.OneofDecl, &descriptorpb.OneofDescriptorProto{Name: proto.String("o")})
			m.Field[0].OneofIndex, m.Field[0].Label = proto.Int32(0), descriptorpb.FieldDescriptorProto_LABEL_REQUIRED.Enum()
		}),
		"a oneof by a number below zero": func(_ *file, m *message) { m.Field[0].OneofIndex = proto.Int32(-1) },
		"a group of another message": inProto2(func(f *file, m *message) {
			f.MessageType = append(f.MessageType, &message{Name: proto.String("Grp")})
			m.Field = append(m.Field, newField("grp", 51, asGroup, ".shop.v1.Grp"))
		}),
		"an edition beside proto3":   func(f *file, _ *message) { f.Edition = edition.Enum() },
		"an edition beside proto2":   inProto2(func(f *file, _ *message) { f.Edition = edition.Enum() }),
		"a field without a number":   func(_ *file, m *message) { m.Field = append(m.Field, newField("zz", 0, asText, "")) },
		"the last number of a field": func(_ *file, m *message) { m.Field = append(m.Field, newField("zz", 1<<29-1, asText, "")) },
		"a number that is kept":      func(_ *file, m *message) { m.Field = append(m.Field, newField("zz", 19000, asText, "")) },
		"a field without a type": func(_ *file, m *message) {
			f := newField("zz", 51, asText, ".shop.v1.Kind")
			f.Type = nil
			m.Field = append(m.Field, f)
		},
		"a field without a label": func(_ *file, m *message) {
			f := newField("zz", 51, asText, "")
			f.Label = nil
			m.Field = append(m.Field, f)
		},
		"text with the name of a type": func(_ *file, m *message) { m.Field = append(m.Field, newField("zz", 51, asText, ".shop.v1.Kind")) },
		"a message that is an enum":    func(_ *file, m *message) { m.Field = append(m.Field, newField("zz", 51, asMessage, ".shop.v1.Kind")) },
		"a name that is relative":      func(_ *file, m *message) { m.Field = append(m.Field, newField("zz", 51, asMessage, "Thing")) },
		"an extension among fields": func(_ *file, m *message) {
			f := newField("zz", 51, asText, "")
			f.Extendee = proto.String(".shop.v1.Thing")
			m.Field = append(m.Field, f)
		},
		"an extension range": inProto2(func(_ *file, m *message) {
			m.ExtensionRange = append(m.ExtensionRange, &descriptorpb.DescriptorProto_ExtensionRange{Start: proto.Int32(100), End: proto.Int32(536870912)})
		}),
		"an enum with two values of a name": func(f *file, _ *message) {
			f.EnumType[0].Value = append(f.EnumType[0].Value, &descriptorpb.EnumValueDescriptorProto{Name: proto.String("None"), Number: proto.Int32(5)})
		},
		"an enum with two values of a name in proto2": inProto2(func(f *file, _ *message) {
			f.EnumType[0].Value = append(f.EnumType[0].Value, &descriptorpb.EnumValueDescriptorProto{Name: proto.String("KIND_NONE"), Number: proto.Int32(5)})
		}),
		"an enum with aliases": func(f *file, _ *message) {
			f.EnumType[0].Options = &descriptorpb.EnumOptions{AllowAlias: proto.Bool(true)}
			f.EnumType[0].Value = append(f.EnumType[0].Value, &descriptorpb.EnumValueDescriptorProto{Name: proto.String("AGAIN"), Number: proto.Int32(0)})
		},
		"an enum that does not begin at zero": func(f *file, _ *message) { f.EnumType = append(f.EnumType, newEnum("Odd", 3)) },
		"a method twice": func(f *file, _ *message) {
			f.Service[0].Method = append(f.Service[0].Method, proto.CloneOf(f.Service[0].Method[0]))
		},
		"a service in the package of others": func(f *file, _ *message) { f.Package = proto.String("google.rpc") },
		"no package": func(f *file, m *message) {
			f.Package = nil
			m.Field = m.Field[:1]
			f.EnumType = nil
			f.Service[0].Method[0].InputType, f.Service[0].Method[0].OutputType = proto.String(".Thing"), proto.String(".Thing")
		},
		"a default that is wrong": inProto2(func(_ *file, m *message) { m.Field[1].DefaultValue = proto.String("0x10") }),
		"a default of an enum":    inProto2(func(_ *file, m *message) { m.Field[3].DefaultValue = proto.String("NONE") }),
	}
	for name, change := range inEditions() {
		all[name] = inEdition(edition, change)
	}
	for name, of := range map[string]descriptorpb.Edition{
		"2023": edition, "2024": descriptorpb.Edition_EDITION_2024, "that is not there yet": descriptorpb.Edition(1002), "unstable": descriptorpb.Edition(9999),
		"max": descriptorpb.Edition_EDITION_MAX, "legacy": descriptorpb.Edition_EDITION_LEGACY, "proto2": descriptorpb.Edition_EDITION_PROTO2, "proto3": descriptorpb.Edition_EDITION_PROTO3,
		"unknown": descriptorpb.Edition_EDITION_UNKNOWN,
	} {
		all["edition "+name] = inEdition(of, func(*file, *message) {})
	}
	return all
}

// inEditions are changes that need features.
func inEditions() map[string]func(f *file, m *message) {
	of := func(i int, features *descriptorpb.FeatureSet) func(*file, *message) {
		return func(_ *file, m *message) { featured(m.Field[i], features) }
	}
	all := &descriptorpb.FeatureSet{
		FieldPresence: descriptorpb.FeatureSet_LEGACY_REQUIRED.Enum(), EnumType: descriptorpb.FeatureSet_CLOSED.Enum(), RepeatedFieldEncoding: descriptorpb.FeatureSet_PACKED.Enum(),
		Utf8Validation: descriptorpb.FeatureSet_NONE.Enum(), MessageEncoding: descriptorpb.FeatureSet_DELIMITED.Enum(), JsonFormat: descriptorpb.FeatureSet_LEGACY_BEST_EFFORT.Enum(),
	}
	return map[string]func(f *file, m *message){
		"the presence of a list":        of(4, &descriptorpb.FeatureSet{FieldPresence: descriptorpb.FeatureSet_EXPLICIT.Enum()}),
		"delimited text":                of(0, &descriptorpb.FeatureSet{MessageEncoding: descriptorpb.FeatureSet_DELIMITED.Enum()}),
		"a delimited message":           of(2, &descriptorpb.FeatureSet{MessageEncoding: descriptorpb.FeatureSet_DELIMITED.Enum()}),
		"UTF-8 of a number":             of(1, &descriptorpb.FeatureSet{Utf8Validation: descriptorpb.FeatureSet_NONE.Enum()}),
		"text packed by a feature":      of(4, &descriptorpb.FeatureSet{RepeatedFieldEncoding: descriptorpb.FeatureSet_PACKED.Enum()}),
		"implicit presence, of message": of(2, &descriptorpb.FeatureSet{FieldPresence: descriptorpb.FeatureSet_IMPLICIT.Enum()}),
		"a feature with an odd value":   of(0, &descriptorpb.FeatureSet{FieldPresence: descriptorpb.FeatureSet_FieldPresence(77).Enum()}),
		"a feature that says unknown":   of(0, &descriptorpb.FeatureSet{FieldPresence: descriptorpb.FeatureSet_FIELD_PRESENCE_UNKNOWN.Enum()}),
		"an encoding that is unknown":   of(2, &descriptorpb.FeatureSet{MessageEncoding: descriptorpb.FeatureSet_MESSAGE_ENCODING_UNKNOWN.Enum()}),
		"all features of a field":       of(2, all), "all features of a text": of(0, all),
		"all features of a message": func(_ *file, m *message) { m.Options = &descriptorpb.MessageOptions{Features: all} },
		"all features of a file":    func(f *file, _ *message) { f.Options = &descriptorpb.FileOptions{Features: all} },
		"all features of an enum":   func(f *file, _ *message) { f.EnumType[0].Options = &descriptorpb.EnumOptions{Features: all} },
		"all features of a value": func(f *file, _ *message) {
			f.EnumType[0].Value[0].Options = &descriptorpb.EnumValueOptions{Features: all}
		},
		"all features of a method": func(f *file, _ *message) { f.Service[0].Method[0].Options.Features = all },
		"all features of a oneof": func(_ *file, m *message) {
			m.OneofDecl = append(m.OneofDecl, &descriptorpb.OneofDescriptorProto{Name: proto.String("o"), Options: &descriptorpb.OneofOptions{Features: all}})
			m.Field[0].OneofIndex = proto.Int32(0)
		},
		"a closed enum that does not begin at zero": func(f *file, m *message) {
			e := newEnum("Odd", 3)
			e.Options = &descriptorpb.EnumOptions{Features: &descriptorpb.FeatureSet{EnumType: descriptorpb.FeatureSet_CLOSED.Enum()}}
			f.EnumType, m.Field = append(f.EnumType, e), append(m.Field, newField("odd", 51, asEnum, ".shop.v1.Odd"))
		},
		"closed enums in a file": func(f *file, m *message) {
			f.Options = &descriptorpb.FileOptions{Features: &descriptorpb.FeatureSet{EnumType: descriptorpb.FeatureSet_CLOSED.Enum()}}
			f.EnumType, m.Field = append(f.EnumType, newEnum("Odd", 3)), append(m.Field, newField("odd", 51, asEnum, ".shop.v1.Odd"))
		},
		"closed enums by a message": func(_ *file, m *message) {
			m.Options = &descriptorpb.MessageOptions{Features: &descriptorpb.FeatureSet{EnumType: descriptorpb.FeatureSet_CLOSED.Enum()}}
			m.EnumType, m.Field = append(m.EnumType, newEnum("Odd", 3)), append(m.Field, newField("odd", 51, asEnum, ".shop.v1.Thing.Odd"))
		},
		"a delimited map": func(f *file, m *message) {
			f.Options = &descriptorpb.FileOptions{Features: &descriptorpb.FeatureSet{MessageEncoding: descriptorpb.FeatureSet_DELIMITED.Enum()}}
			m.NestedType = append(m.NestedType, &message{Name: proto.String("FooEntry"), Field: []*field{newField("key", 1, asText, ""), newField("value", 2, asMessage, ".shop.v1.Thing")}, Options: &descriptorpb.MessageOptions{MapEntry: proto.Bool(true)}})
			foo := newField("foo", 51, asMessage, ".shop.v1.Thing.FooEntry")
			foo.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
			m.Field = append(m.Field, foo)
		},
		"required, by its label": func(_ *file, m *message) { m.Field[0].Label = descriptorpb.FieldDescriptorProto_LABEL_REQUIRED.Enum() },
		"a group, by its type": func(_ *file, m *message) {
			m.NestedType = append(m.NestedType, &message{Name: proto.String("Grp")})
			m.Field = append(m.Field, newField("grp", 51, asGroup, ".shop.v1.Thing.Grp"))
		},
		"optional as of proto3": func(_ *file, m *message) {
			m.OneofDecl = append(m.OneofDecl, &descriptorpb.OneofDescriptorProto{Name: proto.String("_id")})
			m.Field[0].OneofIndex, m.Field[0].Proto3Optional = proto.Int32(0), proto.Bool(true)
		},
		"names that are the same, as of old": func(f *file, m *message) {
			f.Options = &descriptorpb.FileOptions{Features: &descriptorpb.FeatureSet{JsonFormat: descriptorpb.FeatureSet_LEGACY_BEST_EFFORT.Enum()}}
			m.Field = append(m.Field, newField("foo_bar", 51, asText, ""), newField("fooBar", 52, asText, ""))
		},
		"values that are the same, as of old": func(f *file, _ *message) {
			f.Options = &descriptorpb.FileOptions{Features: &descriptorpb.FeatureSet{EnumType: descriptorpb.FeatureSet_CLOSED.Enum(), JsonFormat: descriptorpb.FeatureSet_LEGACY_BEST_EFFORT.Enum()}}
			f.EnumType[0].Value = append(f.EnumType[0].Value, &descriptorpb.EnumValueDescriptorProto{Name: proto.String("KIND_NONE"), Number: proto.Int32(5)})
		},
	}
}

// forged are sets whose other files are not what they say.
func forged() map[string]func(set *descriptorpb.FileDescriptorSet) {
	insert := func(set *descriptorpb.FileDescriptorSet, f *file) { set.File = append([]*file{f}, set.File...) }
	drop := func(set *descriptorpb.FileDescriptorSet, name string) {
		for i, f := range set.GetFile() {
			if f.GetName() == name {
				set.File = append(set.File[:i:i], set.File[i+1:]...)
				break
			}
		}
	}
	return map[string]func(set *descriptorpb.FileDescriptorSet){
		"status.proto with another message": func(set *descriptorpb.FileDescriptorSet) {
			insert(set, &file{Name: proto.String("google/rpc/status.proto"), Package: proto.String("google.rpc"), Syntax: proto.String("proto3"), MessageType: []*message{{Name: proto.String("Other")}}})
		},
		"Status in another file": func(set *descriptorpb.FileDescriptorSet) {
			insert(set, &file{Name: proto.String("x.proto"), Package: proto.String("google.rpc"), Syntax: proto.String("proto3"), MessageType: []*message{{Name: proto.String("Status")}}})
		},
		"Status as a package": func(set *descriptorpb.FileDescriptorSet) {
			insert(set, &file{Name: proto.String("x.proto"), Package: proto.String("google.rpc.Status.x"), Syntax: proto.String("proto3"), MessageType: []*message{{Name: proto.String("A")}}})
		},
		"google as a value": func(set *descriptorpb.FileDescriptorSet) {
			set.File = append([]*file{{Name: proto.String("x.proto"), Syntax: proto.String("proto3"), EnumType: []*descriptorpb.EnumDescriptorProto{{Name: proto.String("E"), Value: []*descriptorpb.EnumValueDescriptorProto{{Name: proto.String("google"), Number: proto.Int32(0)}}}}}}, set.GetFile()[len(set.GetFile())-1])
			f := set.GetFile()[1]
			f.Dependency, f.MessageType[0].Field = nil, f.GetMessageType()[0].GetField()[:2]
			f.Service[0].Method[0].Options = nil
		},
		"google.rpc as a message": func(set *descriptorpb.FileDescriptorSet) {
			insert(set, &file{Name: proto.String("x.proto"), Package: proto.String("google"), Syntax: proto.String("proto3"), MessageType: []*message{{Name: proto.String("rpc")}}})
		},
		"Any in another file": func(set *descriptorpb.FileDescriptorSet) {
			for _, f := range set.GetFile() {
				if f.GetName() == "google/protobuf/any.proto" {
					f.Name = proto.String("any2.proto")
				}
				for i, dependency := range f.GetDependency() {
					if dependency == "google/protobuf/any.proto" {
						f.Dependency[i] = "any2.proto"
					}
				}
			}
		},
		"Timestamp with other fields": func(set *descriptorpb.FileDescriptorSet) {
			for _, f := range set.GetFile() {
				if f.GetName() == "google/protobuf/timestamp.proto" {
					f.MessageType[0].Field[0].Type = asText.Enum()
				}
			}
		},
		"a file that nobody imports, of a name that a proxy has": func(set *descriptorpb.FileDescriptorSet) {
			drop(set, "google/protobuf/any.proto")
		},
	}
}
