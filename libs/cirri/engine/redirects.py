"""Where entries redirect to: for each peer and block of ports one listener, and what its proxy lets pass.

The kernel decides by the best entry alone; the proxy is to know every rule that covers a connection, as
:mod:`cirri.engine.l7` says.  So what is redirected is cut into blocks of ports about which the same rules
speak, and a peer that further rules allow has entries of its own beside those for everybody.  Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from pyroaring import BitMap

from cirri.engine.entries import (
    ANYBODY,
    EGRESS,
    INGRESS,
    PORT_BITS,
    Entries,
    EntryKey,
    EntryValue,
    Sets,
    entries,
    members,
    prefixes,
)
from cirri.engine.l7 import cookie, told
from cirri.engine.ports import TCP, UDP
from cirri.engine.requests import canonical
from cirri.engine.verdict import longest
from cirri.labels import NAMES_SPACE, Reserved
from cirri.model import Direction, Rule, SubjectPolicy
from cirri.model.policy import ANY_PEER

WORLDS = (Reserved.WORLD, Reserved.WORLD_IPV4, Reserved.WORLD_IPV6)
"""Who an address is that only its names tell apart."""

LISTENERS = ("http", "tls")
"""Kinds of proxies that have a port for each set of rules; ``dns`` has one port for everybody."""

NOTHING = canonical({"any": False, "allows": []})
"""Rules of a listener that lets nothing pass."""
EVERYTHING = canonical({"any": True, "allows": []})


class Wanted(NamedTuple):
    """A listener that entries lead to."""

    direction: int
    kind: str
    rules: str
    """What it lets pass: canonical JSON, see :mod:`cirri.proxies`; "" of kind ``dns``."""


@dataclass(frozen=True, slots=True)
class Expansion:
    """The kernel's entries for a policy, but for the ports of listeners."""

    entries: Entries
    """Where there is no listener yet a redirect has port 0, which means that nothing passes."""
    redirects: dict[EntryKey, Wanted] = field(default_factory=dict)
    """Which of them lead to a listener."""


class DnsGrant(NamedTuple):
    """Names that one rule lets its subject ask some servers for."""

    protocol: int
    port: int
    selector: str
    """Of the servers, or ANY_PEER."""
    entries: tuple[str, ...]
    """Canonical JSON each."""
    any: bool
    cookie: int


def expand(policy: SubjectPolicy, sets: Sets, *, only: Collection[int] | None = None) -> Expansion:
    """Entries of *policy* with *sets*, and the listeners that they lead to; *only* as in :func:`entries`."""
    found = entries(policy, sets, only=only)
    both = ((INGRESS, policy.ingress), (EGRESS, policy.egress))
    sides = [(way, side) for way, side in both if any(rule.redirect for rule in side.rules)]
    if not sides:
        return Expansion(found)
    wanted = None if only is None else BitMap(only)
    cut = {direction for direction, _ in sides}
    # Blocks of single protocols are written anew below, cut where other rules begin and end.
    kept = {
        key: value
        for key, value in found.items()
        if not (value.priority and key.direction in cut and key.protocol in {TCP, UDP})
    }
    redirects: dict[EntryKey, Wanted] = {}
    # With everybody's beside a peer's own: who has to authenticate is said by the one that decides.
    weighed = found if only is None or ANYBODY in only else None
    for direction, side in sides:
        for own, others, peers in _groups(side, sets, wanted):
            blocks = list(_redirected(direction, own, others, enforced=side.enforced))
            strict = any(rule.auth for rule in (*own, *others))
            if strict and weighed is None:
                weighed = entries(policy, sets, only=[*(only or ()), ANYBODY])
            for peer in peers if blocks else ():
                for protocol, port, bits, value, to in blocks:
                    key = EntryKey(peer, direction, protocol, port, bits)
                    kept[key] = value._replace(auth=_asks(weighed, key)) if strict else value
                    if to is not None:
                        redirects[key] = to
    return Expansion(kept, redirects)


def dns_grants(policy: SubjectPolicy) -> Iterator[DnsGrant]:
    """What the DNS proxy is to know: every rule about exactly a port that some rule has it look at."""
    rules = policy.egress.rules
    looked_at = {(rule.protocol, rule.port) for rule in rules if rule.redirect == "dns"}
    for rule in rules:
        if rule.deny or rule.end_port > rule.port or (rule.protocol, rule.port) not in looked_at:
            continue
        said = told(rule.l7)
        if "requests" not in said or rule.redirect == "dns":
            names = tuple(canonical(each) for each in said.get("requests", ()))
            yield DnsGrant(
                rule.protocol, rule.port, rule.selector, names, "requests" not in said, cookie(rule)
            )


