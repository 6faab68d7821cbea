#!/usr/bin/env bash
# Removes config/default from the current kubectl context: undeploy.sh KUSTOMIZE
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
kustomize=$1
# With the operator gone, nobody takes off the finalizers of the objects, and the deletion of their kinds never ends.
left=0
for kind in meshservices meshgateways serviceidentities; do
  [ -n "$(kubectl get crd "$kind.mesh.jia.app" --ignore-not-found -o name)" ] || continue
  there=$(kubectl get "$kind.mesh.jia.app" -A -o name)
  [ -z "$there" ] || left=$((left + $(wc -l <<<"$there")))
done
if [ "$left" -gt 0 ]; then
  echo "undeploy: $left MeshServices, MeshGateways and ServiceIdentities are still there, and only the operator can remove what is theirs in SPIRE and in the cluster:
  kubectl delete meshservices,meshgateways,serviceidentities --all -A
Then run this again. Where SPIRE is gone for good, the README says under Uninstall how to let them go." >&2
  exit 1
fi
"$kustomize" build config/default | kubectl delete --ignore-not-found -f -
