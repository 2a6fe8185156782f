#!/usr/bin/env bash
# Everything Cirri needs on this machine: Debian packages, .venv, compiled programs.
# Idempotent; checks first, so that a machine that cannot serve is left as it was.
set -euo pipefail
cd "$(dirname "$0")/.."

PACKAGES=(
  build-essential clang llvm libbpf1 libbpf-dev linux-libc-dev   # compile and load bpf/
  nats-server                                                    # the bus
  python3 python3-venv                                           # services
  iproute2 nftables util-linux curl iperf3 bpftool               # lab, demo, tests, benchmarks
  containernetworking-plugins                                    # peers of the CNI benchmark
)
PYTHON=/usr/bin/python3

fail() { printf 'cirri setup: %s\n' "$1" >&2; exit 1; }

[ "$(id -u)" = 0 ] || fail "must run as root, because it installs packages and loads kernel programs. Run: sudo make setup"
[ "$(uname -s)" = Linux ] || fail "needs Linux, this is $(uname -s)."
command -v apt-get >/dev/null && grep -qsE '^(ID|ID_LIKE)=.*(debian|ubuntu)' /etc/os-release ||
  fail "needs Debian 12 or a relative of it (apt-get), this is $(. /etc/os-release 2>/dev/null && echo "${PRETTY_NAME:-unknown}")."
[ -r /sys/kernel/btf/vmlinux ] ||
  fail "this kernel ($(uname -r)) has no BTF (/sys/kernel/btf/vmlinux). Boot one built with CONFIG_DEBUG_INFO_BTF=y, as Debian's are."
grep -qw cgroup2 /proc/filesystems ||
  fail "this kernel ($(uname -r)) has no cgroup v2. Boot one built with CONFIG_CGROUPS=y and without cgroup_no_v2=all."
grep -qw bpf /proc/filesystems ||
  fail "this kernel ($(uname -r)) has no BPF file system. Boot one built with CONFIG_BPF_SYSCALL=y."

missing=()
for package in "${PACKAGES[@]}"; do
  [ "$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null)" = "install ok installed" ] || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  echo "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  log=$(mktemp)
  # A fresh machine has no package lists, an old one stale lists: try, refresh, try again.
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$log" 2>&1 ||
    { apt-get update -qq >>"$log" 2>&1 &&
      apt-get install -y -qq --no-install-recommends "${missing[@]}" >>"$log" 2>&1; } ||
    { tail -n 5 "$log" >&2; fail "apt-get could not install ${missing[*]} (whole log: $log)."; }
  rm -f "$log"
  # Debian starts a server of its own on port 4222; Cirri starts the ones it needs itself.
  case " ${missing[*]} " in *" nats-server "*)
    [ -d /run/systemd/system ] && systemctl disable --now nats-server >/dev/null 2>&1 || true ;;
  esac
fi

# The stamp holds what the environment was made from: nothing to do while it is unchanged.
stamp=.venv/.cirri-stamp
want=$(cat pyproject.toml deploy/constraints.txt | sha256sum)
if [ "$(cat "$stamp" 2>/dev/null)" != "$want" ] || ! .venv/bin/python -c 'import cirri.model' 2>/dev/null; then
  echo "installing Python packages into .venv"
  [ -x .venv/bin/python ] || "$PYTHON" -m venv .venv
  .venv/bin/pip install -q --disable-pip-version-check --no-warn-script-location \
    -c deploy/constraints.txt -e '.[dev]' 2> >(grep -v WARNING >&2) || fail "pip could not install the Python packages."
  printf '%s\n' "$want" > "$stamp"
fi

make --no-print-directory -s -C bpf
make --no-print-directory -s -C services/cirri/cni