def listener_rules(rules: Iterable[Rule], kind: str, *, enforced: bool) -> str:
    """What a proxy of *kind* lets pass of connections that *rules*, which are no denies, cover.

    As :func:`cirri.engine.l7.answer` asks them.  Without *enforced* everything passes.
    """
    allows: dict[str, dict[str, Any]] = {}
    plain: set[int] = set()
    for rule in rules:
        said = told(rule.l7)
        if "requests" in said and rule.redirect != kind:
            continue
        allow = {
            "cookie": cookie(rule),
            "requests": said.get("requests"),
            "serverNames": said.get("serverNames"),
            "terminating": said.get("terminatingTLS"),
            "originating": said.get("originatingTLS"),
        }
        given = {key: value for key, value in allow.items() if value is not None}
        allows[canonical(given)] = given
        if not given.keys() & {"requests", "serverNames"}:
            plain.add(cookie(rule))
    everything = bool(plain) or not enforced
    if everything:  # what else is listed changes nothing, but how TLS is read
        tls = {text: one for text, one in allows.items() if one.keys() & {"terminating", "originating"}}
        first = {"cookie": min(plain)} if plain else {}
        allows = {**tls, canonical(first): first} if first else tls
    return canonical({"any": everything, "allows": [allows[text] for text in sorted(allows)]})


_Block = tuple[int, int, int, EntryValue, Wanted | None]
"""protocol, port, bits; what holds; where it leads."""


def _groups(
    side: Direction, sets: Sets, wanted: BitMap | None
) -> Iterator[tuple[list[Rule], list[Rule], Iterable[int]]]:
    """Rules of their own and those for everybody, of peers that the same rules name."""
    by_selector: dict[str, list[Rule]] = {}
    for rule in side.rules:
        by_selector.setdefault(rule.selector, []).append(rule)
    anybody = by_selector.pop(ANY_PEER, [])
    if wanted is None or ANYBODY in wanted:
        yield anybody, [], [ANYBODY]
    selected = {key: members(sets[key]) for key in by_selector}
    world = [key for key, one in selected.items() if all(number in one for number in WORLDS)]
    outside = [rule for key in world for rule in by_selector[key]]
    concerned = BitMap()
    for key, one in selected.items():
        if any(rule.redirect for rule in (*anybody, *by_selector[key])):
            concerned |= one
    if any(rule.redirect for rule in outside):
        for one in selected.values():
            concerned |= one & NAMES
    if wanted is not None:
        concerned &= wanted
    named: dict[int, list[str]] = {}
    for key, one in selected.items():
        for peer in one & concerned:
            named.setdefault(peer, []).append(key)
    groups: dict[tuple[bool, tuple[str, ...]], list[int]] = {}
    for peer, keys in named.items():
        groups.setdefault((peer in NAMES_SPACE, tuple(keys)), []).append(peer)
    for (learnt, signature), peers in groups.items():
        own = [rule for key in signature for rule in by_selector[key]]
        # An address that is known by its names is outside, and what is allowed there covers it too.
        yield [*own, *outside] if learnt else own, anybody, peers


NAMES = BitMap(NAMES_SPACE)


def _asks(weighed: Entries | None, key: EntryKey) -> bool:
    """Whether both ends of what *key* speaks of have to authenticate each other."""
    for peer in (key.identity, ANYBODY):
        if weighed and (base := longest(weighed, peer, key.direction, key.protocol, key.port)):
            return base[1].auth
    return False


def _redirected(
    direction: int, own: Sequence[Rule], others: Sequence[Rule], *, enforced: bool
) -> Iterator[_Block]:
    """Blocks that *own* speak of and that, with *others*, go to a proxy."""
    for protocol in (TCP, UDP):
        mine = [rule for rule in own if rule.protocol in {0, protocol}]
        theirs = [rule for rule in others if rule.protocol in {0, protocol}]
        if not any(rule.redirect for rule in (*mine, *theirs)):
            continue
        bounds = sorted({0, 1 << PORT_BITS, *(end for rule in (*mine, *theirs) for end in _bounds(rule))})
        for first, after in pairwise(bounds):
            covering = [rule for rule in mine if _covers(rule, first)]
            if not covering:
                continue
            covering += (rule for rule in theirs if _covers(rule, first))
            strongest = max(covering, key=lambda rule: (rule.priority, -cookie(rule)))
            kind = strongest.redirect
            if not kind or any(rule.deny for rule in covering):
                continue
            to = None
            if kind in LISTENERS and protocol == TCP:
                to = Wanted(direction, kind, listener_rules(covering, kind, enforced=enforced))
            elif kind == "dns":
                to = Wanted(direction, kind, "")
            value = EntryValue(cookie(strongest), priority=strongest.priority, redirect=kind)
            for port, bits in prefixes(first, after - 1):
                yield protocol, port, bits, value, to


def _bounds(rule: Rule) -> tuple[int, int]:
    """Its first port, and the one after its last."""
    if not rule.protocol or (not rule.port and not rule.end_port):
        return 0, 1 << PORT_BITS
    return rule.port, max(rule.port, rule.end_port) + 1


def _covers(rule: Rule, port: int) -> bool:
    first, after = _bounds(rule)
    return first <= port < after
