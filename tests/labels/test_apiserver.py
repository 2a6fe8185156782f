from typing import Any

import pytest

from cirri.labels import (
    NODE_SPACE,
    SPACE,
    WORLD_SPACE,
    Reserved,
    Space,
    api_server_addresses,
    api_server_labels,
    is_located,
    probes,
    space_of,
)
from cirri.model import Resource


def endpoint_slice(
    addresses: list[str], *, service: str = "kubernetes", namespace: str = "default"
) -> Resource:
    manifest: dict[str, Any] = {
        "metadata": {"labels": {"kubernetes.io/service-name": service}},
        "endpoints": [{"addresses": [each], "conditions": {"ready": False}} for each in addresses],
    }
    return Resource(kind="EndpointSlice", namespace=namespace, name="k-1", manifest=manifest)


def test_addresses_are_those_of_its_service() -> None:
    slices = [
        endpoint_slice(["192.168.3.11", "api.example"]),
        endpoint_slice(["2001:DB8::1"]),
        endpoint_slice(["10.0.0.1"], service="web"),
        endpoint_slice(["10.0.0.2"], namespace="shop"),
        Resource(kind="EndpointSlice", namespace="default", name="k-2"),
    ]
    assert api_server_addresses(slices) == {"192.168.3.11", "2001:db8::1"}


@pytest.mark.parametrize(
    ("address", "labels"),
    [
        ("203.0.113.9", ("cidr:203.0.113.9/32", "reserved:kube-apiserver", "reserved:world-ipv4")),
        ("2001:db8::1", ("cidr:2001-db8--1/128", "reserved:kube-apiserver", "reserved:world-ipv6")),
    ],
)
def test_labels_of_one_outside(address: str, labels: tuple[str, ...]) -> None:
    assert api_server_labels(address) == labels
    assert space_of(labels) == WORLD_SPACE


@pytest.mark.parametrize(
    ("space", "located"),
    [(SPACE, False), (WORLD_SPACE, True), (NODE_SPACE, True)],
    ids=["pods", "world", "nodes"],
)
def test_located(space: Space, *, located: bool) -> None:
    assert {is_located(number) for number in probes(("k8s:app=web",), space)} == {located}
    assert not is_located(Reserved.HOST)
