"""``deploy/test.sh``: what it removes, what it mounts, and what it says at the end.

It runs here in a machine of its own (mounts, network, ``/run``), as it would sweep away what the
test run around it has made.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import ROOT

PRIVATELY = ("--propagation", "private", "sh", "-euc")
MACHINE = """
mount -t sysfs sysfs /sys; mount -t tmpfs tmpfs /run
[ ! -d /var/lib/cirri ] || mount -t tmpfs tmpfs /var/lib/cirri
PYTEST_ADDOPTS="-p no:cacheprovider" exec deploy/test.sh "$@"
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
    return machine(ROOT, str(file), *options)


def machine(root: Path, *arguments: str) -> subprocess.Popen[str]:
    """``deploy/test.sh ARGUMENTS`` of the clone *root*, where it can sweep nothing of ours away."""
    return subprocess.Popen(
        ["unshare", "--mount", "--net", *PRIVATELY, MACHINE, "sh", *arguments],
        cwd=root,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
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


@pytest.mark.parametrize(("first", "code"), [(PASSES, 0), (FAILS, 1)], ids=["passes", "fails"])
def test_labs_follow_in_any_case(tmp_path: Path, first: str, code: int) -> None:
    """Without arguments everything is tested: labs and nodes after the rest, then what is timed."""
    (tmp_path / "deploy").mkdir()
    shutil.copy(ROOT / "deploy/test.sh", tmp_path / "deploy")
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    folders = ("tests", "integration/lab", "integration/node", "integration/timed")
    for folder, text in zip(folders, (first, PASSES, PASSES, PASSES), strict=True):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / f"test_{Path(folder).name}.py").write_text(text)

    process = machine(tmp_path)
    out, _ = process.communicate(timeout=120)

    assert process.returncode == code, out
    parts = [out.find(words) for words in (f"1 {'failed' if code else 'passed'}", "2 passed")]
    assert 0 <= parts[0] < parts[1] < out.rfind("1 passed"), out


@pytest.fixture
def hanging(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    process = start(tmp_path, HANGS, *request.param)
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "started").exists():
            assert time.monotonic() < deadline, "the test does not start"
            time.sleep(0.01)
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.mark.parametrize(
    ("hanging", "number", "code"),
    [((), signal.SIGINT, 130), (("-n2",), signal.SIGTERM, 143)],
    indirect=["hanging"],
    ids=["one process", "two processes"],
)
def test_interrupted(hanging: subprocess.Popen[str], tmp_path: Path, number: int, code: int) -> None:
    """Fixtures clean up, leftovers are swept, and the exit code tells the signal."""
    hanging.send_signal(number)
    _, err = hanging.communicate(timeout=30)
    assert (hanging.returncode, err) == (code, f"cirri test: interrupted\n{SWEPT}")
    assert (tmp_path / "removed").exists()
