"""Why a connection may begin, or may not: rule by rule, for both ends.  Pure."""

from __future__ import annotations

from collections.abc import Container, Sequence
from ipaddress import ip_network
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from cirri.engine import EGRESS, INGRESS
from cirri.engine.explain import Check, Connection, Judgement, unselected
from cirri.engine.l7 import Request
from cirri.labels import CIDR, NAMESPACE_KEY, prefix_labels
from cirri.model import Origin, Resource
from cirri.whatif.ask import DIRECTIONS, Side, object_text, origin_text, proxy_reason, reason, side
from cirri.whatif.change import changes
from cirri.whatif.edits import Change, object_name
from cirri.whatif.party import Party
from cirri.whatif.port import Port
from cirri.whatif.situation import Labels, Situation, objects
from cirri.whatif.who import Speaker, labelled, uncounted
from cirri.whatif.words import End, holding, sentences
from cirri.whatif.world import World

BUILT_IN = "built-in"


class RuleReport(Struct, frozen=True, kw_only=True):
    """One rule beside the connection."""

    rule: str
    """``CiliumNetworkPolicy default/rule1 spec.ingress[0] (sw.yaml:3)``."""
    action: Literal["allow", "deny"]
    audit: bool
    """Its object is only watched."""
    matched: bool
    failed: int
    """How many of its conditions fail."""
    why: tuple[str, ...]
    """What of it the connection met; of a rule that does not match every condition that fails."""
    proxy: str = ""
    requests: tuple[str, ...] = ()
    """What the proxy lets pass."""
    authentication: str = ""


class Other(Struct, frozen=True, kw_only=True):
    """A policy that says nothing about the subject."""

    policy: str
    why: str
    elsewhere: bool
    """It is of another namespace, so no label would change that."""


class SideReport(Struct, frozen=True, kw_only=True):
    """What the policy of one end says."""

    subject: str
    direction: str
    peer: str
    verdict: Literal["allow", "deny"]
    cause: str
    """``allow-rule``, ``deny-rule``, ``default-deny``, ``not-enforced``, ``auth-required``; ``refused``,
    ``other-protocol``: the connection may begin, but the request may not pass."""
    says: str
    """The verdict in a sentence, with the rule that decided."""
    rule: str
    """The rule that decided; empty: none did."""
    audited: bool
    """It passes only because something is in audit mode, and is reported."""
    enforced: bool
    """What no rule allows is dropped."""
    enforced_by: tuple[str, ...]
    """The policies that make it so, or what does."""
    rules: tuple[RuleReport, ...]
    others: tuple[Other, ...]
    nearest: str = ""
    """Of a default deny: the allow that the fewest conditions of fail."""
    missing: tuple[str, ...] = ()
    """Those conditions."""
    changes: tuple[Change, ...] = ()
    """What would let the connection through here, the smallest first."""
    request: str = ""
    """What the proxy says about the request, in a sentence; empty: none is asked."""


class Destination(Struct, frozen=True, kw_only=True, rename={"target": "to"}):
    """One end that the connection may reach; of a Service those that are alike are one."""

    target: str
    also: tuple[str, ...] = ()
    """Others of whom the same holds."""
    port: str
    verdict: Literal["allow", "deny"]
    unasked: tuple[str, ...] = ()
    """Why an end is not asked, or nobody reads the request."""
    sides: tuple[SideReport, ...]


class Report(Struct, frozen=True, kw_only=True, rename={"source": "from", "target": "to"}):
    """The whole explanation."""

    source: str
    target: str
    port: str
    verdict: Literal["allow", "deny", "mixed"]
    notes: tuple[str, ...] = ()
    """How the question was understood."""
    destinations: tuple[Destination, ...]


def explain(
    world: World,
    speaker: Speaker,
    source: str,
    target: str,
    port: Port,
    *,
    request: Request | None = None,
    audited: Container[str] = (),
) -> Report:
    """What becomes of a connection from *source* to *port* of *target*, words that *speaker* understands,
    and of *request* over it.

    *audited*: names of parties that are in audit mode themselves.  Raises Unknown, NoBackend.
    """
    first = speaker.party(source, world)
    goal = speaker.goal(target, port, world)
    alike: dict[tuple[int, int, Port], list[Party]] = {}
    for party, number in goal.ends:
        alike.setdefault((world.number(party), world.number(party, first), number), []).append(party)
    found = []
    for (_, _, number), parties in alike.items():
        also = tuple(dict.fromkeys(each.name for each in parties[1:]))
        one = destination(
            world, speaker.resources, first, parties[0], number, request=request, audited=audited
        )
        found.append(replace(one, also=also))
    verdicts = {one.verdict for one in found}
    return Report(
        source=first.name,
        target=target if len(goal.ends) > 1 or goal.ends[0][1] != port else goal.ends[0][0].name,
        port=str(port),
        verdict=verdicts.pop() if len(verdicts) == 1 else "mixed",
        notes=(goal.note,) if goal.note else (),
        destinations=tuple(found),
    )


