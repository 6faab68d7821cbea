package mesh

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
)

// descriptorSet is what a service's google.protobuf.FileDescriptorSet says.
type descriptorSet struct {
	raw   []byte
	files *protoregistry.Files
	// bindings are those of the services that have been asked for.
	bindings map[protoreflect.FullName]serviceBindings
	cutter   cutter
}

// serviceBindings are the bindings of a service's methods, or what is wrong with one of them.
type serviceBindings struct {
	of  map[protoreflect.Name][]Binding
	err error
}

// bindingsOf reads the bindings of a service, once. A transcoder loads all methods of a service, whichever are exposed, so
// that one bad binding costs it the others, too.
func (d *descriptorSet) bindingsOf(service protoreflect.ServiceDescriptor) (map[protoreflect.Name][]Binding, error) {
	if known, ok := d.bindings[service.FullName()]; ok {
		return known.of, known.err
	}
	result := serviceBindings{of: map[protoreflect.Name][]Binding{}}
	for i := 0; i < service.Methods().Len() && result.err == nil; i++ {
		method := service.Methods().Get(i)
		result.of[method.Name()], result.err = bindingsOf(method)
	}
	d.bindings[service.FullName()] = result
	return result.of, result.err
}

// readAPI reads the descriptor set of a service, if it names one.
func (b *builder) readAPI(s *service) {
	api := s.object.Spec.API
	if api == nil {
		return
	}
	raw, err := b.file(s.Key.Namespace, api.DescriptorSet)
	if err == nil {
		s.api, err = parseDescriptors(raw)
	}
	if err != nil {
		const field = "spec.api.descriptorSet"
		s.apiBroken = true
		b.report(s, meshv1alpha1.ConditionAccepted, meshv1alpha1.ReasonDescriptorInvalid, field, fmt.Sprintf("%s: %v", field, err))
	}
}

// parseDescriptors refuses whatever a proxy would: it loads the files one after the other, and one that it cannot load
// costs it the whole listener.
func parseDescriptors(raw []byte) (*descriptorSet, error) {
	const remake = "make it with buf build, or protoc --include_imports --descriptor_set_out"
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(raw, set); err != nil || len(set.GetFile()) == 0 {
		return nil, errors.New("it is no google.protobuf.FileDescriptorSet: " + remake)
	}
	loaded := map[string]bool{}
	for _, file := range set.GetFile() {
		for _, dependency := range file.GetDependency() {
			if !loaded[dependency] {
				return nil, fmt.Errorf("%s imports %s, which is not there before it: %s", file.GetName(), dependency, remake)
			}
		}
		loaded[file.GetName()] = true
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		return nil, fmt.Errorf("it does not hold together (%s): %s", plain(err), remake)
	}
	return &descriptorSet{raw: raw, files: files, bindings: map[protoreflect.FullName]serviceBindings{}}, nil
}

// plain is an error of the protobuf module without the prefix in which it alternates, by design, between two kinds of space.
func plain(err error) string {
	text := strings.ReplaceAll(err.Error(), "\u00a0", " ")
	return strings.TrimPrefix(text, "proto: ")
}

// expand is what package.Service/Method or package.Service/* means. The latter are the unary methods.
func (d *descriptorSet) expand(name string) ([]protoreflect.MethodDescriptor, error) {
	serviceName, methodName, _ := strings.Cut(name, "/")
	descriptor, err := d.files.FindDescriptorByName(protoreflect.FullName(serviceName))
	service, ok := descriptor.(protoreflect.ServiceDescriptor)
	if err != nil || !ok {
		return nil, fmt.Errorf("the descriptor set has no service %s: choose one of %s, or make the set again", serviceName, list(d.serviceNames()))
	}
	var methods []protoreflect.MethodDescriptor
	for i := range service.Methods().Len() {
		method := service.Methods().Get(i)
		if string(method.Name()) == methodName || methodName == "*" && !streams(method) {
			methods = append(methods, method)
		}
	}
	if len(methods) == 0 {
		return nil, fmt.Errorf("%s has no method %s: choose one of %s, or make the descriptor set again", serviceName, methodName, list(methodNames(service)))
	}
	return methods, nil
}

func streams(method protoreflect.MethodDescriptor) bool {
	return method.IsStreamingClient() || method.IsStreamingServer()
}

func (d *descriptorSet) serviceNames() []string {
	var names []string
	d.files.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			names = append(names, string(file.Services().Get(i).FullName()))
		}
		return true
	})
	slices.Sort(names)
	return names
}

func methodNames(service protoreflect.ServiceDescriptor) []string {
	var names []string
	for i := range service.Methods().Len() {
		names = append(names, string(service.Methods().Get(i).Name()))
	}
	slices.Sort(names)
	return names
}

// list is names for a message.
func list(names []string) string {
	const enough = 16
	switch {
	case len(names) == 0:
		return "none"
	case len(names) > enough:
		return strings.Join(names[:enough], ", ") + " and others"
	default:
		return strings.Join(names, ", ")
	}
}

// methodOf is what the model has of a method, without its bindings.
func methodOf(descriptor protoreflect.MethodDescriptor) Method {
	method := Method{Service: string(descriptor.Parent().FullName()), Name: string(descriptor.Name())}
	options, _ := descriptor.Options().(*descriptorpb.MethodOptions)
	if level := options.GetIdempotencyLevel(); level != descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN {
		method.Idempotency = level.String()
	}
	return method
}

// httpRule is the google.api.http option of a method; nil where it has none.
func httpRule(method protoreflect.MethodDescriptor) *annotations.HttpRule {
	options, ok := method.Options().(*descriptorpb.MethodOptions)
	if !ok || !proto.HasExtension(options, annotations.E_Http) {
		return nil
	}
	rule, _ := proto.GetExtension(options, annotations.E_Http).(*annotations.HttpRule)
	return rule
}
