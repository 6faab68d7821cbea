module github.com/jia-app/paymesh/hack/tools/protovalidate

go 1.26.0

// It has no Go package, only buf/validate/validate.proto, which hack/proto.sh imports: `go mod tidy` would drop it.
require github.com/bufbuild/protovalidate v1.2.2
