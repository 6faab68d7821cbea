package descriptor

import (
	"maps"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// length is how long a file of a cut set is, and which others it imports.
type length struct {
	bytes   int
	imports map[string]bool
}

// framed is a message, a file or a name as part of another message: with a tag, each of which is one byte here, and its length.
func framed(size int) int { return 1 + protowire.SizeBytes(size) }

// lengthsOf are the lengths of files that are made of these parts, beside others. Those that have none yet begin as in base.
func (c *cutter) lengthsOf(parts map[protoreflect.FullName]bool, into, base map[string]*length) {
	for name := range parts {
		of := c.parts[name]
		at := c.length(of.file, into, base)
		at.bytes += framed(of.size)
		for _, use := range of.uses {
			at.imported(c.parts[use].file, of.file, base)
		}
	}
}

// length is the one of a file, as in base where it is new.
func (c *cutter) length(file string, into, base map[string]*length) *length {
	if into[file] == nil {
		into[file] = &length{imports: map[string]bool{}}
		if known := base[file]; known != nil {
			into[file].bytes = known.bytes
		} else {
			into[file].bytes = proto.Size(c.files[file])
		}
	}
	return into[file]
}

// imported adds an import, where it is none yet.
func (l *length) imported(file, by string, base map[string]*length) {
	if known := base[by]; file == by || l.imports[file] || known != nil && known.imports[file] {
		return
	}
	l.imports[file] = true
	l.bytes += framed(len(file))
}

// measureAlways measures what is in each set.
func (c *cutter) measureAlways() {
	c.always, c.lengths = map[protoreflect.FullName]bool{}, map[string]*length{}
	for _, of := range c.parts {
		if of.message != nil {
			of.size = proto.Size(of.message)
		} else {
			of.size = proto.Size(of.enum)
		}
	}
	for _, name := range c.details {
		c.always[name] = true
	}
	c.close(c.always, nil)
	c.lengthsOf(c.always, c.lengths, nil)
	for of := range maps.Values(c.lengths) {
		c.size += framed(of.bytes)
	}
}

// measure is how large a set of the methods is, given by service. It looks only at what such a set has beside the details, so
// that the work is as much as the size.
func (c *cutter) measure(methods map[protoreflect.FullName][]string) int {
	more, lengths := map[protoreflect.FullName]bool{}, map[string]*length{}
	for name, of := range methods {
		found, _ := c.whole.FindDescriptorByName(name)
		service, ok := found.(protoreflect.ServiceDescriptor)
		if !ok {
			continue // as in assemble
		}
		path := service.ParentFile().Path()
		at := c.length(path, lengths, c.lengths)
		size := proto.Size(&descriptorpb.ServiceDescriptorProto{Name: c.services[name].Name})
		for _, methodName := range of {
			method := service.Methods().ByName(protoreflect.Name(methodName))
			if method == nil {
				continue
			}
			size += framed(proto.Size(c.services[name].GetMethod()[method.Index()]))
			for _, message := range []protoreflect.MessageDescriptor{method.Input(), method.Output()} {
				at.imported(message.ParentFile().Path(), path, c.lengths)
				more[topOf(message)] = true
			}
		}
		at.bytes += framed(size)
	}
	maps.DeleteFunc(more, func(name protoreflect.FullName, _ bool) bool { return c.always[name] })
	c.close(more, c.always)
	c.lengthsOf(more, lengths, c.lengths)
	size := c.size
	for file, of := range lengths {
		size += framed(of.bytes)
		if known := c.lengths[file]; known != nil {
			size -= framed(known.bytes)
		}
	}
	return size
}
