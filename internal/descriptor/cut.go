package descriptor

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

// cutter makes small descriptor sets out of a large one, which it has taken apart.
type cutter struct {
	whole *protoregistry.Files
	parts map[protoreflect.FullName]*part
	files map[string]*descriptorpb.FileDescriptorProto // without what is in them
	// services are those of the files, without options but google.api.http.
	services map[protoreflect.FullName]*descriptorpb.ServiceDescriptorProto
	// details are the messages that can be in an error of any method: those of google.rpc, and those that neither a method nor
	// an option uses otherwise.
	details []protoreflect.FullName
	// always are the details with what they use, and lengths what of each file they make.
	always  map[protoreflect.FullName]bool
	lengths map[string]*length
	size    int // of a set that has nothing else
}

// part is a message or an enum that is in no other, with whatever is in it.
type part struct {
	file    string
	index   int
	message *descriptorpb.DescriptorProto
	enum    *descriptorpb.EnumDescriptorProto
	size    int
	uses    []protoreflect.FullName // parts
}

// Cut is the descriptor set that a transcoder of these methods needs, which are package.Service/Method: no other method, since
// it finds a method by the path on its own; the messages that they use, and those that can be in an error's details; no comments,
// and no options but google.api.http. The same methods give the same bytes. What has been made is remembered with what the set says.
func (s *Set) Cut(methods ...string) []byte {
	key := strings.Join(methods, "\n")
	s.mu.Lock()
	defer s.mu.Unlock()
	if known, ok := s.made[key]; ok {
		return known
	}
	made := s.cache.cutterOf(s).assemble(byService(methods))
	s.made[key] = made
	s.cache.count(&s.cache.work.Made)
	s.cache.grew(s.contents, len(key)+len(made))
	return made
}

// SizeOfCut is how large the cut is, or would be: what nobody has room for is never made.
func (s *Set) SizeOfCut(methods ...string) int {
	key := strings.Join(methods, "\n")
	s.mu.Lock()
	defer s.mu.Unlock()
	if known, ok := s.sizes[key]; ok {
		return known
	}
	size := s.cache.cutterOf(s).measure(byService(methods))
	s.sizes[key] = size
	s.cache.count(&s.cache.work.Measured)
	s.cache.grew(s.contents, len(key)+itemSize)
	return size
}

// byService are the names of methods by service.
func byService(methods []string) map[protoreflect.FullName][]string {
	of := map[protoreflect.FullName][]string{}
	for _, name := range methods {
		service, method, _ := strings.Cut(name, "/")
		of[protoreflect.FullName(service)] = append(of[protoreflect.FullName(service)], method)
	}
	return of
}

// cutterOf takes a descriptor set apart, where it is not the last one that was: all methods of one are cut one after the other.
func (c *Cache) cutterOf(s *Set) *cutter {
	c.reading.Lock()
	defer c.reading.Unlock()
	if c.apartOf != s.contents {
		c.apartOf, c.apart = s.contents, newCutter(s.raw)
		c.count(&c.work.TakenApart)
	}
	return c.apart
}

// newCutter takes apart a set that has been read.
func newCutter(raw []byte) *cutter {
	set := &descriptorpb.FileDescriptorSet{}
	err := proto.Unmarshal(raw, set)
	var files *protoregistry.Files
	if err == nil {
		files, err = protodesc.NewFiles(set)
	}
	if err != nil {
		panic(fmt.Sprintf("read descriptors that have been read: %v", err))
	}
	c := &cutter{whole: files}
	c.takeApart()
	return c
}

func (c *cutter) takeApart() {
	c.parts, c.files = map[protoreflect.FullName]*part{}, map[string]*descriptorpb.FileDescriptorProto{}
	c.services = map[protoreflect.FullName]*descriptorpb.ServiceDescriptorProto{}
	used := map[protoreflect.FullName]bool{}
	c.whole.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		whole := protodesc.ToFileDescriptorProto(file)
		lean := &descriptorpb.FileDescriptorProto{Name: whole.Name, Package: whole.Package, Syntax: whole.Syntax, Edition: whole.Edition}
		keep := stripper{editions: file.Syntax() == protoreflect.Editions}
		c.files[file.Path()] = lean
		for i, message := range whole.GetMessageType() {
			descriptor := file.Messages().Get(i)
			keep.message(message, descriptor)
			c.parts[descriptor.FullName()] = &part{file: file.Path(), index: i, message: message, uses: usesOf(descriptor)}
			usedByExtensions(descriptor, used)
		}
		for i, enum := range whole.GetEnumType() {
			keep.enum(enum, file.Enums().Get(i))
			c.parts[file.Enums().Get(i).FullName()] = &part{file: file.Path(), index: i, enum: enum}
		}
		for i, service := range whole.GetService() {
			descriptor := file.Services().Get(i)
			stripService(service)
			c.services[descriptor.FullName()] = service
			for j := range descriptor.Methods().Len() {
				used[topOf(descriptor.Methods().Get(j).Input())], used[topOf(descriptor.Methods().Get(j).Output())] = true, true
			}
		}
		extensionTypes(file.Extensions(), used)
		return true
	})
	c.close(used, nil)
	for name, of := range c.parts {
		optional := of.file == "google/protobuf/descriptor.proto" || strings.HasPrefix(of.file, "google/api/")
		if name.Parent() == "google.rpc" || !used[name] && of.message != nil && !optional {
			c.details = append(c.details, name)
		}
	}
	c.measureAlways()
}

