package main

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/durationpb"
)

func TestASetGetsTheDetailsOfErrorsBehindTheirImports(t *testing.T) {
	duration := protodesc.ToFileDescriptorProto(durationpb.File_google_protobuf_duration_proto)
	for name, files := range map[string][]*descriptorpb.FileDescriptorProto{"empty": nil, "with an import of theirs": {duration}} {
		t.Run(name, func(t *testing.T) {
			raw, err := proto.Marshal(&descriptorpb.FileDescriptorSet{File: files})
			if err != nil {
				t.Fatal(err)
			}
			var once, twice bytes.Buffer
			if err := run(bytes.NewReader(raw), &once); err != nil {
				t.Fatal(err)
			}
			if err := run(bytes.NewReader(once.Bytes()), &twice); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(once.Bytes(), twice.Bytes()) {
				t.Error("a second run changed the set")
			}
			got := &descriptorpb.FileDescriptorSet{}
			if err := proto.Unmarshal(once.Bytes(), got); err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, file := range got.GetFile() {
				names = append(names, file.GetName())
			}
			if len(names) != 2 || names[0] != "google/protobuf/duration.proto" || names[1] != "google/rpc/error_details.proto" {
				t.Errorf("the set has %q", names)
			}
		})
	}
}

func TestWhatIsNoSetIsRefused(t *testing.T) {
	if err := run(bytes.NewReader([]byte("\xff")), &bytes.Buffer{}); err == nil {
		t.Error("it was taken")
	}
}
