"""The main job: what a stranger sees who types ``make demo``, in every way that it can be had."""

import os
import subprocess
import time

from cirri.testing.lab import CIRRI

DEMO_S = 180.0
"""For both at once."""
WAYS = {
    "native": (),
    "tunnel": ("--routing", "tunnel", "--family", "6"),
}


def test_demo() -> None:
    """Both ways at once: for most of the time a demo waits for a ship that may not land."""
    began = time.monotonic()
    demos = {
        f"test-{os.getpid()}-demo-{way}": subprocess.Popen(
            [CIRRI, "lab", "demo", "--name", f"test-{os.getpid()}-demo-{way}", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for way, options in WAYS.items()
    }
    said = {name: demo.communicate(timeout=180)[0] for name, demo in demos.items()}

    for name, text in said.items():
        assert demos[name].returncode == 0, text
        assert "DIFFERENT" not in text
        assert "steps as expected" in text
        assert "\x1b[" not in text, "colours belong on terminals alone"
        assert not [n for n in os.listdir("/run/netns") if n.startswith(f"cirri-{name}-")]
    assert time.monotonic() - began < DEMO_S