def destination(
    world: World,
    resources: Sequence[Resource],
    source: Party,
    target: Party,
    port: Port,
    *,
    request: Request | None = None,
    audited: Container[str] = (),
) -> Destination:
    """What becomes of a connection from *source* to *port* of *target*, and why."""
    if source is target and not source.many:
        says = f"{source.name} talks to itself: no policy is asked"
        return Destination(target=target.name, port=str(port), verdict="allow", unasked=(says,), sides=())
    said, context = objects(resources, world.setting.config)
    situation = Situation(
        said,
        context,
        world.setting.config,
        Labels(_labels(world, source), _labels(world, source, target)),
        Labels(_labels(world, target), _labels(world, target, source)),
        port,
    )
    found, unasked = [], []
    for direction, subject, peer in ((EGRESS, source, target), (INGRESS, target, source)):
        if world.has_policy(subject):
            asked = side(world, subject, direction, peer, port)
            if subject.name in audited:
                asked = asked._replace(audit=True)
            one = _side(world, resources, situation, asked)
            found.append(one if request is None else _answered(world, one, asked, port, request))
        else:
            unasked.append(_unasked(world, subject))
    verdict: Literal["allow", "deny"] = "allow" if all(each.verdict == "allow" for each in found) else "deny"
    if verdict == "allow" and request is not None and not any(each.request for each in found):
        unasked.append("no proxy reads the request")
    return Destination(
        target=target.name, port=str(port), verdict=verdict, unasked=tuple(unasked), sides=tuple(found)
    )


def _labels(world: World, party: Party, by: Party | None = None) -> frozenset[str]:
    """As *world* has them; of an address outside it is itself a prefix, whatever policies tell apart now."""
    labels = world.labels(party, by)
    if party.outside is None:
        return labels
    own = prefix_labels(ip_network(party.outside))
    return frozenset(text for text in labels if not text.startswith(f"{CIDR}:")) | frozenset(own)


def _unasked(world: World, party: Party) -> str:
    if party.role == "node":
        return f"{party.name} is a node: it is under policy with enable-host-firewall only"
    if party.outside is not None:
        return f"{party.name} is outside the cluster: it has no policy"
    return f"{party.name} has no policy here"


def _side(world: World, resources: Sequence[Resource], situation: Situation, asked: Side) -> SideReport:
    direction, cluster = asked.direction, situation.config.cluster
    judgement, connection = situation.judge(direction), situation.connection(direction)
    end = _end(world, resources, asked.peer, asked.subject)
    near = _nearest(judgement) if asked.verdict.cause == "default-deny" else None
    pod = labelled(resources, asked.peer)
    mend = not asked.verdict.allowed and asked.verdict.cause in {"default-deny", "deny-rule"}
    return SideReport(
        subject=asked.subject.name,
        direction=DIRECTIONS[direction],
        peer=asked.peer.name,
        verdict="allow" if asked.allowed else "deny",
        cause=asked.verdict.cause,
        says=reason(world, asked),
        rule=origin_text(asked.rule) if asked.rule is not None else "",
        audited=asked.audited,
        enforced=judgement.enforced,
        enforced_by=_enforced_by(judgement),
        rules=tuple(_rule(check, end, connection, cluster) for check in judgement.checks),
        others=tuple(_others(situation, direction, asked.subject)),
        nearest=origin_text(near.origin) if near else "",
        missing=sentences(near.failed, end, connection) if near else (),
        changes=tuple(changes(situation, direction, address=end.address, pod=pod)) if mend else (),
    )


def _answered(world: World, one: SideReport, asked: Side, port: Port, request: Request) -> SideReport:
    """*one* with what the proxy says about *request*, if there is one."""
    if not (asked.verdict.allowed and asked.verdict.redirect):
        return one
    answer = world.answer(asked.subject, asked.direction, asked.peer, port, request)
    says = proxy_reason(world, asked, answer).partition(": ")[2]
    if answer.allowed:
        return replace(one, request=says)
    return replace(one, request=says, verdict="deny", cause=answer.cause)


def _rule(check: Check, end: End, connection: Connection, cluster: str) -> RuleReport:
    failed = sentences(check.failed, end, connection)
    payload = check.payload
    return RuleReport(
        rule=_built_in(check.origin) or origin_text(check.origin),
        action="deny" if check.deny else "allow",
        audit=check.audit,
        matched=check.matched,
        failed=len(check.failed),
        why=failed or (holding(check, end, cluster),),
        proxy=payload.kind,
        requests=payload.requests,
        authentication=payload.auth,
    )


def _built_in(origin: Origin) -> str:
    return f"built in: {origin.section}" if origin.kind == BUILT_IN else ""


def _nearest(judgement: Judgement) -> Check | None:
    near = [each for each in judgement.checks if not each.deny and not each.audit and each.failed]
    return min(near, key=lambda each: len(each.failed), default=None)


def _enforced_by(judgement: Judgement) -> tuple[str, ...]:
    if judgement.forced:
        return (judgement.forced,)
    return tuple(dict.fromkeys(map(object_text, judgement.isolating)))


def _others(situation: Situation, direction: int, subject: Party) -> list[Other]:
    """Policies with rules for *direction* none of which is for the subject, the nearest first."""
    connection = situation.connection(direction)
    labels = End(subject.name, frozenset(subject.labels))
    found = []
    for said in situation.objects:
        about = [r for r in said.rules if (r.ingress if connection.ingress else r.egress).present]
        if not about or any(rule.subject.matches(connection.subject) for rule in about):
            continue
        failed = min((unselected(rule, connection.subject) for rule in about), key=len)
        why = "; ".join(sentences(failed, labels, connection, who="it"))
        elsewhere = any(
            one.requirement is not None and one.requirement.key == NAMESPACE_KEY for one in failed
        )
        other = Other(policy=object_name(said.resource), why=why, elsewhere=elsewhere)
        found.append((elsewhere, len(failed), other))
    return [other for *_, other in sorted(found, key=lambda each: each[:2])]


def _end(world: World, resources: Sequence[Resource], party: Party, by: Party) -> End:
    address = str(party.outside) if party.outside is not None else ""
    return End(party.name, _labels(world, party, by), address, uncounted(resources, party))
