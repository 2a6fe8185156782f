"""``deploy/test.sh``: what it removes, what it mounts, and what it says at the end.

It runs here in a machine of its own (mounts, network, ``/run``), as it would sweep away what the
test run around it has made.
"""

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import ROOT

MACHINE = """
mount -t sysfs sysfs /sys; mount -t tmpfs tmpfs /run
[ ! -d /var/lib/cirri ] || mount -t tmpfs tmpfs /var/lib/cirri
exec deploy/test.sh -p no:cacheprovider "$@"
"""
PASSES = """
def test_it(): pass
"""
FAILS = """
import subprocess
def test_it():
    subprocess.run(["ip", "netns", "add", "cirri-test-left"], check=True)
    assert not "broken"
"""
LEAVES = """
import subprocess
def test_it(): subprocess.run(["ip", "netns", "add", "cirri-test-left"], check=True)
"""
MOUNTED = """
import os
def test_it(): assert os.path.ismount("/sys/fs/bpf")
"""
STDIN = """
import os
def test_it(): assert os.read(0, 1) == b""
"""
NOTHING = ""
HANGS = """
import subprocess, time, pytest
from pathlib import Path
@pytest.fixture
def thing():
    yield
    Path(__file__).with_name("removed").touch()
def test_it(thing):
    subprocess.run(["ip", "netns", "add", "cirri-test-left"], check=True)
    Path(__file__).with_name("started").touch()
    time.sleep(60)
"""
SWEPT = "removed: namespace cirri-test-left\n"


def start(folder: Path, text: str, *options: str) -> subprocess.Popen[str]:
    file = folder / "test_it.py"
    file.write_text(text)
    return subprocess.Popen(
        [
            "unshare",
            "--mount",
            "--net",
            "--propagation",
            "private",
            "sh",
            "-euc",
            MACHINE,
            "sh",
            str(file),
            *options,
        ],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("text", "code", "complaints"),
    [
        (PASSES, 0, ""),
        (FAILS, 1, SWEPT),
        (LEAVES, 1, SWEPT + "cirri test: the tests passed but left the above behind\n"),
        (NOTHING, 5, ""),
        (MOUNTED, 0, ""),
        (STDIN, 0, ""),
    ],
    ids=["passes", "fails and leaves", "passes and leaves", "no test", "BPF file system", "no input"],
)
def test_end(tmp_path: Path, text: str, code: int, complaints: str) -> None:
    process = start(tmp_path, text)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (code, complaints), out


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = start(tmp_path, HANGS, "-n2")
    try:
        deadline = time.monotonic() + 30
        while not (tmp_path / "started").exists():
            assert time.monotonic() < deadline, "the test does not start"
            time.sleep(0.01)
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted(hanging: subprocess.Popen[str], tmp_path: Path, number: int, code: int) -> None:
    """Fixtures clean up, leftovers are swept, and the exit code tells the signal."""
    hanging.send_signal(number)
    _, err = hanging.communicate(timeout=30)
    assert (hanging.returncode, err) == (code, f"cirri test: interrupted\n{SWEPT}")
    assert (tmp_path / "removed").exists()
