#!/usr/bin/env bash
# Builds every kustomization of config, and each component by an overlay on config/default: kustomizations.sh KUSTOMIZE
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
kustomize=$1
overlay=dist/component; mkdir -p "$overlay"
while read -r file; do
  folder=$(dirname "$file")
  if grep -qx 'kind: Component' "$file"; then
    cat >"$overlay/kustomization.yaml" <<YAML
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../../config/default]
components: [../../$folder]
YAML
    folder=$overlay
  fi
  "$kustomize" build "$folder" >/dev/null || { echo "kustomizations: $file does not build" >&2; exit 1; }
done < <(git ls-files 'config/**kustomization.yaml')
