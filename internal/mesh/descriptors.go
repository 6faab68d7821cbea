package mesh

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	meshv1alpha1 "github.com/jia-app/paymesh/api/v1alpha1"
)

// api is what a service's google.protobuf.FileDescriptorSet says, as far as the Mesh has use for it. Builds share it.
type api struct {
	services map[string]*apiService // by the full name; not changed once read
	hash     [sha256.Size]byte      // of the set

	mu    sync.Mutex
	made  map[string][]byte // what cut has made, by the methods
	sizes map[string]int    // how large that is, or would be
}

// apiService is a gRPC service of a descriptor set.
type apiService struct {
	methods []apiMethod // in the set's order
	// err is what is wrong with a binding. A transcoder loads all methods of a service, whichever are exposed, so that one
	// bad binding costs it the others, too.
	err error
}

type apiMethod struct {
	Method
	streams bool
}

// readAPI reads the descriptor set of a service, if it names one.
func (b *builder) readAPI(s *service) {
	source := s.object.Spec.API
	if source == nil || s.apiRead {
		return
	}
	s.apiRead = true
	raw, err := b.file(s.Key.Namespace, source.DescriptorSet)
	if err == nil {
		s.api, err = apis.read(raw)
	}
	if err != nil {
		const field = "spec.api.descriptorSet"
		s.apiBroken = true
		b.report(s, meshv1alpha1.ConditionAccepted, meshv1alpha1.ReasonDescriptorInvalid, field, fmt.Sprintf("%s: %v", field, err))
		return
	}
	s.descriptors = raw
}

// parseDescriptors refuses whatever a proxy would: it loads the files one after the other, and one that it cannot load
// costs it the whole listener.
func parseDescriptors(raw []byte) (*api, error) {
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
	if entries := entriesOf(set); entries > maxAPIEntries {
		return nil, fmt.Errorf("it has %d services, methods and HTTP bindings, and may have %d: leave out those that belong to other services", entries, maxAPIEntries)
	}
	for _, file := range set.GetFile() {
		if file.GetSyntax() == "editions" && file.GetEdition() < descriptorpb.Edition_EDITION_2023 {
			return nil, fmt.Errorf("%s has no edition, but the number of one: %s", file.GetName(), remake)
		}
		loaded, err := files.FindFileByPath(file.GetName())
		if err == nil {
			err = checkLoadable(loaded)
		}
		if err != nil {
			return nil, err
		}
	}
	read := &api{services: map[string]*apiService{}, made: map[string][]byte{}, sizes: map[string]int{}}
	files.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			read.services[strings.Clone(string(service.FullName()))] = readService(service)
		}
		return true
	})
	return read, nil
}

// maxAPIEntries bounds what is remembered of a descriptor set: so many that no service comes near.
const maxAPIEntries = 4096

// entriesOf counts services, methods and what their paths are.
func entriesOf(set *descriptorpb.FileDescriptorSet) int {
	entries := 0
	for _, file := range set.GetFile() {
		entries += len(file.GetService())
		for _, service := range file.GetService() {
			entries += len(service.GetMethod())
			for _, method := range service.GetMethod() {
				if rule, ok := proto.GetExtension(method.GetOptions(), annotations.E_Http).(*annotations.HttpRule); ok {
					entries += len(rule.GetAdditionalBindings())
				}
			}
		}
	}
	return entries
}

func readService(descriptor protoreflect.ServiceDescriptor) *apiService {
	service := &apiService{}
	for i := range descriptor.Methods().Len() {
		method := descriptor.Methods().Get(i)
		read := apiMethod{Method: methodOf(method), streams: method.IsStreamingClient() || method.IsStreamingServer()}
		read.Service, read.Name = strings.Clone(read.Service), strings.Clone(read.Name) // what they are parts of is large
		if service.err == nil {
			read.Bindings, service.err = bindingsOf(method)
		}
		service.methods = append(service.methods, read)
	}
	return service
}

// plain is an error of the protobuf module without the prefix in which it alternates, by design, between two kinds of space.
func plain(err error) string {
	text := strings.ReplaceAll(err.Error(), "\u00a0", " ")
	return strings.TrimPrefix(text, "proto: ")
}

// expand is what package.Service/Method or package.Service/* means. The latter are the unary methods.
func (a *api) expand(name string) (*apiService, []apiMethod, error) {
	serviceName, methodName, _ := strings.Cut(name, "/")
	service := a.services[serviceName]
	if service == nil {
		return nil, nil, fmt.Errorf("the descriptor set has no service %s: choose one of %s, or make the set again", serviceName, list(slices.Sorted(maps.Keys(a.services))))
	}
	var methods []apiMethod
	for _, method := range service.methods {
		if method.Name == methodName || methodName == "*" && !method.streams {
			methods = append(methods, method)
		}
	}
	if len(methods) == 0 {
		return nil, nil, fmt.Errorf("%s has no method %s: choose one of %s, or make the descriptor set again", serviceName, methodName, list(service.methodNames()))
	}
	return service, methods, nil
}

func (s *apiService) methodNames() []string {
	var names []string
	for _, method := range s.methods {
		names = append(names, method.Name)
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
