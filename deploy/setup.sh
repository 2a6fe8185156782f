#!/usr/bin/env bash
# Everything Cirri needs on this machine: Debian packages, .venv, compiled programs.
# Idempotent; checks first, so that a machine that cannot serve is left as it was.
set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C.UTF-8

PACKAGES=(
  clang libbpf-dev linux-libc-dev libc6-dev make   # compile bpf/ and the CNI plugin
  libclang-rt-dev                                  # the sanitizers, in tests
  libbpf1                                          # load the kernel programs
  python3-bpfcc                                    # compile those of tracing policies, when a node gets some
  nats-server                                      # the bus
  python3 python3-venv                             # services
  iproute2 nftables util-linux procps              # lab, tests, benchmarks
  curl iputils-ping                                # what one runs in the lab's pods
  knot unbound nginx-light openssl ca-certificates # the lab's internet: names, resolver, web sites
  gobgpd                                           # the BGP speaker of a node
  bird2                                            # the lab's router
  frr                                              # another router, in tests
  tshark                                           # what is on the wire, in tests
  dnsdist dnsperf wrk                              # peers and load of the benchmarks
  prometheus                                       # reads the metrics in tests, and checks deploy/prometheus
  containernetworking-plugins                      # peers of the CNI benchmark
  containerd runc busybox-static                   # runs pods in tests
)
# Somebody else's kubectl does as well, and two packages cannot both have the file.
command -v kubectl >/dev/null || PACKAGES+=(kubernetes-client)
SERVERS=(nats-server knot unbound nginx gobgpd bird frr dnsdist prometheus containerd)   # Debian starts one of each; Cirri starts those it needs itself
PYTHON=/usr/bin/python3

fail() { printf 'cirri setup: %s\n' "$1" >&2; exit 1; }

# --- can this machine serve? ---------------------------------------------------------------------

