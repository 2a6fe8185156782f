"""Load every program file into the kernel that runs, and say what it has: for kernels that `run.sh` boots."""

import sys
import tempfile
from pathlib import Path

from cirri.datapath import probe
from cirri.maps import BpfError, Objects
from cirri.maps.load import OBJECTS
from cirri.sensor.kernel import OBJECT as SENSOR


def main() -> int:
    """0 if all can be loaded."""
    kernel = probe.look()
    for name, text in probe.summary(kernel).items():
        print(f"{name}: {text}")
    print(f"security modules: {_security_modules()}")
    probe.require(kernel)
    failed = 0
    with tempfile.TemporaryDirectory(dir="/run") as logs:
        for name in (*OBJECTS, SENSOR):
            try:
                with Objects.load(
                    "bpf/build", "/sys/fs/bpf/load", names=[name], log_directory=logs
                ) as programs:
                    print(f"{name}: loaded ({', '.join(programs)})")
            except BpfError as error:
                failed += 1
                tails = ["".join(path.open().readlines()[-12:]) for path in Path(logs).iterdir()]
                print(f"{name}: {error}", *tails, sep="\n")
    return failed


def _security_modules() -> str:
    """Those that are active; ``bpf`` is what LSM programs need."""
    try:
        return Path("/sys/kernel/security/lsm").read_text().strip()
    except OSError:
        return "not told: securityfs is not mounted"


if __name__ == "__main__":
    sys.exit(main())
