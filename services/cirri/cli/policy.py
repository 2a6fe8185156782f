"""``cirri policy``: what the compiled policy says, and which manifest says so."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from socket import IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_SCTP, IPPROTO_TCP, IPPROTO_UDP
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from msgspec import Struct, structs

from cirri.cli.bus import with_bus
from cirri.cli.context import Target
from cirri.cli.explain import explain
from cirri.cli.get import NotFound
from cirri.cli.identity import NoIdentity, all_labels
from cirri.cli.matrix import matrix
from cirri.cli.output import emit, for_people, output, table
from cirri.cli.policytest import test
from cirri.cli.policywait import wait
from cirri.cli.selectors import selectors
from cirri.cli.simulate import generate, simulate
from cirri.manifests import POLICY_KINDS
from cirri.model import (
    POLICIES,
    RESOURCES,
    SELECTORS,
    Direction,
    Origin,
    PolicyEntry,
    Rule,
    SubjectPolicy,
    resource_key,
)
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
    redirect: str = ""
    """The proxy that the connection is sent to; empty: none."""
    priority: int = 0
    l7: Any = None
    """What the proxy asks for."""
    auth: str = ""
    audit: bool = False
    """It would hold if the objects in audit mode counted, and does not hold."""
    origins: tuple[str, ...]
    """Sections of manifests, e.g. ``CiliumNetworkPolicy default/rule1 spec.ingress[0] (file:3)``."""


class Side(Struct, frozen=True, kw_only=True):
    """One direction of a subject."""

    enforced: bool
    audit: bool | None = None
    """Whether it would be enforced if the objects in audit mode counted; None: there is none."""


class Subject(Struct, frozen=True, kw_only=True, rename="camel"):
    """Endpoints of one identity."""

    identity: int
    labels: tuple[str, ...]
    ingress: Side
    egress: Side
    error: str = ""
    """Why the newest rules cannot be computed; the rules are then the last that could be."""
    confirm_by: float = 0.0
    """Unix time until which a person must confirm a part of it; 0: all is for good."""


class _Found(NamedTuple):
    revision: int
    entries: list[PolicyEntry]
    selectors: Mapping[str, tuple[str, tuple[int, ...]]]
    labels: Mapping[int, Sequence[str]]
    names: set[str]


@click.group()
def policy() -> None:
    """Ask what policies say, in force or in manifests, and why."""


for command in (explain, generate, matrix, selectors, simulate, test, wait):
    policy.add_command(command)


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
    policies = [e.subject for e in found.entries if e.subject and identity in (None, e.subject.identity)]
    shown = [line for line in lines(policies, found.selectors) if name is None or _from(line, name)]
    numbers = {line.identity for line in shown} if name is not None else {p.identity for p in policies}
    subjects = [subject(p, found.labels.get(p.identity, ())) for p in policies if p.identity in numbers]
    if form:
        emit({"revision": found.revision, "subjects": subjects, "rules": shown}, form)
        return
    click.echo(f"Revision: {found.revision}")
    if not shown:
        click.echo(f"No rule{f' of {name}' if name else ''} has a subject at the moment.")
        return
    for each in sorted(subjects, key=lambda s: s.identity):
        mine = [line for line in shown if line.identity == each.identity]
        if mine or each.error:
            click.echo("\n" + subject_text(each, mine))


def subject(policy: SubjectPolicy, labels: Sequence[str]) -> Subject:
    """What holds for the endpoints of *policy* as a whole."""

    def side(direction: Direction, audited: Direction | None) -> Side:
        return Side(enforced=direction.enforced, audit=None if audited is None else audited.enforced)

    return Subject(
        identity=policy.identity,
        labels=tuple(labels),
        ingress=side(policy.ingress, policy.audit_ingress),
        egress=side(policy.egress, policy.audit_egress),
        error=policy.error,
        confirm_by=policy.confirm_by,
    )


def subject_text(subject: Subject, lines: Iterable[Line]) -> str:
    """One subject for people: whether it is under default deny, and its rules."""
    sides = (("Ingress", subject.ingress), ("egress", subject.egress))
    said = [
        f"Subject {subject.identity}: {' '.join(for_people(subject.labels))}",
        ", ".join(f"{name} {_enforcement(side)}" for name, side in sides),
    ]
    if subject.error:
        said.append(f"Error: {subject.error}. What is shown is what held before, and holds still")
    if subject.confirm_by:
        when = datetime.fromtimestamp(subject.confirm_by, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        said.append(f"Provisional: a part of it is undone at {when} unless it is confirmed")
    rows = [(line.direction, _verdict(line), line.peer, line.port, list(line.origins)) for line in lines]
    return "\n".join((*said, table(("DIRECTION", "VERDICT", "PEER", "PORT", "ORIGIN"), rows)))


def _enforcement(side: Side) -> str:
    word = "enforced" if side.enforced else "not enforced"
    return f"{word} (audit: enforced)" if side.audit and not side.enforced else word


def _verdict(line: Line) -> str:
    words = [line.verdict]
    if line.redirect:
        words.append(f"{line.redirect} proxy")
    if line.auth not in ("", "disabled"):
        words.append(f"auth {line.auth}")
    return ", ".join(words) + (" (audit)" if line.audit else "")


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
    policies: Iterable[SubjectPolicy], selectors: Mapping[str, tuple[str, tuple[int, ...]]]
) -> Iterator[Line]:
    """Every rule of *policies*, by identity, direction and order."""
    for policy in sorted(policies, key=lambda p: p.identity):
        origins = {origin.cookie: origin_text(origin) for origin in policy.origins}
        for name, direction, audited in (
            ("ingress", policy.ingress, policy.audit_ingress),
            ("egress", policy.egress, policy.audit_egress),
        ):
            real = list(_direction(policy.identity, name, direction, selectors, origins))
            yield from real
            if audited is not None:
                tried = _direction(policy.identity, name, audited, selectors, origins)
                yield from (structs.replace(line, audit=True) for line in tried if line not in real)


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
            redirect=rule.redirect,
            priority=rule.priority,
            l7=json.loads(rule.l7) if rule.l7 else None,
            auth=rule.auth,
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


def origin_text(origin: Origin) -> str:
    """*origin* in words: kind, name, section, where it is written."""
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