debian() {  # 12, which every check runs on, or 13, or what is made of them, in os-release(5)'s words
  . /etc/os-release 2>/dev/null || return 1
  case "${DEBIAN_CODENAME:-${VERSION_CODENAME:-}}" in bookworm|trixie) ;; *) return 1 ;; esac
}
name() { (. /etc/os-release 2>/dev/null && echo "${PRETTY_NAME:-${ID:-$(uname -s)}}") || uname -s; }
mighty() {  # CAP_NET_ADMIN and CAP_SYS_ADMIN, which the root of a plain container has not
  local held=$((16#$(sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status)))
  (( held >> 12 & 1 && held >> 21 & 1 ))
}

(debian) && command -v apt-get >/dev/null || fail "needs Debian 12 or 13, and this is $(name)."
[ -r /sys/kernel/btf/vmlinux ] ||
  fail "needs a kernel built with CONFIG_DEBUG_INFO_BTF=y, as Debian's are, and $(uname -r) has no /sys/kernel/btf/vmlinux."
grep -qw cgroup2 /proc/filesystems ||
  fail "needs a kernel with cgroup v2 (CONFIG_CGROUPS=y, no cgroup_no_v2=all at boot), and $(uname -r) is without."
grep -qw bpf /proc/filesystems ||
  fail "needs a kernel with the BPF file system (CONFIG_BPF_SYSCALL=y), and $(uname -r) is without."
[ "$(id -u)" = 0 ] || fail "must run as root (sudo make setup), because it installs packages."
mighty || fail "needs CAP_NET_ADMIN and CAP_SYS_ADMIN, which this container withholds (docker run --privileged gives them)."

# One at a time on a machine: two would meet in apt's lists and in .venv.  The lock is on a folder
# that is always there, and lasts as long as a pip that outlives a killed set-up.
exec 9</var/lib/apt
flock -n 9 || { echo "waiting for another set-up to end"; flock 9; }

log=$(mktemp)
trap 'rm -f "$log"; permit' EXIT
complaints() {  # why, in the words of apt, dpkg or pip: a broken connection explains what follows it
  grep -m 1 'connection broken' "$log" || grep -m 5 -E '^ *(E:|W:|dpkg: error|ERROR:)' "$log" || tail -n 5 "$log"
} >&2
did=

# --- Debian --------------------------------------------------------------------------------------

apt() { DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@" </dev/null >>"$log" 2>&1 9<&-; }
install_missing() { apt install -y --no-install-recommends "${missing[@]}"; }
# invoke-rc.d(8) asks this file whether it may start a server.  Somebody's own stays; a killed set-up's goes.
policy=/usr/sbin/policy-rc.d
permit() { if grep -qs '^# cirri setup' "$policy"; then rm -f "$policy"; fi; }
forbid() { [ -e "$policy" ] || { printf '#!/bin/sh\n# cirri setup\nexit 101\n' >"$policy" && chmod 755 "$policy"; }; }
refresh() {  # apt waits for dpkg's lock by itself, but not for the one on the lists (apt-daily holds it after a boot)
  local until=$((SECONDS + 120))
  until apt update; do
    tail -n 3 "$log" | grep -q 'Could not get lock' && [ $SECONDS -lt $until ] || return 0
    sleep 1
  done
}

missing=()
for package in "${PACKAGES[@]}"; do
  [ "$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null)" = "install ok installed" ] || missing+=("$package")
done
permit
if [ ${#missing[@]} -gt 0 ]; then
  did=1
  echo "installing from Debian: ${missing[*]}"
  forbid
  # A fresh machine has no package lists, an old one stale lists, an interrupted one unpacked
  # packages: try, put that right, try again.
  install_missing || { dpkg --configure -a >>"$log" 2>&1 9<&- || true; : >"$log"; refresh; install_missing; } ||
    { complaints; fail "apt-get could not install ${missing[*]}, see above; put that right and run it again."; }
  permit
  for server in "${SERVERS[@]}"; do  # nor at the next boot, unless it was there before and may be meant
    case " ${missing[*]} " in *" $server"[\ -]*)
      [ ! -d /run/systemd/system ] || systemctl disable --now "$server" >/dev/null 2>&1 || true ;;
    esac
  done
fi

# --- PyPI ----------------------------------------------------------------------------------------

# The stamp is written last and holds what .venv was made from: nothing to do while it is unchanged.
# Without one, or made elsewhere or for another Python, .venv is begun anew; else it is brought up to date.
stamp=.venv/.cirri-stamp
where="$PWD, $("$PYTHON" -V)"
from=$(cat pyproject.toml deploy/constraints.txt | sha256sum)
if [ "$(cat "$stamp" 2>/dev/null)" != "$where"$'\n'"$from" ] || [ ! -x .venv/bin/cirri ]; then
  did=1
  echo "installing from PyPI into .venv"
  [ "$(head -n 1 "$stamp" 2>/dev/null)" = "$where" ] && [ -x .venv/bin/cirri ] || "$PYTHON" -m venv --clear .venv
  rm -f "$stamp"
  pip() { PIP_USER=0 PIP_CONSTRAINT=deploy/constraints.txt .venv/bin/python -m pip --disable-pip-version-check "$@" >"$log" 2>&1; }
  pip install -e '.[dev]' ||
    { complaints; fail "pip could not install the Python packages, see above; put that right and run it again."; }
  # What an earlier version needed and this one does not.
  mapfile -t unwanted < <(.venv/bin/python -m pip --disable-pip-version-check list --format=freeze --exclude-editable \
    --exclude pip --exclude setuptools | cut -d= -f1 | grep -vixFf <(cut -d= -f1 deploy/constraints.txt))
  [ ${#unwanted[@]} = 0 ] || pip uninstall -y "${unwanted[@]}" || { complaints; fail "pip could not remove ${unwanted[*]}."; }
  printf '%s\n%s\n' "$where" "$from" >"$stamp"
fi

# --- compiled programs ---------------------------------------------------------------------------

for folder in bpf services/cirri/cni libs/cirri/maglev libs/cirri/hubble services/cirri/dnsproxy/core services/cirri/bgp services/cirri/sensor; do
  make -q -C "$folder" >/dev/null 2>&1 && continue
  did=1
  echo "compiling $folder"
  make --no-print-directory -s -C "$folder" >"$log" 2>&1 || { cat "$log" >&2; fail "$folder does not compile, see above."; }
done

[ -z "$did" ] || echo "set up in $SECONDS s; make demo shows it at work, make help lists the rest"
