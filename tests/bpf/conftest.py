"""The shipped programs, compiled as they ship and loaded once for this folder's tables."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("cirri.testing.packets")

from cirri.testing.datapath import ROOT, World, world  # noqa: E402 - what it asserts is to be shown
from cirri.testing.two_nodes import TwoNodes  # noqa: E402


@pytest.fixture(scope="session")
def built() -> Path:
    """Directory of the compiled programs, as new as their sources."""
    subprocess.run(["make", "-s", "-C", str(ROOT / "bpf")], check=True, timeout=120)
    return ROOT / "bpf" / "build"


@pytest.fixture(scope="session")
def shared_world(built: Path) -> Iterator[World]:
    """One world for all tables: rows begin with nothing known."""
    with world() as made:
        yield made


@pytest.fixture(scope="module")
def nodes(built: Path) -> Iterator[TwoNodes]:
    """Two nodes without any policy, with real traffic."""
    made = TwoNodes()
    try:
        made.start()
        yield made
    finally:
        made.stop()
