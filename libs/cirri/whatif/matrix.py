"""Everybody asked about everybody: the rows of ``cirri policy matrix``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import Literal

from msgspec import Struct

from cirri.engine import EGRESS, INGRESS
from cirri.engine.ports import PROTOCOL_NAMES
from cirri.whatif.ask import DIRECTIONS, Side, origin_text, reason, side, sides
from cirri.whatif.party import Party
from cirri.whatif.port import Port
from cirri.whatif.world import World

Answer = Literal["allow", "deny"]
Cause = Literal["allow-rule", "deny-rule", "default-deny", "not-enforced"]

TO_ITSELF = "what it sends to itself does not meet policy"
UNASKED = "neither side is under policy here"


class Row(Struct, frozen=True, kw_only=True, rename={"source": "from", "target": "to"}):
    """Whether one party may reach another, both sides together."""

    source: str
    target: str
    port: int
    """Of the destination, or the ICMP type."""
    protocol: str
    verdict: Answer
    reason: str


class Half(Struct, frozen=True, kw_only=True):
    """What one side says by itself."""

    subject: str
    direction: str
    peer: str
    port: int
    protocol: str
    verdict: Answer
    cause: Cause
    """What decided; a rule that asks for authentication, which nobody can give, allows and yet denies."""
    redirect: str
    """The proxy that the connection is sent to; ``none``."""
    rule: str
    """Object, section and place of the rule that decided; empty if none did."""


def rows(world: World, who: Sequence[Party], ports: Iterable[Port]) -> Iterator[Row]:
    """Each of *who* to each, for each of *ports*."""
    for port, source, target in product(ports, who, who):
        asked = sides(world, source, target, port)
        denied = [one for one in asked if not one.allowed]
        says = "; ".join(reason(world, one) for one in denied or asked)
        yield Row(
            source=source.name,
            target=target.name,
            port=port.number,
            protocol=PROTOCOL_NAMES[port.protocol],
            verdict="deny" if denied else "allow",
            reason=says or (TO_ITSELF if source is target else UNASKED),
        )


def halves(world: World, who: Sequence[Party], ports: Iterable[Port]) -> Iterator[Half]:
    """Each of *who* that has a policy, about each, for each of *ports* and both directions.

    About itself a pod says what it says about another one with the same labels.
    """
    subjects = [one for one in who if world.has_policy(one)]
    for port, subject, direction, peer in product(ports, subjects, (INGRESS, EGRESS), who):
        one = side(world, subject, direction, peer, port)
        yield Half(
            subject=subject.name,
            direction=DIRECTIONS[direction],
            peer=peer.name,
            port=port.number,
            protocol=PROTOCOL_NAMES[port.protocol],
            verdict="allow" if one.allowed else "deny",
            cause=_cause(one),
            redirect=one.verdict.redirect or "none",
            rule=origin_text(one.rule) if one.rule is not None else "",
        )


def _cause(one: Side) -> Cause:
    match one.verdict.cause:
        case "deny-rule" | "default-deny" | "not-enforced" as cause:
            return cause
        case "allow-rule" | "auth-required" | "no-proxy":
            return "allow-rule"
