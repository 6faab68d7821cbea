#!/usr/bin/env bash
# Prints a folder of config with another image in place of paymesh/manager:dev: deploy.sh KUSTOMIZE FOLDER IMAGE
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
kustomize=$1 folder=$2 image=$3
overlay=dist/deploy; mkdir -p "$overlay"
# The tag is what follows the last colon, unless that belongs to a registry's port; the digest is what follows an @.
name=${image%%@*} digest='' tag=''
[[ $image != *@* ]] || digest=${image#*@}
[[ ${name##*/} != *:* ]] || { tag=${name##*:}; name=${name%:*}; }
version="newTag: \"${tag:-latest}\""; [ -z "$digest" ] || version="digest: $digest"
cat >"$overlay/kustomization.yaml" <<YAML
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
- ../../$folder
images:
- name: paymesh/manager
  newName: $name
  $version
YAML
"$kustomize" build "$overlay"
