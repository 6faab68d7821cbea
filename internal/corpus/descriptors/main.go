// Command descriptors reads a google.protobuf.FileDescriptorSet and writes it in base64, as a corpus case has it in a
// ConfigMap: without comments, and without the options and imports that only buf.validate needs, which are most of it.
// make.sh beside it feeds it.
package main

import (
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	_ "google.golang.org/genproto/googleapis/api/annotations" // the one extension that is kept
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

const dropped = "buf/validate/"

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "descriptors:", err)
		os.Exit(1)
	}
}

func run() error {
	raw, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(raw, set); err != nil {
		return err
	}
	set.File = slices.DeleteFunc(set.File, func(file *descriptorpb.FileDescriptorProto) bool { return strings.HasPrefix(file.GetName(), dropped) })
	slim(set.ProtoReflect())
	for _, file := range set.GetFile() {
		file.SourceCodeInfo = nil
		file.Dependency = slices.DeleteFunc(file.Dependency, func(name string) bool { return strings.HasPrefix(name, dropped) })
	}
	needed := map[string]bool{}
	for _, file := range slices.Backward(set.GetFile()) {
		if len(file.GetService()) > 0 || needed[file.GetName()] {
			needed[file.GetName()] = true
			for _, dependency := range file.GetDependency() {
				needed[dependency] = true
			}
		}
	}
	set.File = slices.DeleteFunc(set.File, func(file *descriptorpb.FileDescriptorProto) bool { return !needed[file.GetName()] })
	out, err := proto.MarshalOptions{Deterministic: true}.Marshal(set)
	if err != nil {
		return err
	}
	fmt.Println(base64.StdEncoding.EncodeToString(out))
	return nil
}

// slim drops what is not known here from a message and all below it.
func slim(message protoreflect.Message) {
	message.SetUnknown(nil)
	message.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.IsExtension() && field.FullName() != "google.api.http":
			message.Clear(field)
		case field.Message() == nil || field.IsMap():
		case field.IsList():
			for i := range value.List().Len() {
				slim(value.List().Get(i).Message())
			}
		default:
			slim(value.Message())
		}
		return true
	})
}
