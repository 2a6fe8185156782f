"""Which client reaches which backend through which Service, and whom the backend sees.  Pure.

::

    outside ── node1 ── pods "near", "one", "unready"; "host", a process of its own
          └─── node2 ── pod "two"
          └─── abroad, a server outside the cluster

A case says who may answer; :func:`seen_as` has the rules about whom that one sees.  What is not built yet has
no case.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

from integration.lab.asking import REFUSED, SILENCE, UNREACHABLE

NODE_OF = {"near": "node1", "one": "node1", "unready": "node1", "two": "node2"}
"""Node of each pod; "one", "two" and "unready" are servers."""
WHERE = {**NODE_OF, "host": "node1", "abroad": "beyond"}
SERVERS = ("one", "two", "unready", "host", "abroad")
NEIGHBOURS4, NEIGHBOURS6 = "192.168.3.0/24", "fd00:192:168:3::/64"
"""Whatever is no pod: nodes, "outside" and "abroad"."""
EVERYBODY: tuple[str, ...] = ("near", "node1", "outside")
EVERY_DOOR: tuple[str, ...] = ("ClusterIP", "NodePort", "NodePort of node2", "LoadBalancer", "ExternalIPs")
WIRE: tuple[str, ...] = ("NodePort", "LoadBalancer", "ExternalIPs")
"""Doors that a client outside finds at node1."""
ITSELF = "itself"
"""The client that a pod sees when its packet for a Service comes back to it."""
NOBODY = (REFUSED, SILENCE, UNREACHABLE)
"""What shows that an address is not served: its packets go wherever they are led without us."""
TOO_LARGE = 3000
"""Bytes of a datagram that travels as fragments."""
MUCH = 200_000
"""Bytes each way of a connection that fills its packets."""


@dataclass(frozen=True, slots=True)
class Setting:
    """The cluster's configuration while the table is asked."""

    routing: Literal["native", "tunnel"] = "native"
    mode: Literal["snat", "dsr", "hybrid"] = "snat"
    dispatch: Literal["opt", "ipip"] = "opt"
    """How the backend's node is told in whose name it answers."""
    no_backend: Literal["reject", "drop"] = "reject"
    sockets: Literal["all", "node"] = "all"
    """Whose are translated; packets of pods whose sockets are not are."""
    masquerade: bool = True
    """Whether pods leave the cluster under their node's address; else its neighbours are exempt from that."""
    xdp: bool = False
    """Whether the nodes' uplinks turn round what goes back out of them anyhow."""
    every_type_guarded: bool = False
    """Whether source ranges hold for every type of a Service."""

    def config(self) -> dict[str, str]:
        """Keys and values of ``cirri-config``."""
        return {
            "routing-mode": self.routing,
            "bpf-lb-mode": self.mode,
            "bpf-lb-dsr-dispatch": self.dispatch,
            "service-no-backend-response": self.no_backend,
            "bpf-lb-sock-hostns-only": "true" if self.sockets == "node" else "false",
            "non-masquerade-cidrs": "" if self.masquerade else f"{NEIGHBOURS4},{NEIGHBOURS6}",
            "bpf-lb-acceleration": "native" if self.xdp else "disabled",
            "bpf-lb-source-range-all-types": str(self.every_type_guarded).lower(),
        }


@dataclass(frozen=True, slots=True)
class Case:
    """One connection."""

    client: str
    door: str
    service: str
    answers: frozenset[str]
    """Who may answer; or that nobody does, and how that shows."""
    family: int
    protocol: str
    size: int = 1

    def __str__(self) -> str:
        large = f", {self.size} bytes" if self.size > 1 else ""
        return f"{self.client} asks {self.service} by {self.door}, IPv{self.family} {self.protocol}{large}"

    @property
    def tries(self) -> int:
        """One; but the sender of large datagrams outside has to learn what fits the way inside."""
        return 3 if self.client == "outside" and self.size > 1 and self.protocol == "UDP" else 1

    @property
    def entry(self) -> str:
        """The node that chooses the backend: the client's own, or the one whose address is asked."""
        return "node2" if self.client == "outside" and self.door.endswith("node2") else "node1"


def seen_as(case: Case, server: str, setting: Setting) -> str:
    """Whose address *server* sees.

    A client of the cluster keeps its own, at the socket and by packet; but a pod whose packet comes back to
    it meets another address, or it would answer itself.  Beyond the cluster pods bear their node's address.
    A client outside keeps its own where its packets find the backend on the node that they come to; else it
    bears that node's, unless the backend's node answers directly.
    """
    if case.client == "outside":
        there = WHERE[server] == case.entry
        return "outside" if there or answers_directly(case, server, setting) else case.entry
    if server == "abroad" and case.client in NODE_OF and setting.masquerade:
        return NODE_OF[case.client]
    return ITSELF if case.client == server and setting.sockets == "node" else case.client


