// Package descriptor judges what services say of their APIs: the bytes of a google.protobuf.FileDescriptorSet go in; what is
// wrong with it comes out in words, or a Set, which says what methods there are and how they are bound to HTTP, and makes, for
// some of them, the small set that a transcoder needs. It is pure but for a Cache of what was read, which its owner holds.
package descriptor

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
)

// Set is a google.protobuf.FileDescriptorSet that proxies can load. It has the bytes, and shares the rest by the Cache that it
// was read with.
type Set struct {
	*contents
	raw   []byte
	cache *Cache
}

// contents is what a descriptor set says, as far as there is use for it.
type contents struct {
	services map[string]*service // by the full name; not changed once read
	hash     [sha256.Size]byte   // of the set

	mu    sync.Mutex
	made  map[string][]byte // the cuts that have been made, by their methods
	sizes map[string]int    // how large those are, or would be
}

// service is a gRPC service of a descriptor set.
type service struct {
	methods []Method // in the set's order
	err     error    // see CheckBindings
}

// Method is a gRPC method.
type Method struct {
	// Service and Name make the path /Service/Name, as in payment.v1.PaymentService and CreatePayment.
	Service, Name string
	Bindings      []Binding // sorted by template and HTTP method
	// Idempotency is the method's idempotency_level: NO_SIDE_EFFECTS, IDEMPOTENT, or empty where nothing is declared.
	Idempotency string
	// Streams says that the request or the answer is a stream.
	Streams bool
}

// parse refuses whatever a proxy would: it loads the files one after the other, and one that it cannot load costs it the
// whole listener.
func parse(raw []byte) (*contents, error) {
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
	if entries := entriesOf(set); entries > maxEntries {
		return nil, fmt.Errorf("it has %d services, methods and HTTP bindings, and may have %d: leave out those that belong to other services", entries, maxEntries)
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
	read := &contents{services: map[string]*service{}, made: map[string][]byte{}, sizes: map[string]int{}}
	files.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			read.services[strings.Clone(string(service.FullName()))] = readService(service)
		}
		return true
	})
	return read, nil
}

// maxEntries bounds what is remembered of a descriptor set: so many that no service comes near.
const maxEntries = 4096

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

func readService(descriptor protoreflect.ServiceDescriptor) *service {
	read := &service{}
	for i := range descriptor.Methods().Len() {
		of := descriptor.Methods().Get(i)
		method := readMethod(of)
		if read.err == nil {
			method.Bindings, read.err = bindingsOf(of)
		}
		read.methods = append(read.methods, method)
	}
	return read
}

// readMethod reads a method without its bindings. Its names are copied: what they are parts of is large.
func readMethod(descriptor protoreflect.MethodDescriptor) Method {
	method := Method{
		Service: strings.Clone(string(descriptor.Parent().FullName())), Name: strings.Clone(string(descriptor.Name())),
		Streams: descriptor.IsStreamingClient() || descriptor.IsStreamingServer(),
	}
	options, _ := descriptor.Options().(*descriptorpb.MethodOptions)
	if level := options.GetIdempotencyLevel(); level != descriptorpb.MethodOptions_IDEMPOTENCY_UNKNOWN {
		method.Idempotency = level.String()
	}
	return method
}

// plain is an error of the protobuf module without the prefix in which it alternates, by design, between two kinds of space.
func plain(err error) string {
	text := strings.ReplaceAll(err.Error(), "\u00a0", " ")
	return strings.TrimPrefix(text, "proto: ")
}

// Methods are what package.Service/Method or package.Service/* means. The latter are the unary methods. The error says which
// there are instead.
func (s *Set) Methods(name string) ([]Method, error) {
	serviceName, methodName, _ := strings.Cut(name, "/")
	of := s.services[serviceName]
	if of == nil {
		return nil, fmt.Errorf("the descriptor set has no service %s: choose one of %s, or make the set again", serviceName, list(slices.Sorted(maps.Keys(s.services))))
	}
	var methods []Method
	for _, method := range of.methods {
		if method.Name == methodName || methodName == "*" && !method.Streams {
			methods = append(methods, method)
		}
	}
	if len(methods) == 0 {
		return nil, fmt.Errorf("%s has no method %s: choose one of %s, or make the descriptor set again", serviceName, methodName, list(of.methodNames()))
	}
	return methods, nil
}

// CheckBindings says what is wrong with a binding of a service; nil where nothing is. A transcoder loads all methods of a service,
// whichever are exposed, so that one bad binding costs it the others, too.
func (s *Set) CheckBindings(service string) error {
	if of := s.services[service]; of != nil {
		return of.err
	}
	return nil
}

func (s *service) methodNames() []string {
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
