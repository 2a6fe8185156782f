"""A clone that is not set up yet, and the real ``setup.sh`` run in it on a doctored machine.

What the machine lacks is hidden in a private mount namespace; the clone's Python project needs no
index, so that pip runs for real and without a network.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRIVATE = ("unshare", "--mount", "--propagation", "private", "sh", "-euc")
HIDDEN = 'n=$1; shift; while [ "$n" -gt 0 ]; do mount --bind "$1" "$2"; shift 2; n=$((n-1)); done; exec "$@"'
BACKEND = Path(__file__).with_name("backend.py")
SETUP = (ROOT / "deploy/setup.sh").read_text()
COMPILED = re.findall(r"^for folder in (.+); do$", SETUP, re.MULTILINE)[0].split()
"""Folders that it compiles."""
DONE = rf"installing from PyPI into .venv\n(compiling \S+\n){{{len(COMPILED)}}}set up in \d+ s; .*demo.*\n"
"""What is said when all of it was done (but Debian's part)."""
PROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""


@dataclass(frozen=True, slots=True)
class Clone:
    """A clone in *folder*, with a temporary folder and a home of its own."""

    folder: Path

    @property
    def tmp(self) -> Path:
        return self.folder / "tmp"

    @property
    def stamp(self) -> Path:
        return self.folder / ".venv/.cirri-stamp"

    def environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
        return {**kept, "HOME": str(self.tmp), "TMPDIR": str(self.tmp), "PIP_NO_INDEX": "1", **extra}

    def start(
        self, *words: str, hide: Mapping[str, str | None] | None = None, **environment: str
    ) -> subprocess.Popen[str]:
        """``WORDS deploy/setup.sh`` with each path of *hide* replaced by a text, or by an empty folder."""
        mounts: list[str] = []
        for number, (path, text) in enumerate((hide or {}).items()):
            shown = self.folder / f"hidden-{number}"
            shown.mkdir() if text is None else shown.write_text(text)
            mounts += [str(shown), path]
        count = str(len(mounts) // 2)
        return subprocess.Popen(
            [*PRIVATE, HIDDEN, "sh", count, *mounts, *words, str(self.folder / "deploy/setup.sh")],
            env=self.environment(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def setup(
        self, *words: str, hide: Mapping[str, str | None] | None = None, **environment: str
    ) -> tuple[int, str, str]:
        """Exit code, standard output and standard error of :meth:`start`."""
        process = self.start(*words, hide=hide, **environment)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def files(self) -> dict[str, int]:
        """Every path that set-up could have written, files with their times."""
        paths = [p for p in self.folder.rglob("*") if "hidden-" not in p.name]
        mine = {str(p): 0 if p.is_dir() else p.lstat().st_mtime_ns for p in paths}
        status = Path("/var/lib/dpkg/status")
        return {**mine, str(status): status.stat().st_mtime_ns}


@contextmanager
def fresh() -> Iterator[Clone]:
    """A clone that is removed at the end."""
    # Not pytest's own folder: that one is closed to other users than root.
    folder = Path(tempfile.mkdtemp(prefix="cirri-test-setup-", dir="/tmp"))
    try:
        folder.chmod(0o755)
        (folder / "deploy").mkdir()
        (folder / "tmp").mkdir()
        shutil.copy(ROOT / "deploy/setup.sh", folder / "deploy")
        (folder / "deploy/constraints.txt").write_text("cirri==0.1.0\n")
        (folder / "pyproject.toml").write_text(PROJECT)
        shutil.copy(BACKEND, folder)
        for part in COMPILED:
            (folder / part).mkdir(parents=True)
            (folder / part / "Makefile").write_text("made:\n\ttouch made\n")
        yield Clone(folder)
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def clone() -> Iterator[Clone]:
    """One that is not set up."""
    with fresh() as made:
        yield made


@pytest.fixture(scope="module")
def ready() -> Iterator[Clone]:
    """One that was set up."""
    with fresh() as made:
        code, said, complaints = made.setup()
        assert (code, complaints) == (0, "")
        assert re.fullmatch(DONE, said), said
        yield made
