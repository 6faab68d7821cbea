#!/usr/bin/env bash
# Removes config/default from the current kubectl context: undeploy.sh KUSTOMIZE
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
kustomize=$1
# With the operator gone, nobody takes off the finalizers of the identities, and the deletion of their kind never ends.
kind=$(kubectl get crd serviceidentities.mesh.jia.app --ignore-not-found -o name)
if [ -n "$kind" ]; then
  left=$(kubectl get serviceidentities.mesh.jia.app -A -o name)
  if [ -n "$left" ]; then
    echo "undeploy: $(wc -l <<<"$left") ServiceIdentities are still there, and only the operator can remove their entries from SPIRE:
  kubectl delete serviceidentities --all -A
Then run this again. Where SPIRE is gone for good, the README says under Uninstall how to let them go." >&2
    exit 1
  fi
fi
"$kustomize" build config/default | kubectl delete --ignore-not-found -f -
