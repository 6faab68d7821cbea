#!/usr/bin/env bash
# Brings up what the demo and the e2e tests stand on: a cluster with SPIRE and the operator, from this checkout.
#   hack/stack.sh up NAME      prints a line a step; ends when the operator is rolled out
#   hack/stack.sh keys NAME    prints the folder with the tokens, the JWK set and the gateway's certificate
#   hack/stack.sh down NAME    leaves the machine as it was
#   hack/stack.sh check NAME   says whether a cluster can run here at all
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
command=${1:-} name=${2:-}
[ -n "$name" ] || { echo "usage: hack/stack.sh up|keys|down|check NAME" >&2; exit 2; }
bin=$PWD/bin

[ "$(uname -s)" = Linux ] && [ "$(id -u)" = 0 ] || { echo "stack: a cluster needs Linux and root: type sudo -E make ..., or see the README for a cluster that you have" >&2; exit 1; }

cluster() { "$bin/cluster" --name "$name" "$@"; }
kubectl() { KUBECONFIG=$(cluster kubeconfig) "$PAYMESH_BIN_DIR/kubectl" "$@"; }

# step WHAT COMMAND...: runs a step and says how long it took; what the step prints is shown where it fails.
step() {
  local what=$1 start=$SECONDS log status; shift
  log=$(mktemp)
  # In the condition of an if, set -e is off: a function would go on after a command of it that failed.
  set +e; (set -e; "$@") >"$log" 2>&1; status=$?; set -e
  if [ "$status" = 0 ]; then printf 'stack: %-44s %3d s\n' "$what" $((SECONDS - start)); rm -f "$log"; return; fi
  cat "$log" >&2; rm -f "$log"; echo "stack: $what: failed" >&2; exit 1
}

load_images() {
  cluster load --tag paymesh/manager:dev --entrypoint /manager "$bin/manager" "$bin/spire-bootstrap"
  cluster load --tag paymesh/payment:dev --entrypoint /payment "$bin/payment"
  cluster load --tag paymesh/people:dev --entrypoint /people "$bin/people"
  cluster load --tag paymesh/probe:dev --entrypoint /probe "$bin/probe"
  cluster load --tag paymesh/envoy:1.40.0 --entrypoint /envoy "$PAYMESH_BIN_DIR/envoy"
  cluster load --tag paymesh/spire-server:1.15.3 --entrypoint /spire-server "$PAYMESH_BIN_DIR/spire-server"
  cluster load --tag paymesh/spire-agent:1.15.3 --entrypoint /spire-agent "$PAYMESH_BIN_DIR/spire-agent"
}

deploy() { # deploy KUSTOMIZATION
  "$PAYMESH_BIN_DIR/kustomize" build "$1" | kubectl apply --server-side --force-conflicts -f -
}

spire_ready() {
  kubectl rollout status -n spire-system statefulset/spire-server --timeout=120s
  kubectl rollout status -n spire-system daemonset/spire-agent --timeout=120s
}

# make_keys: what the samples refer to and leave out. The keys stay with the cluster's own files, and go with it.
make_keys() {
  local keys; keys=$(keys_folder)
  "$bin/keys" make "$keys"
  kubectl apply -f config/samples/namespaces.yaml
  for namespace in edge payments; do
    kubectl create configmap users-jwks -n "$namespace" --from-file=jwks.json="$keys/jwks.json" --dry-run=client -o yaml | kubectl apply -f -
  done
  kubectl create secret tls public-tls -n edge --cert="$keys/tls.crt" --key="$keys/tls.key" --dry-run=client -o yaml | kubectl apply -f -
}

keys_folder() { echo "$(dirname "$(cluster kubeconfig)")/demo-keys"; }

operator_ready() { kubectl rollout status -n paymesh-system deployment/paymesh-manager --timeout=120s; }

case $command in
  check) ;; # done above
  up)
    make --no-print-directory cluster-tools
    hack/cluster/system-packages.sh
    step "build the binaries" make --no-print-directory BIN="$bin" build build-cluster build-demo
    step "start the cluster $name" cluster up
    step "load the images" load_images
    step "deploy SPIRE" deploy config/spire/overlays/single-node
    step "deploy the operator" deploy config/default
    step "make the keys of the samples" make_keys
    step "SPIRE is ready" spire_ready
    step "the operator is ready" operator_ready
    ;;
  keys) keys_folder ;;
  down)
    [ -x "$bin/cluster" ] || make --no-print-directory BIN="$bin" build-cluster
    cluster down
    ;;
  *) echo "stack: '$command' is none of up, keys, down and check" >&2; exit 2 ;;
esac
