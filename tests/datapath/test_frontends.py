"""Services and slices become frontends with their ready backends."""

from typing import Any, NamedTuple

import pytest

from cirri.datapath.frontends import Frontends, frontends, service_of
from cirri.layout import LbBackend, LbServiceKey, address16
from cirri.model import Resource


def svc(**spec: Any) -> Resource:
    return Resource(kind="Service", namespace="d", name="web", manifest={"spec": spec})


def part(endpoints: list[dict[str, Any]], **more: Any) -> Resource:
    metadata = {"labels": {"kubernetes.io/service-name": "web"}}
    ports = [{"name": "http", "port": 8080, "protocol": "TCP"}]
    manifest = {"metadata": metadata, "addressType": "IPv4", "ports": ports, "endpoints": endpoints, **more}
    return Resource(kind="EndpointSlice", namespace="d", name="web-1", manifest=manifest)


def at(address: str, port: int = 80, protocol: int = 6) -> LbServiceKey:
    return LbServiceKey(address=address16(address), port=port, protocol=protocol)


def to(address: str, port: int = 8080) -> LbBackend:
    return LbBackend(address=address16(address), port=port)


HTTP = [{"name": "http", "port": 80}]


class Case(NamedTuple):
    """What a Service and its slices make."""

    id: str
    service: Resource
    slices: list[Resource]
    expected: Frontends


CASES = [
    Case("no backends", svc(clusterIP="10.96.0.1", ports=HTTP), [], {at("10.96.0.1"): ()}),
    Case("headless", svc(clusterIP="None", ports=HTTP), [part([{"addresses": ["10.0.0.1"]}])], {}),
    Case("no address yet", svc(ports=HTTP), [], {}),
    Case(
        "sorted, from several slices, each once",
        svc(clusterIP="10.96.0.1", ports=HTTP),
        [
            part([{"addresses": ["10.0.0.2"]}, {"addresses": ["10.0.0.1"]}]),
            part([{"addresses": ["10.0.0.2"]}]),
        ],
        {at("10.96.0.1"): (to("10.0.0.1"), to("10.0.0.2"))},
    ),
    Case(
        "only those that are ready and stay",
        svc(clusterIP="10.96.0.1", ports=HTTP),
        [
            part(
                [
                    {"addresses": ["10.0.0.1"], "conditions": {"ready": True}},
                    {"addresses": ["10.0.0.2"], "conditions": {"ready": False}},
                    {"addresses": ["10.0.0.3"], "conditions": {"ready": True, "terminating": True}},
                    {"addresses": ["10.0.0.4"], "conditions": {}},
                ]
            )
        ],
        {at("10.96.0.1"): (to("10.0.0.1"), to("10.0.0.4"))},
    ),
    Case(
        "ports go by name and protocol",
        svc(clusterIP="10.96.0.1", ports=[*HTTP, {"name": "http", "port": 80, "protocol": "UDP"}]),
        [part([{"addresses": ["10.0.0.1"]}])],
        {at("10.96.0.1"): (to("10.0.0.1"),), at("10.96.0.1", protocol=17): ()},
    ),
    Case(
        "both families, each with its own slices",
        svc(clusterIPs=["10.96.0.1", "fd00::1"], ports=HTTP),
        [part([{"addresses": ["10.0.0.1"]}]), part([{"addresses": ["fd00::9"]}], addressType="IPv6")],
        {at("10.96.0.1"): (to("10.0.0.1"),), at("fd00::1"): (to("fd00::9"),)},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_frontends(case: Case) -> None:
    assert frontends(case.service, case.slices) == case.expected


def test_a_slice_names_its_service() -> None:
    assert service_of(part([])) == ("d", "web")
    assert service_of(Resource(kind="EndpointSlice", namespace="d", name="x")) == ("d", "")
