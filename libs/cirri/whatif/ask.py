"""One question: may one party reach another at a port?  Each side answers for itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cirri.engine import EGRESS, INGRESS, Verdict
from cirri.engine.l7 import Answer
from cirri.model import Origin
from cirri.whatif.party import Party
from cirri.whatif.port import Port
from cirri.whatif.world import World

DIRECTIONS = {INGRESS: "ingress", EGRESS: "egress"}


class Side(NamedTuple):
    """What the policy of one end says about a connection."""

    subject: Party
    direction: int
    peer: Party
    verdict: Verdict
    rule: Origin | None
    """The rule that decided, if one did."""
    audit: bool = False
    """What it denies passes all the same, and is reported."""
    watched: Side | None = None
    """Its denial if the objects in audit mode counted."""

    @property
    def allowed(self) -> bool:
        """Whether the connection can begin."""
        return self.verdict.allowed or self.audit

    @property
    def audited(self) -> bool:
        """It can only because something is in audit mode."""
        return (self.audit and not self.verdict.allowed) or self.watched is not None


def side(world: World, subject: Party, direction: int, peer: Party, port: Port) -> Side:
    """The answer of *subject*, which has a policy."""
    found = world.verdict(subject, direction, peer, port)
    origin = world.origin(subject, found.rule)
    one = Side(subject, direction, peer, found, origin, audit=world.setting.config.audit)
    if not found.allowed or not world.watched:
        return one
    watched = world.verdict(subject, direction, peer, port, watched=True)
    if watched.allowed:
        return one
    return one._replace(watched=Side(subject, direction, peer, watched, world.origin(subject, watched.rule)))


def sides(world: World, source: Party, target: Party, port: Port) -> list[Side]:
    """The answers of both ends, as far as they have a policy: the connection needs all of them.

    Nobody is asked about a pod that talks to itself.
    """
    if source is target and not source.many:
        return []
    found = []
    if world.has_policy(source):
        found.append(side(world, source, EGRESS, target, port))
    if world.has_policy(target):
        found.append(side(world, target, INGRESS, source, port))
    return found


def reason(world: World, one: Side) -> str:
    """Why *one* is as it is: ``ingress: allowed by NetworkPolicy shop/web spec.ingress[0] (web.yaml:3)``."""
    words = _words(world, one)
    if one.watched is not None:
        words += f"; in audit mode, so only reported: {_words(world, one.watched, watched=True)}"
    elif one.audited:
        words += "; only reported: audit mode is on"
    return f"{DIRECTIONS[one.direction]}: {words}"


def _words(world: World, one: Side, *, watched: bool = False) -> str:
    if one.verdict.cause == "default-deny" and one.subject.name in world.contradictions:
        return f"isolated: {world.contradictions[one.subject.name]}"
    by = f" by {origin_text(one.rule)}" if one.rule is not None else ""
    match one.verdict.cause:
        case "allow-rule":
            through = f" through the {one.verdict.redirect} proxy" if one.verdict.redirect else ""
            return f"allowed{through}{by}"
        case "deny-rule":
            return f"denied{by}"
        case "not-enforced":
            return "not enforced"
        case "auth-required":
            return f"both ends must authenticate{by}"
        case "no-proxy":
            return f"no {one.verdict.redirect} proxy is there, which is asked for{by}"
        case "default-deny":
            objects = world.objects(one.subject, one.direction, watched=watched)
            policies = [object_text(each) for each in objects]
            return f"no rule{f' of {some(policies)}' if policies else ''} allows it (default deny)"


def proxy_reason(world: World, one: Side, answer: Answer) -> str:
    """Why the proxy that *one* sends the connection to lets a request pass or not."""
    origin = world.origin(one.subject, answer.rule)
    by = origin_text(origin) if origin is not None else "its rules"
    proxy = f"{DIRECTIONS[one.direction]}: {answer.redirect} proxy"
    match answer.cause:
        case "request-rule":
            return f"{proxy}: listed by {by}: {answer.entry}"
        case "allow-rule":
            return f"{proxy}: {by} allows it without a list"
        case "not-enforced":
            return f"{proxy}: only looked at"
        case "other-protocol":
            return f"{proxy}: reads other requests than that"
        case _:
            return f"{proxy}: refused, no rule lists it; {by} asks for the proxy"


def some(words: Sequence[str], limit: int = 3) -> str:
    """The first of *words*, and how many more there are."""
    rest = f" and {len(words) - limit} more" if len(words) > limit else ""
    return ", ".join(words[:limit]) + rest


def object_text(origin: Origin) -> str:
    """The object that a rule is part of: ``NetworkPolicy shop/web``."""
    name = f"{origin.namespace}/{origin.name}" if origin.namespace else origin.name
    return f"{origin.kind} {name}".strip()


def origin_text(origin: Origin) -> str:
    """A rule, for people: ``NetworkPolicy shop/web spec.ingress[0] (web.yaml:3)``."""
    source = f" ({origin.source})" if origin.source else ""
    return f"{object_text(origin)} {origin.section}{source}"
