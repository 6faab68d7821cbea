#!/usr/bin/env bash
# Prints config/default with another image of the manager: deploy.sh KUSTOMIZE IMAGE
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
kustomize=$1 image=$2
overlay=dist/deploy; mkdir -p "$overlay"
# The tag is what follows the last colon, unless that belongs to a registry's port.
name=$image tag=
[[ ${image##*/} != *:* ]] || { name=${image%:*}; tag=${image##*:}; }
cat >"$overlay/kustomization.yaml" <<YAML
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
- ../../config/default
images:
- name: paymesh/manager
  newName: $name
  newTag: "${tag:-latest}"
YAML
"$kustomize" build "$overlay"
