#!/usr/bin/env bash
# Lints payment/proto and generates its Go, with local plugins and no network beyond Go modules.
#
#   hack/proto.sh BIN_DIR            lints, and writes payment/paymentv1 and so on, and config/samples/payment.binpb
#   hack/proto.sh BIN_DIR FILE       writes the descriptor set (payment.v1 with its imports and what errors' details are
#                                    made of) to FILE
#
# buf looks for imports inside its workspace only, so one is put together in dist/proto: our files, the copies in
# third_party, and validate.proto from the module that hack/tools/protovalidate pins.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bin=$1 out=${2:-} workspace=dist/proto

module=github.com/bufbuild/protovalidate
(cd hack/tools/protovalidate && go mod download "$module")
validate=$(cd hack/tools/protovalidate && go list -m -f '{{.Dir}}' "$module")

rm -rf "$workspace"; mkdir -p "$workspace"/{ours,third_party/buf/validate}
cp payment/proto/buf.yaml "$workspace/"
cp -r payment/proto/{payment,contact,family,document} "$workspace/ours/"
cp -r payment/proto/third_party/google "$workspace/third_party/"
cp "$validate/proto/protovalidate/buf/validate/validate.proto" "$workspace/third_party/buf/validate/"

export PATH=$bin:$PATH
# Without comments: with them it is over what client-side kubectl apply takes.
descriptors() { "$bin/buf" build "$workspace" --path "$workspace/ours/payment" --exclude-source-info -o -#format=binpb | go run ./hack/descriptors >"$1"; }
if [ -n "$out" ]; then
  descriptors "$out"
  exit
fi
"$bin/buf" lint "$workspace"
"$bin/buf" format --diff --exit-code "$workspace/ours"
rm -rf payment/{payment,contact,family,document}v1/*.pb.go
"$bin/buf" generate "$workspace" --template payment/proto/buf.gen.yaml -o . \
  --path "$workspace"/ours/payment --path "$workspace"/ours/contact --path "$workspace"/ours/family --path "$workspace"/ours/document
descriptors config/samples/payment.binpb
