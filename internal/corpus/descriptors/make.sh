#!/usr/bin/env bash
# Prints the descriptor sets that the cases of internal/testdata hold in ConfigMaps, in base64: payment.v1 and shop.v1.
# Run hack/proto.sh before: it puts the protos of payment.v1 together.
#
#   internal/corpus/descriptors/make.sh BIN_DIR
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
bin=$1 workspace=dist/corpus-proto

rm -rf "$workspace"; mkdir -p "$workspace"
cp -r internal/corpus/protos/. payment/proto/third_party/. "$workspace/"
printf 'version: v2\n' >"$workspace/buf.yaml"
slim() { "$bin/buf" build "$1" "${@:2}" --exclude-source-info -o -#format=binpb | go run ./internal/corpus/descriptors; }
printf 'payment.v1: %s\n' "$(slim dist/proto --type payment.v1.PaymentService)"
printf 'shop.v1: %s\n' "$(slim "$workspace" --type shop.v1.Shop --type shop.v1.Other --type shop.v1.Twins --type shop.v1.Broken --type shop.v1.Parts)"
