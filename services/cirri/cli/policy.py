"""``cirri policy``: what the compiled policy says, and which manifest says so."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from socket import IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_SCTP, IPPROTO_TCP, IPPROTO_UDP
from typing import TYPE_CHECKING, NamedTuple

import click
from msgspec import Struct

from cirri.cli.bus import with_bus
from cirri.cli.context import Target
from cirri.cli.get import NotFound
from cirri.cli.identity import NoIdentity, all_labels
from cirri.cli.matrix import matrix
from cirri.cli.output import emit, output, table
from cirri.cli.policytest import test
from cirri.manifests import POLICY_KINDS
from cirri.model import POLICIES, RESOURCES, SELECTORS, Direction, Origin, PolicyEntry, Rule, resource_key
from cirri.model.policy import ANY_PEER

if TYPE_CHECKING:
    from cirri.kv import Bus

_PROTOCOLS = {
    IPPROTO_TCP: "TCP",
    IPPROTO_UDP: "UDP",
    IPPROTO_SCTP: "SCTP",
    IPPROTO_ICMP: "ICMP",
    IPPROTO_ICMPV6: "ICMPv6",
}


class Line(Struct, frozen=True, kw_only=True):
    """One rule of one subject in one direction."""

    identity: int
    direction: str
    verdict: str
    peer: str
    """Selector in canonical form, or ``any``."""
    peers: tuple[int, ...]
    """Identities that the selector selects now."""
    port: str
    origins: tuple[str, ...]
    """Sections of manifests, e.g. ``CiliumNetworkPolicy default/rule1 spec.ingress[0] (file:3)``."""


class _Found(NamedTuple):
    revision: int
    entries: list[PolicyEntry]
    selectors: Mapping[str, tuple[str, tuple[int, ...]]]
    labels: Mapping[int, Sequence[str]]
    names: set[str]


@click.group()
def policy() -> None:
    """Show the policy in force and where each rule comes from."""


policy.add_command(matrix)
policy.add_command(test)


@policy.command()
@click.argument("name", required=False, metavar="[[NAMESPACE/]NAME]")
@click.option(
    "--identity", type=click.IntRange(0), metavar="ID", help="Only rules whose subject has this identity."
)
@output
@click.pass_obj
def get(target: Target, name: str | None, *, identity: int | None, form: str | None) -> None:
    """Show every rule by its subject; with NAME only the rules of that policy object."""
    found = with_bus(target, _read)
    if name is not None and name not in found.names:
        raise NotFound("policy", name, "")
    if identity is not None and identity not in found.labels:
        raise NoIdentity(identity, found.labels)
    subjects = [e for e in found.entries if e.subject and identity in (None, e.subject.identity)]
    shown = [line for line in lines(subjects, found.selectors) if name is None or _from(line, name)]
    if form:
        emit({"revision": found.revision, "rules": shown}, form)
        return
    click.echo(f"Revision: {found.revision}")
    if not shown:
        click.echo(f"No rule{f' of {name}' if name else ''} has a subject at the moment.")
        return
    for number in dict.fromkeys(line.identity for line in shown):
        click.echo(f"\nSubject {number}: {' '.join(found.labels.get(number, ()))}")
        rows = [
            (line.direction, line.verdict, line.peer, line.port, list(line.origins))
            for line in shown
            if line.identity == number
        ]
        click.echo(table(("DIRECTION", "VERDICT", "PEER", "PORT", "ORIGIN"), rows))


async def _read(bus: Bus) -> _Found:
    from pyroaring import BitMap

    entries = [e.value for e in await bus.entries(POLICIES)]
    selectors = {
        s.value.key: (
            s.value.text,
            tuple(BitMap.deserialize(s.value.identities)) if s.value.identities else (),
        )
        for s in await bus.entries(SELECTORS)
    }
    names = set()
    for kind in POLICY_KINDS:
        for e in await bus.entries(RESOURCES, resource_key(kind, "*", "*", "*")):
            names |= {e.value.name, f"{e.value.namespace}/{e.value.name}"}
    revision = max((e.compiled.resources for e in entries if e.compiled), default=0)
    return _Found(revision, entries, selectors, await all_labels(bus), names)


def lines(
    entries: Iterable[PolicyEntry], selectors: Mapping[str, tuple[str, tuple[int, ...]]]
) -> Iterator[Line]:
    """Every rule of *entries*, by identity, direction and order."""
    subjects = [e.subject for e in entries if e.subject is not None]
    for subject in sorted(subjects, key=lambda s: s.identity):
        origins = {origin.cookie: _origin(origin) for origin in subject.origins}
        for name, direction in (("ingress", subject.ingress), ("egress", subject.egress)):
            yield from _direction(subject.identity, name, direction, selectors, origins)


def _direction(
    identity: int,
    name: str,
    direction: Direction,
    selectors: Mapping[str, tuple[str, tuple[int, ...]]],
    origins: Mapping[int, str],
) -> Iterator[Line]:
    for rule in direction.rules:
        text, peers = ("any", ()) if rule.selector == ANY_PEER else selectors.get(rule.selector, ("?", ()))
        yield Line(
            identity=identity,
            direction=name,
            verdict="deny" if rule.deny else "allow",
            peer=text,
            peers=peers,
            port=port_text(rule),
            origins=tuple(origins.get(cookie, f"{cookie:#010x}") for cookie in rule.origins),
        )
    if direction.enforced:
        yield Line(
            identity=identity,
            direction=name,
            verdict="deny",
            peer="any",
            peers=(),
            port="any",
            origins=("default deny",),
        )


def port_text(rule: Rule) -> str:
    """``80/TCP``, ``8000-8099/TCP``, ``any/UDP`` or ``any``."""
    protocol = _PROTOCOLS.get(rule.protocol, str(rule.protocol)) if rule.protocol else ""
    if rule.port == 0 and rule.end_port == 0:
        return f"any/{protocol}" if protocol else "any"
    ports = f"{rule.port}-{rule.end_port}" if rule.end_port > rule.port else str(rule.port)
    return f"{ports}/{protocol or 'any'}"


def _origin(origin: Origin) -> str:
    name = f"{origin.namespace}/{origin.name}" if origin.namespace else origin.name
    words = [origin.kind, name, origin.section, f"({origin.source})" if origin.source else ""]
    return " ".join(word for word in words if word)


def _from(line: Line, name: str) -> bool:
    """Whether a section of policy *name* (``NAME`` or ``NAMESPACE/NAME``) says so."""
    for origin in line.origins:
        words = origin.split()
        if len(words) > 2 and name in (words[1], words[1].rpartition("/")[2]):
            return True
    return False
