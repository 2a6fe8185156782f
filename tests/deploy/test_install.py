"""What ``setup.sh`` does on a machine that can serve, again, half-way and at once."""

import re
import shutil
import subprocess
import time
from importlib.metadata import distributions
from pathlib import Path

from .conftest import DONE, ROOT, Clone

AGAIN = r"installing from PyPI into .venv\nset up in \d+ s; .*\n"


def builds(clone: Clone) -> int:
    file = clone.folder / "builds"
    return file.read_text().count("built") if file.exists() else 0


def built(clone: Clone) -> None:
    """Returns when pip is in the middle of it."""
    deadline = time.monotonic() + 30
    while not builds(clone):
        assert time.monotonic() < deadline, "pip does not build"
        time.sleep(0.01)


def test_again(ready: Clone) -> None:
    """Nothing is done, said or written."""
    before, built_before = ready.files(), builds(ready)
    assert ready.setup() == (0, "", "")
    assert ready.files() == before
    assert builds(ready) == built_before


def test_changed_needs(ready: Clone) -> None:
    """.venv is brought up to date in place, and loses what is not needed any longer."""
    packages = next((ready.folder / ".venv/lib").glob("python*/site-packages"))
    info = packages / "gone-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gone\nVersion: 1.0\n")
    (info / "RECORD").write_text("gone.py,,\ngone-1.0.dist-info/METADATA,,\ngone-1.0.dist-info/RECORD,,\n")
    (packages / "gone.py").touch()
    kept = (ready.folder / ".venv/pyvenv.cfg").stat().st_mtime_ns
    with (ready.folder / "pyproject.toml").open("a") as project:
        project.write("# another line\n")
    code, said, complaints = ready.setup()
    assert (code, complaints) == (0, "")
    assert re.fullmatch(AGAIN, said), said
    assert not (packages / "gone.py").exists()
    assert (ready.folder / ".venv/pyvenv.cfg").stat().st_mtime_ns == kept


def test_moved(ready: Clone) -> None:
    """The programs of .venv hold its path: in a clone that was moved, it is made anew."""
    shutil.copytree(ready.folder / ".venv", ready.folder / "moved/.venv", symlinks=True)
    for part in ("deploy", "pyproject.toml", "backend.py", "bpf", "services", "libs", "tmp"):
        source = ready.folder / part
        target = ready.folder / "moved" / part
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    moved = Clone(ready.folder / "moved")
    assert moved.setup()[0] == 0
    assert (moved.folder / ".venv/bin/cirri").read_text().startswith(f"#!{moved.folder}/")


def test_killed(clone: Clone) -> None:
    """Killed in the middle: a pip that goes on alone is waited for, and its work is begun anew."""
    hold = clone.folder / "hold"
    hold.touch()
    process = clone.start()
    again: subprocess.Popen[str] | None = None
    try:
        built(clone)
        process.kill()
        process.wait(10)
        assert not clone.stamp.exists()
        again = clone.start()
        assert again.stdout is not None
        assert again.stdout.readline() == "waiting for another set-up to end\n"
        hold.unlink()
        said, complaints = again.communicate(timeout=60)
        assert (again.returncode, complaints) == (0, "")
        assert re.fullmatch(DONE, said), said
        assert clone.setup() == (0, "", "")
    finally:
        hold.unlink(missing_ok=True)
        for started in filter(None, (process, again)):
            started.kill()
            started.communicate()


def test_at_once(clone: Clone) -> None:
    """Of two, one works and the other finds it done."""
    first, second = clone.start(), clone.start()
    said = sorted(process.communicate(timeout=60)[0] for process in (first, second))
    assert (first.returncode, second.returncode) == (0, 0)
    assert re.fullmatch(DONE, said[0]), said
    assert said[1] == "waiting for another set-up to end\n"
    assert builds(clone) == 1


def test_pip_fails(clone: Clone) -> None:
    project = clone.folder / "pyproject.toml"
    project.write_text(project.read_text().replace("requires = []", 'requires = ["hatchling"]'))
    code, _, complaints = clone.setup()
    *why, last = complaints.splitlines()
    assert code == 1
    assert any(line.strip().startswith("ERROR: No matching distribution found for hatchling") for line in why)
    assert last == (
        "cirri setup: pip could not install the Python packages, see above; put that right and run it again."
    )
    assert not clone.stamp.exists()


def test_apt_fails(clone: Clone) -> None:
    """A package is missing and no index answers; nothing of the real machine's is touched."""
    state = clone.folder / "state"
    for part in ("dpkg/info", "dpkg/updates", "dpkg/triggers", "lists/partial", "cache/archives/partial"):
        (state / part).mkdir(parents=True)
    installed = Path("/var/lib/dpkg/status").read_text()
    (state / "dpkg/status").write_text(re.sub(r"(?ms)^Package: nats-server\n.*?\n\n", "", installed))
    (state / "sources").write_text("deb [trusted=yes] http://127.0.0.1:1/debian bookworm main\n")
    (state / "apt.conf").write_text(
        f'Dir::State "{state}"; Dir::State::status "{state}/dpkg/status"; Dir::Cache "{state}/cache";\n'
        f'Dir::Etc::sourcelist "{state}/sources"; Dir::Etc::sourceparts "-"; Dir::Log "{state}";\n'
        'Acquire::Retries "0";\n'
    )
    code, said, complaints = clone.setup(DPKG_ADMINDIR=f"{state}/dpkg", APT_CONFIG=f"{state}/apt.conf")
    *why, last = complaints.splitlines()
    assert (code, said) == (1, "installing from Debian: nats-server\n")
    assert any("127.0.0.1:1" in line for line in why), complaints
    assert last == (
        "cirri setup: apt-get could not install nats-server, see above; put that right and run it again."
    )
    assert not (clone.folder / ".venv").exists()
    assert list(clone.tmp.iterdir()) == []


def test_programs_do_not_compile(ready: Clone) -> None:
    rules = ready.folder / "bpf/Makefile"
    good = rules.read_text()
    rules.write_text("new:\n\t@echo bpf_pod.c:1: error; exit 1\n")
    try:
        code, said, complaints = ready.setup()
    finally:
        rules.write_text(good)
    assert (code, said) == (1, "compiling bpf\n")
    assert complaints.startswith("bpf_pod.c:1: error\n")
    assert complaints.endswith("\ncirri setup: bpf does not compile, see above.\n")


def test_every_package_is_pinned() -> None:
    """``constraints.txt`` lists what is installed, all of it and nothing else."""
    lines = (ROOT / "deploy/constraints.txt").read_text()
    pinned, built_with = (
        {line.lower() for line in part.splitlines() if line and not line.startswith("#")}
        for part in lines.split("\n\n")
    )
    found = {f"{d.metadata['Name']}=={d.version}".lower() for d in distributions()}
    bare = {entry for entry in found if entry.split("==")[0] in {"pip", "setuptools", "cirri"}}
    assert {entry.replace("-", "_") for entry in found - bare} == {
        entry.replace("-", "_") for entry in pinned
    }
    assert "hatchling" in {entry.split("==")[0] for entry in built_with}


def test_make_prints_help() -> None:
    said = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    listed = re.findall(r"^  make (\S+) +\S", said, re.M)
    assert listed[:4] == ["help", "setup", "build", "demo"]
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert {*listed} == {*phony.split()} >= {"test", "lint", "bench", "clean"}
