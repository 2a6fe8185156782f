"""Programs of this folder, compiled once, and a directory for pins that is gone after each test.

These tests speak to the real kernel, as root; ``tests/bpf`` does so with the shipped programs.
"""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from cirri.maps import Objects, Programs

HERE = Path(__file__).resolve().parent
BPF = HERE.parents[1] / "bpf"


@pytest.fixture(scope="session")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of the compiled programs."""
    directory = tmp_path_factory.mktemp("objects")
    for source in sorted(HERE.glob("*.c")):
        subprocess.run(
            [
                *("clang", "-O2", "-g", "-Wall", "-Werror", "-Wno-unused-function"),
                *("-target", "bpf", "-mcpu=v3"),
                *(f"-I{BPF}", f"-I{BPF}/lib"),
                *("-I/usr/include/x86_64-linux-gnu", "-I/usr/include/aarch64-linux-gnu"),
                *("-c", str(source), "-o", str(directory / f"{source.stem}.o")),
            ],
            check=True,
            timeout=60,
        )
    return directory


@pytest.fixture
def bpffs() -> Iterator[Path]:
    """A directory for pins."""
    path = Path(f"/sys/fs/bpf/cirri-test-{uuid4().hex[:12]}")
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def kinds(objects: Path, bpffs: Path) -> Iterator[Programs]:
    """``kinds.c`` loaded, its maps pinned in *bpffs*."""
    with Objects.load(objects, bpffs, names=["kinds"]) as programs:
        yield programs
