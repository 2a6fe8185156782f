"""Who asks whom, in which words.  Pure.

A *place* is where something can be run: a pod of the tests by its short name (``client``), ``this-node``
and ``other-node`` (where client and client3 are), ``outside`` (a machine that is no part of the cluster).
A *target* is a place, or ``service/NAME``, ``node-port/NODE/NAME``, ``host-port/POD`` of the tests'
workloads, or ``name/WHICH`` and ``address/WHICH`` of a site outside, WHICH being ``target`` or ``other``.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cirri.cli.connectivity.catalogue import Case, Check

PORT = 8080
NODES = ("this-node", "other-node")
HOST_PORTS = {"echo-same-node": 4080, "echo-other-node": 4081}
PATIENCE_S = {"allow": (5, 10), "403": (5, 10), "no-name": (5, 10), "closed": (5, 10), "drop": (1, 2)}
"""Expected -> seconds until there is a connection, and until there is an answer."""
SCRIPT_HEAD = 'set -f; a() { n=$1; shift; o=$("$@" 2>&1); c=$?; echo "$n|$c|"$o; }\n'
"""A line for each action: its number, exit code and output, written at once."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where something runs."""

    name: str
    says: str
    """As reports call it: ``NAMESPACE/POD`` or a host's name."""
    addresses: tuple[str, ...]
    """IPv4 first."""
    node: str = ""


@dataclass(frozen=True, slots=True)
class World:
    """What a run knows of the cluster."""

    namespace: str
    places: Mapping[str, Place]
    node_ports: Mapping[str, int] = field(default_factory=dict)
    """Service name -> port on nodes."""
    sites: Mapping[str, str] = field(default_factory=dict)
    """``target``, ``other`` -> the name of a site outside."""
    site_addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    families: tuple[int, ...] = (4,)


@dataclass(frozen=True, slots=True)
class Action:
    """One asks one other, once."""

    name: str
    """``TEST/SCENARIO:KIND-FAMILY-NUMBER``."""
    source: Place
    target: str
    """As reports call it."""
    at: Place | None
    """The place that is asked, if it is one: whose flows tell of it."""
    address: str
    """To which packets go, if that is known."""
    check: Check
    argv: tuple[str, ...]


def missing(test: Case, world: World) -> str:
    """Why *test* cannot run there; "" if it can."""
    wanted = {word for c in test.checks for word in c.sources} | {
        part for c in test.checks for part in _places_of(c.to)
    }
    gone = sorted(word for word in wanted if word not in world.places)
    if gone:
        return f"there is no {' and no '.join(gone)} here"
    if any(t.startswith(("name/", "address/")) for c in test.checks for t in c.to) and not world.sites:
        return "there is no site outside"
    return ""


def _places_of(targets: Sequence[str]) -> Iterator[str]:
    for target in targets:
        kind, _, rest = target.partition("/")
        match kind:
            case "service" | "name" | "address":
                continue
            case "host-port":
                yield rest
            case "node-port":
                yield rest.partition("/")[0]
            case _:
                yield kind


def actions(test: Case, world: World) -> list[Action]:
    """All of *test*, over each family that there is."""
    found: list[Action] = []
    for check in test.checks:
        several = len(check.sources) > 1 or len(check.to) > 1
        for source in check.sources:
            for target in check.to:
                if several and source == target:
                    continue
                for family in world.families:
                    if action := _action(
                        world, check, source, target, family, test=test.test, number=len(found)
                    ):
                        found.append(action)
    return found


def _action(
    world: World, check: Check, source: str, target: str, family: int, *, test: str, number: int
) -> Action | None:
    """None if the target has no address of that family."""
    aim = _aim(world, target, family, check)
    if aim is None:
        return None
    ping = check.by == "ping"
    return Action(
        name=f"{test}/{check.scenario}:{'ping' if ping else 'curl'}-ipv{family}-{number}",
        source=world.places[source],
        target=f"{aim.says} ({aim.host if ping else f'{_bracketed(aim.host)}:{aim.port}'})",
        at=aim.at,
        address=aim.host if ":" in aim.host or aim.host[-1:].isdigit() else "",
        check=check,
        argv=_ping(check, aim.host) if ping else _curl(check, aim, family),
    )


class Aim(NamedTuple):
    """Where a request goes."""

    host: str
    """A name or an address."""
    port: int
    says: str
    """Who that is."""
    at: Place | None = None


def _aim(world: World, target: str, family: int, check: Check) -> Aim | None:
    kind, _, rest = target.partition("/")
    web = check.port or (443 if check.by == "https" else 80)
    at, host, port, says = None, None, web, rest
    match kind:
        case "service":
            host, port, says = f"{rest}.{world.namespace}", PORT, f"{world.namespace}/{rest}"
        case "name":
            host, says = world.sites[rest], f"{world.sites[rest]}-{check.by}"
        case "address":
            host, says = _of(world.site_addresses.get(rest, ()), family), f"{world.sites[rest]}-{check.by}"
        case "node-port":
            node, _, service = rest.partition("/")
            host, port = _of(world.places[node].addresses, family), world.node_ports[service]
            says = f"{world.namespace}/{service}"
        case "host-port":
            pod = world.places[rest]
            node = next(
                word for word in NODES if word in world.places and world.places[word].says == pod.node
            )
            host, port, says = _of(world.places[node].addresses, family), HOST_PORTS[rest], pod.says
        case _:
            at = world.places[target]
            host, port, says = _of(at.addresses, family), check.port or PORT, at.says
    return Aim(host, port, says, at) if host else None


def _of(addresses: Sequence[str], family: int) -> str | None:
    return next((a for a in addresses if (":" in a) == (family == 6)), None)


def _ping(check: Check, host: str) -> tuple[str, ...]:
    return ("ping", "-c", "1", "-W", str(PATIENCE_S[check.expect][0]), host)


def _curl(check: Check, aim: Aim, family: int) -> tuple[str, ...]:
    connect, whole = PATIENCE_S[check.expect]
    usual = aim.port == (443 if check.by == "https" else 80)
    return (
        *("curl", f"-{family}", "--silent", "--show-error", "--output", "/dev/null"),
        *("--connect-timeout", str(connect), "--max-time", str(whole)),
        *("--write-out", "%{local_ip}:%{local_port} -> %{remote_ip}:%{remote_port} = %{response_code}"),
        *(() if check.method == "GET" else ("--request", check.method)),
        *(word for name, value in check.headers.items() for word in ("--header", f"{name}: {value}")),
        *(("--insecure",) if check.by == "https" else ()),
        f"{check.by}://{_bracketed(aim.host)}{'' if usual else f':{aim.port}'}{check.path}",
    )


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def script(batch: Sequence[tuple[int, Action]]) -> str:
    """Shell that runs *batch*, all at once, and says of each what became of it."""
    lines = [f"a {number} {shlex.join(action.argv)} &\n" for number, action in batch]
    return SCRIPT_HEAD + "".join(lines) + "wait\n"