// close adds whatever the parts of the set use and without lacks.
func (c *cutter) close(set, without map[protoreflect.FullName]bool) {
	open := slices.Collect(maps.Keys(set))
	for len(open) > 0 {
		name := open[len(open)-1]
		open = open[:len(open)-1]
		for _, use := range c.parts[name].uses {
			if !set[use] && !without[use] {
				set[use] = true
				open = append(open, use)
			}
		}
	}
}

// assemble makes a set of the methods, given by service.
func (c *cutter) assemble(methods map[protoreflect.FullName][]string) []byte {
	needed := map[protoreflect.FullName]bool{}
	for _, name := range c.details {
		needed[name] = true
	}
	files, imports := map[string]*descriptorpb.FileDescriptorProto{}, map[string]map[string]bool{}
	file := func(path string) *descriptorpb.FileDescriptorProto {
		if files[path] == nil {
			files[path], imports[path] = proto.CloneOf(c.files[path]), map[string]bool{}
		}
		return files[path]
	}
	for _, name := range slices.Sorted(maps.Keys(methods)) {
		found, _ := c.whole.FindDescriptorByName(name)
		service, ok := found.(protoreflect.ServiceDescriptor)
		if !ok {
			continue // it has been found when the methods were judged
		}
		whole := c.services[name]
		lean := &descriptorpb.ServiceDescriptorProto{Name: whole.Name}
		in := file(service.ParentFile().Path())
		for i, method := range whole.GetMethod() {
			if slices.Contains(methods[name], method.GetName()) {
				lean.Method = append(lean.Method, method)
				for _, message := range []protoreflect.MessageDescriptor{service.Methods().Get(i).Input(), service.Methods().Get(i).Output()} {
					needed[topOf(message)] = true
					imports[in.GetName()][message.ParentFile().Path()] = true
				}
			}
		}
		in.Service = append(in.Service, lean)
	}
	c.close(needed, nil)
	for _, name := range slices.SortedFunc(maps.Keys(needed), func(x, y protoreflect.FullName) int {
		return cmp.Compare(c.parts[x].index, c.parts[y].index)
	}) {
		of := c.parts[name]
		in := file(of.file)
		if of.message != nil {
			in.MessageType = append(in.MessageType, of.message)
		} else {
			in.EnumType = append(in.EnumType, of.enum)
		}
		for _, use := range of.uses {
			imports[of.file][c.parts[use].file] = true
		}
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(inOrder(files, imports))
	if err != nil {
		panic(fmt.Sprintf("marshal descriptors that have been unmarshalled: %v", err))
	}
	return raw
}

// inOrder puts each file after those that it imports.
func inOrder(files map[string]*descriptorpb.FileDescriptorProto, imports map[string]map[string]bool) *descriptorpb.FileDescriptorSet {
	set, done := &descriptorpb.FileDescriptorSet{}, map[string]bool{}
	var add func(path string)
	add = func(path string) {
		if done[path] {
			return
		}
		done[path] = true
		for _, imported := range slices.Sorted(maps.Keys(imports[path])) {
			if imported != path {
				files[path].Dependency = append(files[path].Dependency, imported)
				add(imported)
			}
		}
		set.File = append(set.File, files[path])
	}
	for _, path := range slices.Sorted(maps.Keys(files)) {
		add(path)
	}
	return set
}

// topOf is the message or enum that holds this one, and is in no other.
func topOf(descriptor protoreflect.Descriptor) protoreflect.FullName {
	for {
		parent, ok := descriptor.Parent().(protoreflect.MessageDescriptor)
		if !ok {
			return descriptor.FullName()
		}
		descriptor = parent
	}
}

func usesOf(message protoreflect.MessageDescriptor) []protoreflect.FullName {
	var uses []protoreflect.FullName
	for i := range message.Fields().Len() {
		if of := typeOf(message.Fields().Get(i)); of != nil {
			uses = append(uses, topOf(of))
		}
	}
	for i := range message.Messages().Len() {
		uses = append(uses, usesOf(message.Messages().Get(i))...)
	}
	slices.Sort(uses)
	return slices.Compact(uses)
}

// typeOf is the message or enum that a field holds; nil where it holds neither.
func typeOf(field protoreflect.FieldDescriptor) protoreflect.Descriptor {
	switch {
	case field.Message() != nil:
		return field.Message()
	case field.Enum() != nil:
		return field.Enum()
	default:
		return nil
	}
}

func extensionTypes(extensions protoreflect.ExtensionDescriptors, into map[protoreflect.FullName]bool) {
	for i := range extensions.Len() {
		if of := typeOf(extensions.Get(i)); of != nil {
			into[topOf(of)] = true
		}
	}
}

func usedByExtensions(message protoreflect.MessageDescriptor, into map[protoreflect.FullName]bool) {
	extensionTypes(message.Extensions(), into)
	for i := range message.Messages().Len() {
		usedByExtensions(message.Messages().Get(i), into)
	}
}