def answers_directly(case: Case, server: str, setting: Setting) -> bool:
    """Whether *server*'s node may speak for the one that was asked.

    Only natively, and only for its pods; inside IP there is no room for a port, so ports have to agree.
    """
    asked = setting.mode == "dsr" or (setting.mode == "hybrid" and case.protocol == "TCP")
    named = setting.dispatch == "opt" or (case.service == "level" and "NodePort" not in case.door)
    return asked and named and setting.routing == "native" and server in NODE_OF


def cases(setting: Setting) -> Iterator[Case]:
    """Every one that is served under *setting*."""
    for client, door, server in product(EVERYBODY, EVERY_DOOR, ("one", "two")):
        yield from _each(client, door, server, server)
        for family, protocol in ((4, "TCP mapped"), (4, "UDP unconnected"), (6, "UDP unconnected")):
            if client != "outside":
                yield Case(client, door, server, frozenset([server]), family, protocol)
    for door, server in (("HostPort", "one"), ("HostPort of node2", "two")):
        for client in EVERYBODY:
            yield from _each(client, door, server, server)
    for door in EVERY_DOOR:
        yield from _each("one", door, "one", "one")
        yield from _each("outside", door, "level", "two")
    for client, door in product(EVERYBODY, EVERY_DOOR):
        yield from _each(client, door, "host", "host")
    for client, door in product(EVERYBODY, ("Directly", "ClusterIP", "NodePort", "LoadBalancer")):
        yield from _each(client, door, "abroad", "abroad")
    yield from _policies()
    yield from _limits()
    yield from _endpoints()
    yield from _ranges(setting)
    yield from _nobody(setting)


def _policies() -> Iterator[Case]:
    """Local means the node's own; to doors for the outside, clients of the cluster take the short way."""
    for door in WIRE:
        yield from _each("outside", door, "local", "one")
        yield from _each("near", door, "local-two", "two")
    yield from _each("outside", "NodePort of node2", "local", "two")
    yield from _each("near", "NodePort of node2", "local", "one", "two")
    yield from _each("outside", "NodePort", "local-two", SILENCE)
    for client in ("near", "node1"):
        yield from _each(client, "ClusterIP", "inner", "one")


def _endpoints() -> Iterator[Case]:
    """What EndpointSlices say of endpoints, and Services of their ports."""
    for client, door in (("near", "ClusterIP"), ("node1", "ClusterIP"), ("outside", "NodePort")):
        for service, *answers in (
            ("named", "two"),
            ("published", "unready"),
            ("zones", "one"),
            ("leaving", "two"),
            ("left", "one"),
            ("weighed", "two"),
            ("both", "one", "two"),
        ):
            yield from _each(client, door, service, *answers)
    yield from _each("near", "Name", "headless", "two")


def _limits() -> Iterator[Case]:
    """Services that are not served by every door, on every node, or by us at all."""
    for client, door in product(("near", "outside"), EVERY_DOOR):
        there = door == "ClusterIP" or door.endswith("node2")
        yield from _each(client, door, "elsewhere", *(("two",) if there else NOBODY))
        yield from _each(client, door, "balanced", *(("one",) if door == "LoadBalancer" else NOBODY))
        yield from _each(client, door, "foreign", *NOBODY)
    for client in ("near", "outside"):
        for case in _each(client, "NodePort", "six", "one"):
            yield case if case.family == 6 else replace(case, answers=frozenset(NOBODY))


def _ranges(setting: Setting) -> Iterator[Case]:
    """Source ranges guard what a load balancer sends, from clients outside."""
    for service, answer in (("let-in", "one"), ("shut-out", SILENCE), ("barred", SILENCE)):
        yield from _each("outside", "LoadBalancer", service, answer)
        yield from _each("outside", "NodePort", service, answer if setting.every_type_guarded else "one")
        yield from _each("near", "LoadBalancer", service, "one")


def _nobody(setting: Setting) -> Iterator[Case]:
    """Without a backend; without one of this node where only that counts; without one that is ready."""
    for client, door in product(EVERYBODY, EVERY_DOOR):
        yield from _each(client, door, "nobody", _refusal(client, setting))
    for client in ("near", "node1"):
        yield from _each(client, "ClusterIP", "inner-two", _refusal(client, setting))
        yield from _each(client, "ClusterIP", "unpublished", _refusal(client, setting))


def _refusal(client: str, setting: Setting) -> str:
    """What *client* meets where nobody serves; at the socket that is an error at once in any case."""
    at_socket = client == "node1" or (client == "near" and setting.sockets == "all")
    return SILENCE if setting.no_backend == "drop" and not at_socket else REFUSED


def _each(client: str, door: str, service: str, *answers: str) -> Iterator[Case]:
    """That for every family and protocol; much of it to a server alone."""
    if client == "outside" and door == "ClusterIP":
        return  # no network leads there
    if (client, door) == ("outside", "Directly"):
        return  # that is none of ours
    sizes = [("TCP", 1), ("UDP", 1)]
    if answers[0] in SERVERS:
        sizes += [("UDP", TOO_LARGE), ("TCP", MUCH)]
    for family, (protocol, size) in product((4, 6), sizes):
        yield Case(client, door, service, frozenset(answers), family, protocol, size)
