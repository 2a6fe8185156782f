"""The main job: what a stranger sees who types ``make demo``."""

import os
import subprocess
import time

import pytest

from cirri.testing.lab import CIRRI

DEMO_S = 60.0


@pytest.mark.parametrize("options", [(), ("--routing", "tunnel")], ids=["native", "tunnel"])
def test_demo(options: tuple[str, ...]) -> None:
    name = f"test-{os.getpid()}-demo"
    began = time.monotonic()

    done = subprocess.run(
        [CIRRI, "lab", "demo", "--name", name, *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "DIFFERENT" not in done.stdout
    assert "steps as expected" in done.stdout
    assert "\x1b[" not in done.stdout, "colours belong on terminals alone"
    assert not [n for n in os.listdir("/run/netns") if n.startswith(f"cirri-{name}-")]
    assert time.monotonic() - began < DEMO_S
