"""Services on real sockets: who is reached, and whom the backend sees.

A lab for each routing mode; the cluster's configuration is changed while it runs.  In each place of a client
one process asks everything at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any, Literal

import pytest
from integration.lab.asking import SILENCE
from integration.lab.service_cases import EVERY_DOOR, WIRE, Setting, cases
from integration.lab.service_world import PROTOCOLS, World, question

from cirri.testing.lab import Lab

Routing = Literal["native", "tunnel"]
TRIES = 8
"""Connections after which two backends would both have been met, but for one time in 128."""

ROUNDS = 20
"""In which XDP has to be quick enough at least once."""


def policy(server: str, ingress: list[dict[str, Any]]) -> dict[str, Any]:
    spec = {"endpointSelector": {"matchLabels": {"app": server}}, "ingress": ingress}
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": server},
        "spec": spec,
    }


@pytest.fixture(scope="module", params=["native", "tunnel"])
def cluster(request: pytest.FixtureRequest) -> Iterator[tuple[World, Routing]]:
    with Lab(
        2, f"test-{os.getpid()}-{request.param}", "--routing", request.param, "--without", "flows"
    ) as lab:
        world = World(lab)
        try:
            yield world, request.param
        finally:
            world.close()


PORTS = range(40000, 40016)
"""Of a client: with each it gets one of two backends."""
CHANGES: tuple[dict[str, Any], ...] = (
    {},
    {"mode": "dsr", "no_backend": "drop", "every_type_guarded": True, "masquerade": False},
    {"mode": "hybrid", "sockets": "node", "xdp": True},
    {"mode": "dsr", "dispatch": "ipip", "sockets": "node", "no_backend": "drop"},
)


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_every_way(cluster: tuple[World, Routing], change: dict[str, Any]) -> None:
    world, routing = cluster
    setting = Setting(routing, **change)
    world.use(setting)
    table = list(cases(setting))
    wrong = world.play(table, setting)
    assert not wrong, f"{len(wrong)} of {len(table)} cases:\n" + "\n".join(wrong)
    if setting.xdp and routing == "native":
        assert has_turned(world, setting), "XDP sends back what goes back out of the uplink"
    elif setting.xdp:
        assert not world.turned(), "XDP is for native routing"


def has_turned(world: World, setting: Setting) -> bool:
    """XDP knows only what is answered within a second: on a busy machine a few questions, not a table."""
    few = [
        c for c in cases(setting) if c.client == "outside" and "NodePort" in c.door and c.protocol == "UDP"
    ]
    for _ in range(ROUNDS):
        if world.turned():
            return True
        assert not world.play(few, setting)
    return False


MAY = {"one": "near", "two": "outside"}
"""Who may reach a server by :data:`POLICIES`."""
POLICIES = [
    policy("one", [{"fromEndpoints": [{"matchLabels": {"app": "near"}}]}]),
    policy("two", [{"fromEntities": ["world"]}]),
]


def test_policy_sees_the_client(cluster: tuple[World, Routing]) -> None:
    """Whoever chose the backend: who may reach it is asked about the client.

    Where a client outside bears a node's address, a tunnel says that it is of the world.
    """
    world, routing = cluster
    setting = Setting(routing, mode="dsr", sockets="node")
    world.use(setting)
    asked = [c for c in cases(setting) if c.service in MAY and c.client in MAY.values() and c.size == 1]
    nobody = frozenset([SILENCE])
    table = [c if c.client == MAY[c.service] else replace(c, answers=nobody) for c in asked]
    world.apply(*POLICIES)
    try:
        wrong = world.play(table, setting)
    finally:
        for name in MAY:
            world.lab.delete("cnp", name)
    assert not wrong, f"{len(wrong)} of {len(table)} cases:\n" + "\n".join(wrong)


def test_a_client_keeps_its_backend(cluster: tuple[World, Routing]) -> None:
    """By each door the one that it got there first."""
    world, routing = cluster
    world.use(Setting(routing))
    doors = {"near": EVERY_DOOR, "node1": EVERY_DOOR, "outside": (*WIRE, "NodePort of node2")}
    for place, family, protocol in product(doors, (4, 6), PROTOCOLS):
        for door in doors[place]:
            where = world.where(door, "sticky", family)
            heard = world.drivers[place].hear(*[question(*where, protocol)] * TRIES)
            servers = {each.split()[0] for each in heard}
            assert servers in ({"one"}, {"two"}), f"{place} by {door}, IPv{family} {protocol}: {heard}"


def test_every_node_chooses_alike(cluster: tuple[World, Routing]) -> None:
    """By Maglev: a client's address and port tell its backend."""
    world, routing = cluster
    world.use(Setting(routing))
    for family in (4, 6):
        heard = [
            world.drivers["outside"].hear(
                *(question(*world.where(door, "even", family), "UDP", source_port=port) for port in PORTS)
            )
            for door in ("NodePort", "NodePort of node2")
        ]
        first, second = ([each.split()[0] for each in found] for found in heard)
        assert first == second
        assert set(first) == {"one", "two"}
