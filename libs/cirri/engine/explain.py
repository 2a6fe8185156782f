"""Why a rule holds for a connection, or which of its conditions fails first.

Reads rules as they are written, one by one, where the compiler merges them into entries: so it can name what
a condition asks for and what it finds.  The verdict itself is the compiler's; tests compare the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from cirri.engine.bind import bind, port_key
from cirri.engine.config import EngineConfig
from cirri.engine.context import Context
from cirri.engine.origin import ALLOW_LOCALHOST
from cirri.engine.resolve import LOCALHOST
from cirri.engine.rule import PLAIN, ObjectRule, Payload, Ports, Section, Term
from cirri.engine.select import LabelSet, Requirement, Selector
from cirri.labels import PORT, Reserved
from cirri.model import Origin

Cause = Literal["allow-rule", "deny-rule", "default-deny", "not-enforced"]


class Connection(NamedTuple):
    """A connection, seen from the end whose policy is asked."""

    ingress: bool
    """That end is its destination."""
    subject: LabelSet
    peer: LabelSet
    protocol: int
    port: int
    """Of the destination, or the ICMP type."""


class Condition(NamedTuple):
    """Something that a rule asks for and that is not so."""

    kind: Literal["peer", "requires", "port", "nobody"]
    """``requires``: another rule asks it of every peer; ``nobody``: the rule names no peer or no port."""
    requirement: Requirement | None = None
    """What is asked of the labels of the peer."""
    ports: tuple[Ports, ...] = ()
    """The ports that would do."""


class Check(NamedTuple):
    """One rule beside a connection."""

    origin: Origin
    deny: bool
    audit: bool
    """Its object is only watched: what it says is reported, not enforced."""
    failed: tuple[Condition, ...]
    """On the way on which the fewest conditions fail, in the order in which they are looked at; empty: the
    rule holds for the connection."""
    selector: Selector | None = None
    """The peers of that way; None: everybody."""
    ports: tuple[Ports, ...] | None = None
    """Its ports; None: every one."""
    payload: Payload = PLAIN

    @property
    def matched(self) -> bool:
        """Whether the rule speaks of the connection."""
        return not self.failed


class Judgement(NamedTuple):
    """What the rules of one subject say about a connection."""

    cause: Cause
    enforced: bool
    """What no rule allows is dropped."""
    forced: str
    """Why that is so, or is not so, whatever the rules say; empty: the rules decide."""
    isolating: tuple[Origin, ...]
    """Rules that make it so."""
    checks: tuple[Check, ...]
    """Of every rule whose object selects the subject, in the order of the objects."""

    @property
    def allowed(self) -> bool:
        """Whether the connection may begin, proxies and authentication apart."""
        return self.cause in {"allow-rule", "not-enforced"}


def judge(
    rules: Iterable[ObjectRule], context: Context, config: EngineConfig, connection: Connection
) -> Judgement:
    """What those of *rules* that select the subject say about *connection*, each by itself and together."""
    selecting = [rule for rule in rules if rule.subject.matches(connection.subject)]
    in_force = [rule for rule in selecting if not rule.audit]
    found: list[Check] = []
    for rule in selecting:
        beside = selecting if rule.audit else in_force
        found += _checks(rule, beside, context, connection)
    isolating = tuple(
        origin
        for rule in in_force
        if (section := _section(rule, connection)).present and section.default_deny
        for origin in section.origins
    )
    forced, enforced = _forced(config, connection, isolated=bool(isolating))
    if forced and not enforced:
        return Judgement("not-enforced", False, forced, isolating, tuple(found))
    if enforced and _is_local(config, connection):
        found.append(Check(ALLOW_LOCALHOST, deny=False, audit=False, failed=(), selector=LOCALHOST))
    holding = [check for check in found if check.matched and not check.audit]
    cause: Cause = "default-deny" if enforced else "not-enforced"
    if holding:
        cause = "deny-rule" if any(check.deny for check in holding) else "allow-rule"
    return Judgement(cause, enforced, forced, isolating, tuple(found))


def unselected(rule: ObjectRule, subject: LabelSet) -> tuple[Condition, ...]:
    """Why *rule* does not select *subject*; empty: it does."""
    return _unmet([rule.subject], subject)[0]


def _forced(config: EngineConfig, connection: Connection, *, isolated: bool) -> tuple[str, bool]:
    """What decides whether the direction is enforced, whatever the rules say, and whether it is."""
    host = _has(connection.subject, Reserved.HOST)
    if config.mode == "never":
        return "enable-policy is never", False
    if host and not config.host_firewall:
        return "nodes are under policy only with enable-host-firewall", False
    if config.mode == "always":
        return "enable-policy is always", True
    if _has(connection.subject, Reserved.INIT):
        return "its labels are not known yet", True
    return "", isolated


def _is_local(config: EngineConfig, connection: Connection) -> bool:
    """Whether the node itself reaches one of its pods."""
    host = _has(connection.subject, Reserved.HOST)
    return connection.ingress and config.allow_localhost and not host and LOCALHOST.matches(connection.peer)


def _has(labels: LabelSet, reserved: Reserved) -> bool:
    return ("reserved", reserved.label.partition(":")[2]) in labels.by_name


def _section(rule: ObjectRule, connection: Connection) -> Section:
    return rule.ingress if connection.ingress else rule.egress


class _Way(NamedTuple):
    """One way on which a rule may hold: some of its peers, some of its ports."""

    failed: tuple[Condition, ...]
    """Of its peers."""
    selector: Selector | None
    covered: bool
    """Its ports are right."""
    term: Term

    @property
    def distance(self) -> int:
        return len(self.failed) + (not self.covered)


def _checks(
    rule: ObjectRule, beside: Sequence[ObjectRule], context: Context, connection: Connection
) -> Iterator[Check]:
    """Every rule of the section of *rule* that is about the direction."""
    section = _section(rule, connection)
    requires = [one for each in beside for one in _section(each, connection).requires]
    deny_requires = [one for each in beside for one in _section(each, connection).deny_requires]
    for origin in section.origins:
        terms = [term for term in section.terms if term.origin.cookie == origin.cookie]
        deny = terms[0].deny if terms else "Deny[" in origin.section
        ways = [
            _way(term, deny_requires if deny else requires, connection)
            for written in terms
            for term in _referred(rule, written, context)
        ]
        if not ways:
            yield Check(origin, deny, rule.audit, (Condition("nobody"),))
            continue
        best = min(ways, key=lambda way: way.distance)
        failed = best.failed
        if not best.covered:
            alike = [way.term for way in ways if way.failed == best.failed]
            ports = dict.fromkeys(one for term in alike for one in term.ports or ())
            failed = (*failed, Condition("port", ports=tuple(ports)))
        term = best.term
        yield Check(origin, deny, rule.audit, failed, best.selector, term.ports, term.payload)


def _referred(rule: ObjectRule, term: Term, context: Context) -> Sequence[Term]:
    """*term* with the peers that it refers to by the names of other objects."""
    # In an ingress section binding leaves ports by name alone.
    one = ObjectRule(rule.subject, ingress=Section(present=True, terms=(term,)))
    return bind(one, context, lambda _: ()).ingress.terms


def _way(term: Term, requires: Sequence[Requirement], connection: Connection) -> _Way:
    failed, selector = _unmet(term.peers, connection.peer) if term.peers is not None else ((), None)
    if term.endpoints:
        missing = [one for one in dict.fromkeys(requires) if not one.holds(connection.peer)]
        failed = (*failed, *(Condition("requires", one) for one in missing))
    covered = term.ports is None or any(covers(one, connection) for one in term.ports)
    return _Way(failed, selector, covered, term)


def _unmet(selectors: Iterable[Selector], labels: LabelSet) -> tuple[tuple[Condition, ...], Selector | None]:
    """What *labels* lack to be selected, on the shortest way, and by which of *selectors*."""
    ways = [
        (tuple(Condition("peer", one) for one in alternative if not one.holds(labels)), selector)
        for selector in selectors
        for alternative in selector.alternatives
    ]
    return min(ways, key=lambda way: len(way[0]), default=((Condition("nobody"),), None))


def covers(ports: Ports, connection: Connection) -> bool:
    """Whether *connection* is to one of *ports*; by name is what the destination calls so."""
    if ports.protocol not in {0, connection.protocol}:
        return False
    if ports.name:
        destination = connection.subject if connection.ingress else connection.peer
        return str(connection.port) in destination.values(PORT, port_key(ports))
    if not ports.port and not ports.end_port:
        return True
    return ports.port <= connection.port <= max(ports.port, ports.end_port)
