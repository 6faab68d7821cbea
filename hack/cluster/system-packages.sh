#!/bin/sh
# Makes sure that the system programs which a cluster needs are there.
#
#   system-packages.sh           installs what is missing (root on a machine with apt-get), or says what to type
#   system-packages.sh --check   installs nothing, only says what is missing
#
# They come from the distribution and not from hack/tools because they belong to the running kernel (iptables, nft, ipset)
# or need a C library that may not be there to build against (runc and libseccomp).
set -eu
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

# program  Debian package
table='
runc      runc
iptables  iptables
ipset     ipset
nft       nftables
ip        iproute2
nsenter   util-linux
mount     mount
'

missing_programs=''
missing_packages=''
while read -r program package; do
  [ -n "$program" ] || continue
  if [ "$program" = runc ] && [ -x "${RUNC_BIN:-}" ]; then continue; fi
  command -v "$program" >/dev/null 2>&1 && continue
  missing_programs="$missing_programs $program"
  missing_packages="$missing_packages $package"
done <<TABLE
$table
TABLE
[ -n "$missing_programs" ] || exit 0

refuse() {
  echo "the cluster needs programs that are not installed:$missing_programs; install them, on Debian or Ubuntu with: sudo apt-get update && sudo apt-get install -y --no-install-recommends$missing_packages" >&2
  exit 1
}

[ "${1:-}" != --check ] || refuse
[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 || refuse

export DEBIAN_FRONTEND=noninteractive
echo "installing$missing_packages" >&2
# The package lists may be missing or old: only then they are fetched. One word is one package, so no quotes.
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $missing_packages >/dev/null 2>&1 || {
  apt-get update -qq >/dev/null && apt-get install -y -qq --no-install-recommends $missing_packages >/dev/null || refuse
}
