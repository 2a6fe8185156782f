"""What the service's modules load: its memory is taken on every node."""

import subprocess
import sys

LARGE = "{'numpy', 'pyroute2.netlink', 'grpc', 'google'}"


def test_nothing_large() -> None:
    code = f"import sys, cirri.sensor.keeper; print(*({LARGE} & sys.modules.keys()))"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert not found.strip(), "each takes 11 MB and more"
