package descriptor

import (
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// stripper drops from a file whatever no transcoder reads, since a proxy judges it all the same: one option that it finds out
// of place costs it the routes of everybody. What is left are names, numbers, types and JSON names, and what says how they
// are on the wire: presence, defaults, the encoding of lists (parsers take both) and whether text is checked do not.
type stripper struct {
	// editions says that the file has an edition. Then features say what its syntax does not: whether an enum is closed, and
	// whether a message is delimited. They are where they hold and not where they were inherited from.
	editions bool
}

func (s stripper) message(message *descriptorpb.DescriptorProto, descriptor protoreflect.MessageDescriptor) {
	message.Extension, message.ExtensionRange, message.ReservedRange, message.ReservedName, message.Visibility = nil, nil, nil, nil, nil
	message.Options = mapEntry(message.GetOptions())
	for i, field := range message.GetField() {
		s.field(field, descriptor.Fields().Get(i))
	}
	for _, oneof := range message.GetOneofDecl() {
		oneof.Options = nil
	}
	for i, enum := range message.GetEnumType() {
		s.enum(enum, descriptor.Enums().Get(i))
	}
	for i, nested := range message.GetNestedType() {
		s.message(nested, descriptor.Messages().Get(i))
	}
}

func mapEntry(options *descriptorpb.MessageOptions) *descriptorpb.MessageOptions {
	if !options.GetMapEntry() {
		return nil
	}
	return &descriptorpb.MessageOptions{MapEntry: proto.Bool(true)}
}

func (s stripper) field(field *descriptorpb.FieldDescriptorProto, descriptor protoreflect.FieldDescriptor) {
	field.Options, field.DefaultValue = nil, nil
	if descriptor.ContainingOneof() == nil {
		field.Proto3Optional = nil
	}
	if s.editions && descriptor.Kind() == protoreflect.GroupKind && !descriptor.IsMap() && !descriptor.ContainingMessage().IsMapEntry() {
		field.Options = &descriptorpb.FieldOptions{Features: &descriptorpb.FeatureSet{MessageEncoding: descriptorpb.FeatureSet_DELIMITED.Enum()}}
	}
}

func (s stripper) enum(enum *descriptorpb.EnumDescriptorProto, descriptor protoreflect.EnumDescriptor) {
	enum.ReservedRange, enum.ReservedName, enum.Visibility = nil, nil, nil
	alias := enum.GetOptions().GetAllowAlias()
	enum.Options = &descriptorpb.EnumOptions{}
	if alias {
		enum.Options.AllowAlias = proto.Bool(true)
	}
	if s.editions && descriptor.IsClosed() {
		enum.Options.Features = &descriptorpb.FeatureSet{EnumType: descriptorpb.FeatureSet_CLOSED.Enum()}
	}
	if !alias && enum.Options.GetFeatures() == nil {
		enum.Options = nil
	}
	for _, value := range enum.GetValue() {
		value.Options = nil
	}
}

func stripService(service *descriptorpb.ServiceDescriptorProto) {
	for _, method := range service.GetMethod() {
		rule, ok := proto.GetExtension(method.GetOptions(), annotations.E_Http).(*annotations.HttpRule)
		method.Options = nil
		if ok && rule != nil {
			method.Options = &descriptorpb.MethodOptions{}
			proto.SetExtension(method.GetOptions(), annotations.E_Http, stripRule(rule))
		}
	}
}

func stripRule(rule *annotations.HttpRule) *annotations.HttpRule {
	kept := &annotations.HttpRule{Pattern: rule.GetPattern(), Body: rule.GetBody(), ResponseBody: rule.GetResponseBody()}
	for _, more := range rule.GetAdditionalBindings() {
		kept.AdditionalBindings = append(kept.AdditionalBindings, stripRule(more))
	}
	return kept
}
