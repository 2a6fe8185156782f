"""What a change of policies would do to the traffic that was seen.  Pure.

What was seen is asked of the world as it is now and of the world with the change: only what the change itself
does is told, also where labels or policies have changed since.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from cirri.history.questions import ranked, when
from cirri.history.replay import Asked, Decision, Replay, Tally, port_text, request_text
from cirri.model import Resource, resource_key


class Effect(Struct, frozen=True, kw_only=True):
    """Something that was seen and that would go otherwise."""

    client: str
    server: str
    port: str
    request: str
    """Empty: the connection itself."""
    passed: int
    """How often it was seen to pass: connections, or requests."""
    stopped: int
    """How often it was seen stopped: packets, or requests."""
    last: str
    uuid: str
    """Of the latest flow."""
    reason: str
    """Why it would go so."""


class Simulation(Struct, frozen=True, kw_only=True, rename="camel"):
    """All that would change."""

    newly_denied: tuple[Effect, ...]
    newly_allowed: tuple[Effect, ...]
    newly_read: tuple[Effect, ...]
    """Connections that a proxy would read, of which no request was seen: whether those would pass nobody
    can tell."""
    asked: int
    """Different things that were seen."""
    otherwise: int
    """Of those, how many are decided otherwise now than when they were seen, without the change."""
    warnings: tuple[str, ...] = ()


def changed(
    resources: Iterable[Resource], applied: Iterable[Resource], deleted: Iterable[tuple[str, str, str]]
) -> list[Resource]:
    """*resources* with *applied* in place of those of the same name, and without *deleted* (kind,
    namespace, name)."""
    gone = {*deleted}
    found = {
        resource_key(one.kind, one.namespace, one.name, one.node): one
        for one in resources
        if (one.kind, one.namespace, one.name) not in gone
    }
    for one in applied:
        found[resource_key(one.kind, one.namespace, one.name, one.node)] = one
    return list(found.values())


def simulate(
    traffic: Mapping[Asked, Tally], before: Sequence[Resource], after: Sequence[Resource]
) -> Simulation:
    """What becomes of *traffic* when the objects *before* are those *after*.  Raises Contradiction."""
    places = {each for about in traffic for each in (about.client, about.server)}
    now, then = Replay(before, places), Replay(after, places)
    denied, allowed, read = [], [], []
    otherwise = 0
    with_requests = {about[:3] for about in traffic if about.request is not None}
    for about, tally in traffic.items():
        first, second = now.decide(about), then.decide(about)
        otherwise += _otherwise(tally, first)
        if about.request is not None and first.opens != second.opens:
            continue  # the connection under it is told
        if first.allowed and not second.allowed:
            denied.append(_effect(about, tally, second))
        elif second.allowed and not first.allowed:
            allowed.append(_effect(about, tally, second))
        elif second.proxy not in ("", first.proxy) and second.allowed and about[:3] not in with_requests:
            read.append(_effect(about, tally, second))
    return Simulation(
        newly_denied=tuple(ranked(denied, lambda one: one.passed)),
        newly_allowed=tuple(ranked(allowed, lambda one: one.stopped)),
        newly_read=tuple(ranked(read, lambda one: one.passed)),
        asked=len(traffic),
        otherwise=otherwise,
        warnings=tuple(dict.fromkeys([*now.warnings, *then.warnings])),
    )


def _otherwise(tally: Tally, now: Decision) -> bool:
    """Whether what was seen is not what policies say *now*; where both was seen nobody can tell."""
    if tally.passed and not tally.stopped:
        return not now.allowed
    return bool(tally.stopped and not tally.passed and now.allowed)


def _effect(about: Asked, tally: Tally, decision: Decision) -> Effect:
    return Effect(
        client=tally.client,
        server=tally.server,
        port=port_text(about.port),
        request=request_text(about.request),
        passed=tally.passed,
        stopped=tally.stopped,
        last=when(tally.last_ns),
        uuid=tally.uuid,
        reason=decision.reason,
    )
