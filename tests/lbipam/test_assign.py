"""Which Service has which addresses: tables of pools, Services and what comes of them."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from cirri.lbipam import Assignment, LbPool, assign, claim_of, labels_of, pool_of
from cirri.model import Resource

AGES = {name: f"2026-01-01T00:00:{n:02}Z" for n, name in enumerate("abcdefghij")}
"""Names of pools and Services say how old they are."""


def pool(name: str, *blocks: str, **more: Any) -> Resource:
    """*blocks*: ``CIDR`` or ``START-STOP``; *more*: fields of the spec, and ``annotations``."""
    notes = more.pop("annotations", {})
    made = []
    for block in blocks:
        start, _, stop = block.partition("-")
        made.append({"start": start, "stop": stop} if stop else {"cidr": block})
    manifest = {
        "metadata": {"name": name, "annotations": notes, "creationTimestamp": AGES.get(name, "")},
        "spec": {"blocks": made, **more},
    }
    return Resource(kind="CiliumLoadBalancerIPPool", name=name, manifest=manifest)


def service(name: str, *held: str, **more: Any) -> Resource:
    """*more*: fields of the spec, ``labels``, ``annotations`` and ``namespace``."""
    namespace = more.pop("namespace", "default")
    metadata = {
        "name": name,
        "labels": more.pop("labels", {}),
        "annotations": more.pop("annotations", {}),
        "creationTimestamp": AGES.get(name, ""),
    }
    spec = {
        "type": "LoadBalancer",
        "ipFamilies": ["IPv4"],
        "ports": [{"port": 80, "protocol": "TCP"}],
        **more,
    }
    status = {"loadBalancer": {"ingress": [{"ip": each} for each in held]}}
    return Resource(
        kind="Service",
        namespace=namespace,
        name=name,
        manifest={"metadata": metadata, "spec": spec, "status": status},
    )


def namespace(name: str, **labels: str) -> Resource:
    return Resource(kind="Namespace", name=name, manifest={"metadata": {"name": name, "labels": labels}})


def outcome(*objects: Resource) -> Assignment:
    pools: list[LbPool] = []
    claims = []
    around = labels_of(each for each in objects if each.kind == "Namespace")
    for each in objects:
        if each.kind == "Service":
            claims += [claim for claim in [claim_of(each, namespaces=around)] if claim is not None]
        elif each.kind != "Namespace":
            pools.append(pool_of(each))
    return assign(pools, claims)


def found(*objects: Resource) -> dict[str, str]:
    """By Service: its addresses, and the reason if it has not all that it asks for."""
    words = {}
    for (_, name), one in outcome(*objects).services.items():
        parts = [*one.addresses, *([one.reason] if one.reason != "satisfied" else [])]
        words[name] = " ".join(parts)
    return words


BOTH = {"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack"}
EITHER = {"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack"}
OF_TEAM = {"serviceSelector": {"matchLabels": {"io.cilium.k8s.namespace.labels.team": "a"}}}
BLUE = {"serviceSelector": {"matchLabels": {"color": "blue"}}}
KEY = {"lbipam.cilium.io/sharing-key": "k"}
OPEN = {**KEY, "lbipam.cilium.io/sharing-cross-namespace": "*"}


def named(ips: str) -> dict[str, Any]:
    return {"annotations": {"lbipam.cilium.io/ips": ips}}


def port(number: int, protocol: str = "TCP") -> list[dict[str, Any]]:
    return [{"port": number, "protocol": protocol}]


TABLE: dict[str, tuple[list[Resource], dict[str, str]]] = {
    "the oldest first, the lowest first": (
        [pool("a", "10.0.0.0/30"), service("c"), service("b"), service("d")],
        {"b": "10.0.0.0", "c": "10.0.0.1", "d": "10.0.0.2"},
    ),
    "first and last left out": (
        [pool("a", "10.0.0.0/30", allowFirstLastIPs="No"), service("b"), service("c"), service("d")],
        {"b": "10.0.0.1", "c": "10.0.0.2", "d": "out_of_ips"},
    ),
    "but not of a pair, nor of start and stop": (
        [pool("a", "10.0.0.0/31", "10.9.0.7-10.9.0.7", allowFirstLastIPs="No"), *map(service, "bcd")],
        {"b": "10.0.0.0", "c": "10.0.0.1", "d": "10.9.0.7"},
    ),
    "no pool": ([service("a")], {"a": "no_pool"}),
    "no pool of the family": (
        [pool("a", "fd00::/126"), service("b")],
        {"b": "no_pool"},
    ),
    "nobody selects it": (
        [pool("a", "10.0.0.0/30", **BLUE), service("b"), service("c", labels={"color": "blue"})],
        {"b": "pool_selector_mismatch", "c": "10.0.0.0"},
    ),
    "namespace and name are labels": (
        [
            pool(
                "a", "10.0.0.0/30", serviceSelector={"matchLabels": {"io.kubernetes.service.namespace": "x"}}
            ),
            pool("b", "10.1.0.0/30", serviceSelector={"matchLabels": {"io.kubernetes.service.name": "d"}}),
            service("c", namespace="x"),
            service("d"),
            service("e"),
        ],
        {"c": "10.0.0.0", "d": "10.1.0.0", "e": "pool_selector_mismatch"},
    ),
    "labels of namespaces too": (
        [
            pool("a", "10.0.0.0/30", **OF_TEAM),
            *(namespace("x", team="a"), namespace("y", team="b")),
            *(service("b", namespace="x"), service("c", namespace="y"), service("d")),
        ],
        {"b": "10.0.0.0", "c": "pool_selector_mismatch", "d": "pool_selector_mismatch"},
    ),
    "both families": (
        [pool("a", "10.0.0.0/31", "fd00::/127"), service("b", **BOTH)],
        {"b": "10.0.0.0 fd00::"},
    ),
    "one of two families": (
        [pool("a", "10.0.0.0/31"), service("b", **BOTH), service("c", **EITHER)],
        {"b": "10.0.0.0 no_pool", "c": "10.0.0.1"},
    ),
    "who has an address keeps it": (
        [pool("a", "10.0.0.0/30"), service("b"), service("c", "10.0.0.0")],
        {"b": "10.0.0.1", "c": "10.0.0.0"},
    ),
    "also where its pool gives nothing more": (
        [pool("a", "10.0.0.0/30", disabled=True), service("b", "10.0.0.2"), service("c")],
        {"b": "10.0.0.2", "c": "no_pool"},
    ),
    "not where no pool holds it any more": (
        [pool("a", "10.1.0.0/30"), service("b", "10.0.0.2")],
        {"b": "10.1.0.0"},
    ),
    "not where the pool selects others now": (
        [pool("a", "10.0.0.0/30", **BLUE), service("b", "10.0.0.2")],
        {"b": "pool_selector_mismatch"},
    ),
    "of two that have it the older one keeps it": (
        [pool("a", "10.0.0.0/30"), service("c", "10.0.0.2"), service("b", "10.0.0.2")],
        {"b": "10.0.0.2", "c": "10.0.0.0"},
    ),
    "the younger of two pools that overlap gives nothing": (
        [pool("b", "10.0.0.0/24"), pool("a", "10.0.0.128/25"), service("c")],
        {"c": "10.0.0.128"},
    ),
    "named": (
        [
            pool("a", "10.0.0.0/24"),
            service("b", **named("10.0.0.7")),
            service("c", loadBalancerIP="10.0.0.9"),
        ],
        {"b": "10.0.0.7", "c": "10.0.0.9"},
    ),
    "whoever names an address goes before whoever does not": (
        [pool("a", "10.0.0.0/31"), service("b"), service("c", **named("10.0.0.0"))],
        {"b": "10.0.0.1", "c": "10.0.0.0"},
    ),
    "two addresses named": (
        [pool("a", "10.0.0.0/24"), service("b", **named("10.0.0.7, 10.0.0.8"))],
        {"b": "10.0.0.7 10.0.0.8"},
    ),
    "named, and nobody has it": (
        [pool("a", "10.0.0.0/24"), service("b", **named("10.1.0.7"))],
        {"b": "no_pool"},
    ),
    "named, but of others": (
        [pool("a", "10.0.0.0/24", **BLUE), service("b", **named("10.0.0.7"))],
        {"b": "pool_selector_mismatch"},
    ),
    "named, and taken": (
        [pool("a", "10.0.0.0/24"), service("c", "10.0.0.7"), service("b", **named("10.0.0.7"))],
        {"b": "already_allocated", "c": "10.0.0.7"},
    ),
    "no address": (
        [pool("a", "10.0.0.0/24"), service("b", **named("ten"))],
        {"b": "invalid_request"},
    ),
    "an address of another family": (
        [pool("a", "10.0.0.0/24", "fd00::/120"), service("b", **named("fd00::1"))],
        {"b": "invalid_request"},
    ),
    "named anew: the old one is given back": (
        [pool("a", "10.0.0.0/24"), service("b", "10.0.0.1", **named("10.0.0.7"))],
        {"b": "10.0.0.7"},
    ),
    "shared": (
        [
            pool("a", "10.0.0.0/24"),
            service("b", annotations=KEY),
            service("c", annotations=KEY, ports=port(81)),
        ],
        {"b": "10.0.0.0", "c": "10.0.0.0"},
    ),
    "not with the same port": (
        [pool("a", "10.0.0.0/24"), service("b", annotations=KEY), service("c", annotations=KEY)],
        {"b": "10.0.0.0", "c": "10.0.0.1"},
    ),
    "the same port of another protocol": (
        [
            pool("a", "10.0.0.0/24"),
            service("b", annotations=KEY),
            service("c", annotations=KEY, ports=port(80, "UDP")),
        ],
        {"b": "10.0.0.0", "c": "10.0.0.0"},
    ),
    "not across namespaces": (
        [
            pool("a", "10.0.0.0/24"),
            service("b", annotations=KEY),
            service("c", annotations=OPEN, ports=port(81), namespace="x"),
        ],
        {"b": "10.0.0.0", "c": "10.0.0.1"},
    ),
    "across namespaces where both say so": (
        [
            pool("a", "10.0.0.0/24"),
            service("b", annotations=OPEN),
            service("c", annotations=OPEN, ports=port(81), namespace="x"),
        ],
        {"b": "10.0.0.0", "c": "10.0.0.0"},
    ),
    "local backends that differ": (
        [
            pool("a", "10.0.0.0/24"),
            service("b", annotations=KEY, externalTrafficPolicy="Local", selector={"app": "b"}),
            service(
                "c", annotations=KEY, externalTrafficPolicy="Local", selector={"app": "c"}, ports=port(81)
            ),
        ],
        {"b": "10.0.0.0", "c": "10.0.0.1"},
    ),
    "named and shared with one that cannot": (
        [
            pool("a", "10.0.0.0/24"),
            service("b", "10.0.0.0", annotations=KEY),
            service("c", annotations={**KEY, **named("10.0.0.0")["annotations"]}),
        ],
        {"b": "10.0.0.0", "c": "already_allocated_incompatible_service"},
    ),
    "reserved": (
        [
            pool("a", "10.0.0.0/30", annotations={"lbipam.cirri.io/reserved": "10.0.0.0-10.0.0.1,10.0.0.2"}),
            service("b"),
            service("c", **named("10.0.0.1")),
        ],
        {"b": "10.0.0.3", "c": "10.0.0.1"},
    ),
    "the pool of the smallest number is asked first": (
        [
            pool("a", "10.0.0.0/31", annotations={"lbipam.cirri.io/priority": "2"}),
            pool("b", "10.1.0.0/31", annotations={"lbipam.cirri.io/priority": "1"}),
            *map(service, "cde"),
        ],
        {"c": "10.1.0.0", "d": "10.1.0.1", "e": "10.0.0.0"},
    ),
    "other classes are others' business": (
        [
            pool("a", "10.0.0.0/30"),
            service("b", loadBalancerClass="somebody/else"),
            service("c", loadBalancerClass="io.cilium/l2-announcer"),
            service("d", loadBalancerClass="io.cilium/bgp-control-plane"),
            service("e", type="NodePort"),
        ],
        {"c": "10.0.0.0", "d": "10.0.0.1"},
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_table(name: str) -> None:
    objects, expected = TABLE[name]
    assert found(*objects) == expected


def test_how_pools_stand() -> None:
    states = outcome(
        pool("a", "10.0.0.0/30", "fd00::/126"),
        pool("b", "10.0.0.2/31"),
        pool("c", "10.1.0.0/24", "10.1.0.7-10.1.0.9"),
        service("d", **BOTH),
        service("e", annotations=KEY),
    ).pools
    assert (states["a"].total, states["a"].used, states["a"].available) == (8, 3, 5)
    assert states["a"].conflict == ""
    assert states["b"].conflict == "block 10.0.0.2-10.0.0.3 overlaps 10.0.0.0-10.0.0.3 of pool a"
    assert states["c"].conflict == "its block 10.1.0.7-10.1.0.9 overlaps its block 10.1.0.0-10.1.0.255"


def test_the_order_in_which_they_are_told_does_not_matter() -> None:
    """Random clusters: shuffled, the same; asked again with what came of it, the same."""
    random = Random(7)
    for _ in range(300):
        pools = [pool(n, f"10.0.{random.randrange(4)}.0/3{random.randrange(3)}") for n in "abc"]
        services = []
        for name in "defghij":
            more: dict[str, Any] = {
                "annotations": random.choice([{}, KEY]),
                "ports": port(random.randrange(80, 83)),
            }
            held = [f"10.0.{random.randrange(4)}.{random.randrange(4)}"] * random.randrange(2)
            services.append(service(name, *held, **more))
        first = outcome(*pools, *services)
        shuffled = [*pools, *services]
        random.shuffle(shuffled)
        assert outcome(*shuffled) == first
        settled = [
            service(
                s.name,
                *first.services["default", s.name].addresses,
                annotations=s.manifest["metadata"]["annotations"],
                ports=s.manifest["spec"]["ports"],
            )
            for s in services
        ]
        again = outcome(*pools, *settled)
        assert {k: o.addresses for k, o in again.services.items()} == {
            k: o.addresses for k, o in first.services.items()
        }
        owners: dict[str, list[Resource]] = {}
        for s in services:
            for address in first.services["default", s.name].addresses:
                owners.setdefault(address, []).append(s)
        for sharing in owners.values():
            ports = [s.manifest["spec"]["ports"][0]["port"] for s in sharing]
            assert len(set(ports)) == len(ports)
            assert len(sharing) == 1 or all(s.manifest["metadata"]["annotations"] for s in sharing)
