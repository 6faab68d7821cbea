// Command descriptors reads a google.protobuf.FileDescriptorSet and writes it with google/rpc/error_details.proto in it:
// a gateway that turns gRPC into JSON shows only those details of an error whose types are in the set. hack/proto.sh feeds it.
package main

import (
	"fmt"
	"io"
	"os"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "descriptors:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer) error {
	raw, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(raw, set); err != nil {
		return fmt.Errorf("read a google.protobuf.FileDescriptorSet: %w", err)
	}
	add(set, errdetails.File_google_rpc_error_details_proto)
	raw, err = proto.MarshalOptions{Deterministic: true}.Marshal(set)
	if err != nil {
		return err
	}
	_, err = out.Write(raw)
	return err
}

// add appends a file behind its imports, as whoever loads the set wants it; what is there already stays as it is.
func add(set *descriptorpb.FileDescriptorSet, file protoreflect.FileDescriptor) {
	for _, have := range set.GetFile() {
		if have.GetName() == file.Path() {
			return
		}
	}
	for i := range file.Imports().Len() {
		add(set, file.Imports().Get(i).FileDescriptor)
	}
	set.File = append(set.File, protodesc.ToFileDescriptorProto(file))
}
