"""Manifests as people have them are accepted, and say what they said."""

from pathlib import Path

import pytest

from cirri.manifests import KINDS, Document, check, load, resources

GOOD = sorted(Path(__file__).with_name("good").glob("*.yaml"))
EXAMPLES = sorted((Path(__file__).parents[2] / "deploy/examples").glob("*.yaml"))


@pytest.mark.parametrize("file", [*GOOD, *EXAMPLES], ids=lambda f: f.stem)
def test_accepted(file: Path) -> None:
    assert resources([str(file)])


def test_every_kind_is_there() -> None:
    assert {r.kind for r in resources([str(GOOD[0].parent)])} == set(KINDS)


@pytest.mark.parametrize(
    "document", load([str(f) for f in GOOD]), ids=lambda d: d.manifest["metadata"]["name"]
)
def test_reading_again_changes_nothing(document: Document) -> None:
    first = check(document)
    again = check(Document(first.manifest, file=first.source))
    assert again == first


def test_an_older_api_version_becomes_the_one_that_is_used() -> None:
    manifest = {
        "apiVersion": "cilium.io/v2alpha1",
        "kind": "CiliumCIDRGroup",
        "metadata": {"name": "a"},
        "spec": {"externalCIDRs": ["192.0.2.0/24"]},
    }
    assert check(Document(manifest)).manifest["apiVersion"] == "cilium.io/v2"


def test_nulls_are_dropped_and_empty_lists_stay() -> None:
    manifest = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "a", "labels": None},
        "spec": {"endpointSelector": {}, "ingress": [{"fromEndpoints": [], "toPorts": None}], "egress": None},
    }

    found = check(Document(manifest))

    assert found.namespace == "default"
    assert found.manifest["metadata"] == {"name": "a", "namespace": "default"}
    assert found.manifest["spec"] == {"endpointSelector": {}, "ingress": [{"fromEndpoints": []}]}


def test_defaults() -> None:
    service = check(
        Document(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "a"},
                "spec": {"ports": [{"port": 80}]},
            },
            file="a.yaml",
            line=3,
        )
    )

    assert service.manifest["spec"] == {
        "type": "ClusterIP",
        "sessionAffinity": "None",
        "ports": [{"port": 80, "protocol": "TCP"}],
    }
    assert service.source == "a.yaml:3"


def test_the_node_of_a_pod_is_part_of_it() -> None:
    pod = check(
        Document(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "a", "namespace": "b"},
                "spec": {"nodeName": "node1", "containers": [{"name": "c", "image": "i"}]},
            }
        )
    )
    assert (pod.namespace, pod.name, pod.node) == ("b", "a", "node1")
