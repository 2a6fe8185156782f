#!/usr/bin/env bash
# Every test.  Removes what an earlier run left, and what this one leaves even when it fails or is
# interrupted; arguments go to pytest.  A run has LIMIT seconds, and a test that takes five minutes
# says where it hangs.
set -uo pipefail
cd "$(dirname "$0")/.."
LIMIT=${LIMIT:-3600}

unset PYTHONDONTWRITEBYTECODE  # or every process would compile all that it imports, pytest all tests

sweep() { .venv/bin/python -m cirri.testing.leftovers "$@"; }
say() { printf 'cirri test: %s\n' "$1" >&2; }

# A machine with systemd has it mounted, others have not.
[ "$(stat -f -c %T /sys/fs/bpf 2>/dev/null)" = bpf_fs ] || mount -t bpf bpf /sys/fs/bpf || { say "cannot mount the BPF file system on /sys/fs/bpf"; exit 1; }
sweep

# In a process group of its own, so that pytest is interrupted once, by us, whoever got the signal:
# it then runs the clean-up of its fixtures.  Interrupted again, or after a minute, it is killed.
interrupted= tests= status=0
interrupt() {
  [ -z "$interrupted" ] && kill -INT "$tests" || kill -KILL -- "-$tests"
  interrupted=$1
} 2>/dev/null
trap 'interrupt 130' INT
trap 'interrupt 143' TERM HUP

run() {  # pytest with these arguments, in what is left of LIMIT; status is of the first run that failed
  [ -z "$interrupted" ] && [ "$status" != 124 ] || return
  local code
  set -m
  timeout --foreground --signal=INT --kill-after=60 "$((LIMIT > SECONDS ? LIMIT - SECONDS : 1))" \
    .venv/bin/pytest -q --durations=15 -o faulthandler_timeout=300 "$@" </dev/null &
  tests=$!
  set +m
  while wait "$tests"; code=$?; kill -0 "$tests" 2>/dev/null; do :; done
  (( status && code != 124 )) || status=$code
}

if [ $# != 0 ]; then
  run "$@"
else
  # Two processes share the files, those of nodes and labs when the rest is done; what is timed has the machine
  # to itself at last.
  # The long ones first, so that neither process is left with one at the end.
  # (One seed for all: the processes share an order of tests, and what is random fails again as it failed.)
  export PYTHONHASHSEED=0
  run -n 2 --dist loadfile --no-loadscope-reorder --ignore=integration/{lab,node,timed} integration tests
  run -n 2 --dist loadfile --no-loadscope-reorder integration/{lab,node}
  [ ! -d integration/timed ] || run integration/timed
fi
trap '' INT TERM HUP

[ -n "$interrupted" ] && status=$interrupted && say "interrupted"
[ "$status" != 124 ] || say "not done after $LIMIT s, stopped"
if [ "$status" = 0 ]; then
  sweep --fail || { say "the tests passed but left the above behind"; status=1; }
else
  sweep
fi
exit "$status"
