"""deploy/images: an image for each service, of what it needs, named and run as the chart says."""

import re
import sys
import tomllib

import grimp
import pytest

from cirri.testing.docs import ROOT, services
from cirri.testing.rendering import pods, render

DOCKERFILE = (ROOT / "deploy/images/Dockerfile").read_text()
STAGES = {
    name: (base, text)
    for base, name, text in re.findall(r"^FROM (\S+) AS (\S+)\n(.*?)(?=^FROM |\Z)", DOCKERFILE, re.M | re.S)
}
APART = {"envoy": "l7proxy", "kubernetes": "kubernetes"}
"""Packages outside the common layer, and the folder that they are put into."""
ABSENT = {"click", "dns", "grpc_tools", "hypothesis", "jsonschema", "scapy"}
OTHERS = ("cirri.testing", "cirri.lab", "cirri.cli")


def ancestors(stage: str) -> list[str]:
    """*stage* and what it is made from, as far as these are stages."""
    found = []
    while stage in STAGES:
        found.append(stage)
        stage = STAGES[stage][0]
    return found


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    roots = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"]
    return grimp.build_graph(*roots, include_external_packages=True, cache_dir=None)


def test_every_service_has_an_image() -> None:
    assert {n.removeprefix("service-") for n in STAGES if n.startswith("service-")} == {
        s.name for s in services()
    }


@pytest.mark.parametrize("service", services(), ids=lambda s: s.name)
def test_an_image_is_what_its_service_needs(service: object, graph: grimp.ImportGraph) -> None:
    name, scope = service.name, service.scope  # type: ignore[attr-defined]
    package = f"cirri.{name}"
    needed = {
        upstream
        for module in (package, *graph.find_descendants(package))
        for upstream in graph.find_upstream_modules(module)
    }
    assert not {m for m in needed if m.startswith(tuple(f"{o}." for o in OTHERS)) or m in OTHERS}
    assert not needed & (ABSENT - sys.stdlib_module_names)
    text = STAGES[f"service-{name}"][1]
    for third_party, folder in APART.items():
        assert (third_party in needed) == (f"/opt/cirri/apart/{folder} " in text), third_party
    assert f'CMD ["cirri-{name}"]' in text
    assert ("unprivileged" in ancestors(f"service-{name}")) == (scope == "cluster")


def test_the_chart_runs_these_images() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    images = {
        c["image"] for name, pod in pods(render()).items() for c in pod["containers"] if name != "cirri-nats"
    }
    assert images <= {f"cirri/{s.name}:{version}" for s in services()}
    assert "USER 65532:65532" in STAGES["unprivileged"][1]
