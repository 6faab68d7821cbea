#!/usr/bin/env bash
# Checks the import directions from what the compiler links, so that no detour over a third package hides one.
#   cmd -> controllers -> {spire/client, spire/registry} -> spire -> mesh -> api
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
module=github.com/jia-app/paymesh
bad=0

# forbid PACKAGES PATTERN WHY: no package of PACKAGES may depend on one that PATTERN matches.
forbid() {
  local found
  found=$(go list -f '{{$p := .ImportPath}}{{range .Deps}}{{$p}} {{.}}{{"\n"}}{{end}}' "$1" | grep -E " ($2)" || true)
  [ -z "$found" ] || { bad=1; echo "imports: $3:" >&2; head -n 5 <<<"$found" >&2; }
}

forbid ./api/... "$module/(internal|controllers|cmd|payment)" "api/v1alpha1 describes the kinds and depends on nothing of ours"
forbid ./internal/mesh "$module/(internal/[^m]|controllers|cmd|payment)|sigs.k8s.io/controller-runtime/pkg/client|k8s.io/client-go|google.golang.org/grpc" "internal/mesh is pure: objects go in, a model comes out"
forbid ./internal/spire "$module/(internal/spire/|controllers|cmd|payment)|sigs.k8s.io/controller-runtime/pkg/client|k8s.io/client-go|google.golang.org/grpc" "internal/spire is pure: a model goes in, entries come out"
forbid ./internal/spire/client "$module/(controllers|cmd|payment)|sigs.k8s.io/controller-runtime" "internal/spire/client speaks to SPIRE alone"
forbid ./internal/spire/registry "$module/(controllers|cmd|payment)|sigs.k8s.io/controller-runtime" "internal/spire/registry speaks to SPIRE alone"
forbid ./controllers "$module/(cmd|payment)" "controllers are wired by cmd, and share with payment nothing but payment/config"
[ "$bad" = 0 ] || exit 1
