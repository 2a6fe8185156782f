#!/usr/bin/env bash
# Under Debian's own kernel, in a virtual machine: every program loads, and packet tables come out as here.
#   deploy/kernels.sh [TEST_FILE...]
# Installs qemu and busybox if they are missing.  Not part of `make test`: without KVM it takes minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
missing=
command -v "${QEMU:-qemu-system-x86_64}" >/dev/null || missing=qemu-system-x86
[ -x "${BUSYBOX:-/bin/busybox}" ] || missing="$missing busybox-static"
if [ -n "$missing" ]; then
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi
[ $# -gt 0 ] || set -- tests/bpf/test_{policy,forward,sock}.py
pytest=".venv/bin/python -m pytest -q --color=no --tb=short -rf -p no:cacheprovider -p no:xdist"
exec integration/kernel/run.sh /bin/sh -c ".venv/bin/python integration/kernel/load.py && $pytest $*"
