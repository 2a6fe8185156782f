#!/usr/bin/env bash
# Every test.  Removes what an earlier run left, and what this one leaves even when it fails;
# arguments go to pytest.
set -uo pipefail
cd "$(dirname "$0")/.."

sweep() { .venv/bin/python -m cirri.testing.leftovers "$@"; }

mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf
sweep
trap sweep EXIT
.venv/bin/pytest -q --durations=15 "$@" || exit $?
sweep --fail || { echo "the tests passed but left the above behind" >&2; exit 1; }
