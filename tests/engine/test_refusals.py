"""What manifests refuse the engine refuses too, and the good ones it takes."""

from pathlib import Path

import pytest

from cirri.engine import faults
from cirri.manifests import KINDS, POLICY_KINDS, ManifestError, load, resources
from cirri.model import Resource
from cirri.testing.cases import WrongManifest, wrong_manifests

MANIFESTS = Path(__file__).parents[1] / "manifests"
SCOPE = {"namespace of a cluster-wide kind"}
"""Refused for what the engine does not look at."""


def _policies(text: str) -> list[Resource]:
    """Policies of *text* as they are written, be they right or wrong."""
    try:
        documents = load(["-"], text)
    except ManifestError:
        return []
    found = []
    for document in documents:
        manifest = document.manifest if isinstance(document.manifest, dict) else {}
        if (kind := str(manifest.get("kind"))) not in POLICY_KINDS:
            continue
        namespace = "default" if KINDS[kind].namespaced else ""
        found.append(Resource(kind=kind, namespace=namespace, name="a", manifest=manifest))
    return found


CASES = wrong_manifests(MANIFESTS / "wrong.txt")
WRONG = [case for case in CASES if _policies(case.text) and case.id not in SCOPE]


@pytest.mark.parametrize("case", WRONG, ids=lambda case: case.id)
def test_refused_by_both(case: WrongManifest) -> None:
    for policy in _policies(case.text):
        assert faults(policy)


@pytest.mark.parametrize("file", sorted((MANIFESTS / "good").glob("*.yaml")), ids=lambda file: file.stem)
def test_taken_by_both(file: Path) -> None:
    for resource in resources([str(file)]):
        if resource.kind in POLICY_KINDS:
            assert faults(resource) == []


def test_there_are_many() -> None:
    assert len(WRONG) > 25
