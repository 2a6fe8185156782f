"""The rules that the tree promises, checked on the tree."""

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SERVICES = sorted(p.parent.name for p in (ROOT / "services/cirri").glob("*/__init__.py"))
PROGRAMS = {"cli", "lab", "cni"}
"""Not services: they have no contract, and the lab and the command line may read contracts."""


def imported(file: Path) -> set[str]:
    """Second components of every ``cirri.…`` import in *file*."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module] + [f"{node.module}.{alias.name}" for alias in node.names]
        found |= {n.split(".")[1] for n in names if n.startswith("cirri.") and n.count(".")}
    return found


def python_files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("half", ["libs", "services"])
def test_cirri_stays_a_namespace(half: str) -> None:
    assert not (ROOT / half / "cirri/__init__.py").exists(), "it would hide the other half of cirri.*"


@pytest.mark.parametrize("file", python_files("libs"), ids=lambda p: str(p.relative_to(ROOT)))
def test_libraries_know_no_service(file: Path) -> None:
    assert not imported(file) & set(SERVICES)


@pytest.mark.parametrize("name", sorted(set(SERVICES) - PROGRAMS))
def test_services_import_no_service(name: str) -> None:
    for file in (ROOT / "services/cirri" / name).rglob("*.py"):
        assert not imported(file) & (set(SERVICES) - {name}), file


@pytest.mark.parametrize("name", sorted(set(SERVICES) - PROGRAMS))
def test_service_says_what_it_is(name: str) -> None:
    package = import_module(f"cirri.{name}")
    assert package.SERVICE.name == name
    for word in ("Reads", "Writes", "Needs"):
        assert re.search(rf"^{word}\b", package.__doc__ or "", re.M), f"cirri.{name}: {word}?"


def test_each_bucket_has_the_writer_it_names() -> None:
    from cirri.model import BUCKETS
    from cirri.testing.docs import services

    writers = {b.name: [s.name for s in services() if b in s.writes] for b in BUCKETS if b.writer != "*"}
    assert writers == {b.name: [b.writer] for b in BUCKETS if b.writer != "*"}


def test_each_map_has_one_writer() -> None:
    from cirri.testing.docs import services

    maps = [name for s in services() for name in s.maps]
    declared = re.findall(
        r"(?:^MAP(?:_FLAGS)?\(|^\} )(cirri_\w+)",
        "\n".join(p.read_text() for p in sorted((ROOT / "bpf/lib").glob("*.h"))),
        re.M,
    )
    assert sorted(maps) == sorted(declared)


@pytest.mark.parametrize("part", ["picture", "services", "buckets"])
def test_readmes_say_what_the_code_says(part: str) -> None:
    from cirri.testing.docs import PARTS, written

    assert written(part) == PARTS[part][1](), "run: .venv/bin/python -m cirri.testing.docs"


def test_nothing_names_a_machine_or_a_registry() -> None:
    words = re.compile(r"files\.pythonhosted|pypi\.org|registry\.npmjs|deb\.debian\.org|/root/")
    for file in [
        ROOT / "deploy/constraints.txt",
        ROOT / "Makefile",
        *sorted((ROOT / "deploy").rglob("*.sh")),
    ]:
        assert not words.search(file.read_text()), file
