#!/usr/bin/env bash
# Checks the import directions from what the compiler links, so that no detour over a third package hides one.
#   cmd -> controllers -> {spire/client, spire/registry, spire/retention, spire/backoff, xds/server, owned} -> {spire, xds, workload} ->
#   mesh -> {api, descriptor}
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
module=github.com/jia-app/paymesh
pure="sigs.k8s.io/controller-runtime/pkg/client|k8s.io/client-go|google.golang.org/grpc"
bad=0

# check PACKAGES OURS FORBIDDEN WHY: of this module, PACKAGES may link only what OURS matches (whole paths below the module:
# a new package is forbidden until it is named here); of others, nothing that begins with what FORBIDDEN matches.
check() {
  local linked found
  linked=$(go list -deps "$1") || { echo "imports: go list fails for $1" >&2; exit 1; }
  found=$({ grep "^$module/" <<<"$linked" | grep -vxE "$module/($2)"; grep -E "^($3)(/|\$)" <<<"$linked"; } || true)
  [ -z "$found" ] || { bad=1; printf 'imports: %s: but %s links\n%s\n' "$4" "$1" "$(head -n 5 <<<"$found")" >&2; }
}

api='api/v1alpha1' descriptor='internal/descriptor' mesh='internal/mesh' spire='internal/spire' client='internal/spire/client' registry='internal/spire/registry' xds='internal/xds' server='internal/xds/server' svid='internal/svid' owned='internal/owned' retention='internal/spire/retention' backoff='internal/spire/backoff'
model="$api|$descriptor|$mesh" # what mesh links, and so whoever links mesh
none='-' # begins no import path
check ./api/... "$api" "$none" "api/v1alpha1 describes the kinds and depends on nothing of ours"
check ./internal/descriptor "$descriptor" "$pure|k8s.io" "internal/descriptor is pure and knows no mesh: the bytes of a descriptor set go in, what it says comes out"
check ./internal/mesh "$model" "$pure" "internal/mesh is pure: objects go in, a model comes out"
check ./internal/spire "$model|$spire" "$pure" "internal/spire is pure: a model goes in, entries come out"
check ./internal/svid "$svid" "sigs.k8s.io/controller-runtime|k8s.io/client-go" "internal/svid speaks to the Workload API alone"
check ./internal/spire/client "$model|$spire|$client|$svid" "sigs.k8s.io/controller-runtime" "internal/spire/client speaks to SPIRE alone"
check ./internal/spire/registry "$model|$spire|$client|$svid|$registry" "sigs.k8s.io/controller-runtime" "internal/spire/registry speaks to SPIRE alone"
# Of Envoy's APIs only the services link grpc (envoy/service/...): a rendering has no use for those.
check ./internal/xds "$model|$xds" "$pure" "internal/xds is pure: a model goes in, resources come out"
check ./internal/xds/server "$model|$xds|$server" "sigs.k8s.io/controller-runtime|k8s.io/client-go" "internal/xds/server speaks to proxies alone"
check ./internal/workload "$model|internal/workload|payment/config" "$pure" "internal/workload is pure: a model goes in, objects come out"
check ./internal/spire/retention "$model|$spire|$retention" "$pure" "internal/spire/retention decides what may be deleted, and deletes nothing"
check ./internal/spire/backoff "$model|$spire|$backoff" "$pure" "internal/spire/backoff decides what may be sent, and sends nothing"
check ./internal/owned "$model|internal/workload|payment/config|$owned" "google.golang.org/grpc" "internal/owned speaks to the API server alone"
check ./payment/interceptor "payment/(config|policy|interceptor)" "modernc.org/sqlite" "who serves calls needs no store"
check ./payment/services "payment/(config|policy|interceptor|mtls|breaker|discovery|pool|services|contactv1|familyv1|documentv1)" "modernc.org/sqlite" "who calls others needs no store"
check ./payment/gateway "payment/(config|gateway)" "modernc.org/sqlite" "a client outside the mesh needs nothing of it"
check ./payment/... "payment/.*" "sigs.k8s.io|k8s.io" "the workload knows nothing of Kubernetes, nor of the operator"
check ./controllers "$model|$spire|$client|$svid|$registry|$xds|$server|internal/workload|payment/config|$owned|$retention|$backoff|controllers" "$none" "controllers know what reads, decides and writes, and are wired by cmd"
exit "$bad"
