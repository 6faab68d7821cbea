#!/usr/bin/env bash
# Tests hack/cluster (and that it leaves the machine as it was), then runs test/e2e on a cluster of its own, which is gone
# afterwards. KEEP=1 keeps it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
name=${CLUSTER_E2E:-paymesh-e2e}
hack/stack.sh check "$name"
down() {
  local status=$?
  if [ -n "${KEEP:-}" ]; then echo "e2e: the cluster $name is kept: hack/stack.sh down $name ends it"; else hack/stack.sh down "$name" || status=1; fi
  exit "$status"
}
make --no-print-directory cluster-tools
hack/cluster/system-packages.sh
(cd hack/cluster && go test -tags e2e -count=1 -timeout 10m -run TestCluster .)
trap down EXIT
hack/stack.sh up "$name"
export KUBECONFIG PAYMESH_CLUSTER=$name PAYMESH_E2E_BIN=$PWD/bin PAYMESH_KEYS
KUBECONFIG=$(bin/cluster --name "$name" kubeconfig)
PAYMESH_KEYS=$(hack/stack.sh keys "$name")
"$PAYMESH_BIN_DIR/kustomize" build config/samples | "$PAYMESH_BIN_DIR/kubectl" apply -f - >/dev/null
"$PAYMESH_BIN_DIR/kubectl" apply -f hack/demo/callers.yaml >/dev/null
go test -v -tags e2e -count=1 -timeout 20m ./test/e2e "$@" -ginkgo.v
