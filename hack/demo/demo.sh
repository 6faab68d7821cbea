#!/usr/bin/env bash
# The demo: a real cluster on this machine, and what paymesh does in it, each line with what was asked and what came back.
#   hack/demo/demo.sh up NAME | down NAME
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
command=${1:-} name=${2:-}
[ -n "$name" ] || { echo "usage: hack/demo/demo.sh up|down NAME" >&2; exit 2; }

if [ "$command" = down ]; then exec hack/stack.sh down "$name"; fi

bold() { if [ -t 1 ]; then printf '\033[1m%s\033[0m\n' "$*"; else printf '%s\n' "$*"; fi; }
say() { printf '\n'; bold "# $*"; }
# show COMMAND...: what was asked, and what came back. spire_server stands for the command that it is.
show() { bold "\$ ${*/#spire_server/kubectl exec -n spire-system spire-server-0 -- /spire-server}" | sed 's/\(spire-server\) [^ ]*spire-server entry/\1 entry/'; "$@" | awk 'NF || !blank {print} {blank = !NF}'; }
# refused MESSAGE COMMAND...: the command must fail, and say the message.
refused() {
  local expected=$1 said; shift
  bold "\$ $*"
  if said=$("$@" 2>&1); then echo "demo: this should have been refused" >&2; exit 1; fi
  printf '%s\n' "$said"
  [[ $said == *"$expected"* ]] || { echo "demo: it should have been refused with: $expected" >&2; exit 1; }
}
# until_true SECONDS WHAT COMMAND...: polls.
until_true() {
  local limit=$1 what=$2 start=$SECONDS; shift 2
  until "$@" >/dev/null 2>&1; do
    [ $((SECONDS - start)) -lt "$limit" ] || { echo "demo: $what: not within $limit s" >&2; exit 1; }
    sleep 0.3
  done
}

start=$SECONDS
hack/stack.sh up "$name"
KUBECONFIG=$(bin/cluster --name "$name" kubeconfig); export KUBECONFIG
PATH=$PAYMESH_BIN_DIR:$PATH
spire_server() { kubectl exec -n spire-system spire-server-0 -c spire-server -- /spire-server "$@" -socketPath /run/spire/server-socket/api.sock; }
# Not a pipe into grep -q: that ends at the first match, and kubectl may then fail for a pipe that is closed.
logs_have() { [[ $(kubectl logs -n payments "$1") == *"$2"* ]]; }

say "Two identities, a grant, and a pod: kubectl apply"
show kubectl apply -k config/samples
show kubectl wait --for=condition=Ready serviceidentities --all -A --timeout=60s
echo "demo: ready after $((SECONDS - start)) s"
kubectl rollout status -n payments deployment/payment-service --timeout=60s >/dev/null
until_true 30 "an entry for the pod's node" sh -c 'kubectl get sid -n payments payment-service -o jsonpath={.status.entries.summary} | grep -qx 1/1'
show kubectl get serviceidentities -A

say "What SPIRE holds for them: one entry for the node that runs the pod, under that node's alias"
show spire_server entry show -spiffeID spiffe://jia.app/payment-service

say "The SVID that the pod received: its SPIFFE ID, its DNS names, its lifetime"
until_true 30 "an SVID in the pod" logs_have deployment/payment-service '"got an SVID"'
show kubectl logs -n payments deployment/payment-service --tail=1

say "A pod of another service account in the same namespace gets none"
show kubectl apply -f hack/demo/stranger.yaml
until_true 60 "the stranger's answer from the Workload API" logs_have pod/stranger 'no identity issued'
show kubectl logs -n payments pod/stranger --tail=1
kubectl delete -f hack/demo/stranger.yaml --now >/dev/null

say "An entry that somebody deletes by hand comes back (within the audit interval, 30 s)"
id=pm1.main.payments.payment-service.$(kubectl get nodes -o jsonpath='{.items[0].metadata.uid}')
show spire_server entry delete -entryID "$id"
gone=$SECONDS
until_true 60 "the entry" spire_server entry show -entryID "$id"
show spire_server entry show -entryID "$id"
echo "demo: it was back after $((SECONDS - gone)) s"

say "An invalid object is refused, with what to write instead"
refused 'path must consist of segments' kubectl apply -f hack/demo/invalid.yaml
say "A path that nobody granted is not accepted, and the object says what an administrator would type"
show kubectl apply -f hack/demo/not-granted.yaml
until_true 30 "the verdict" sh -c 'kubectl get sid -n payments not-granted -o jsonpath="{.status.conditions}" | grep -q PathNotGranted'
show kubectl get sid -n payments not-granted -o 'jsonpath={.status.conditions[?(@.type=="Accepted")].message}{"\n"}'
kubectl delete -f hack/demo/not-granted.yaml >/dev/null

say "Go on by hand"
cat <<TEXT
export KUBECONFIG=$KUBECONFIG
export PATH=$PAYMESH_BIN_DIR:\$PATH
kubectl get sid -A -o wide
kubectl describe sid -n payments payment-service
bin/cluster --name $name status        # what runs, and where its logs are
make demo-down CLUSTER=$name           # leaves the machine as it was
TEXT
