"""From the rule sets that select an identity to its policy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import itemgetter
from typing import NamedTuple

from msgspec.structs import replace

from cirri.engine.config import EngineConfig
from cirri.engine.merge import Asked, merge, priority, proxied, widened
from cirri.engine.origin import ALLOW_LOCALHOST
from cirri.engine.ports import PROTOCOL_NAMES
from cirri.engine.rule import ObjectRule, Ports, Section, Term
from cirri.engine.select import Selector
from cirri.model import Direction, Origin, Rule
from cirri.model.policy import ANY_PEER

LOCALHOST = Selector.label("reserved:host")

_ALL = (Ports(0),)


class _Key(NamedTuple):
    selector: str
    protocol: int
    port: int
    end_port: int


@dataclass(slots=True)
class _Gathered:
    """Everything that is said about the same peers and ports."""

    peer: str
    """Who they are, for people."""
    asked: list[Asked] = field(default_factory=list)
    denied: list[Origin] = field(default_factory=list)


def resolve(
    rules: Iterable[ObjectRule], config: EngineConfig, *, init: bool = False, host: bool = False
) -> tuple[Direction, Direction, tuple[Origin, ...]]:
    """Ingress, egress and the origins that they name.

    *init*: the endpoint's labels are not known yet; it is isolated whatever the rules say.
    *host*: it is the node itself, which ``enable-host-firewall`` must be on for.
    Raises PolicyConflict if rules for the same peers and ports cannot hold together.
    """
    if config.mode == "never" or (host and not config.host_firewall):
        return Direction(), Direction(), ()
    forced = init or config.mode == "always"
    selecting = list(rules)
    origins: dict[int, Origin] = {}
    ingress = _direction([rule.ingress for rule in selecting], "ingress", origins, forced=forced)
    egress = _direction([rule.egress for rule in selecting], "egress", origins, forced=forced)
    matters = ingress.enforced or any(rule.auth for rule in ingress.rules)
    if matters and config.allow_localhost and not host:
        origins[ALLOW_LOCALHOST.cookie] = ALLOW_LOCALHOST
        ingress = _with_localhost(ingress)
    return ingress, egress, tuple(sorted(origins.values(), key=_order))


def _direction(sections: list[Section], name: str, origins: dict[int, Origin], *, forced: bool) -> Direction:
    present = [section for section in sections if section.present]
    enforced = forced or any(section.default_deny for section in present)
    gathered: dict[_Key, _Gathered] = {}
    for section in present:
        origins.update((one.cookie, one) for one in section.origins)
        for term in section.terms:
            _gather(term, gathered)
    rules = (
        _rule(key, said, f"{name} {_words(key)} of {said.peer}", enforced=enforced)
        for key, said in sorted(gathered.items(), key=itemgetter(0))
    )
    return Direction(enforced=enforced, rules=tuple(rules))


def _gather(term: Term, gathered: dict[_Key, _Gathered]) -> None:
    """Put what *term* says to what others say about the same peers and ports."""
    peers = (
        [(ANY_PEER, "every peer")] if term.peers is None else [(each.key, each.text) for each in term.peers]
    )
    for peer, text in peers:
        for ports in _ALL if term.ports is None else term.ports:
            if ports.name:
                continue  # nobody has a port of this name
            into = gathered.setdefault(_Key(peer, *ports[:3]), _Gathered(text))
            if term.deny:
                into.denied.append(term.origin)
            else:
                into.asked.append(Asked(term.payload, term.origin))


def _rule(key: _Key, said: _Gathered, place: str, *, enforced: bool) -> Rule:
    if said.denied:
        return Rule(**key._asdict(), deny=True, origins=_cookies(said.denied))
    payload = merge(sorted(said.asked, key=lambda one: _order(one.origin)), place)
    if not enforced:
        payload = widened(payload)
    return Rule(
        **key._asdict(),
        redirect=payload.kind,
        priority=priority(payload),
        l7=proxied(payload),
        auth=payload.auth,
        origins=_cookies(one.origin for one in said.asked),
    )


def _with_localhost(ingress: Direction) -> Direction:
    """The node may reach its pods on every port unless a rule denies it."""
    key = _Key(LOCALHOST.key, 0, 0, 0)
    rules = {_Key(one.selector, one.protocol, one.port, one.end_port): one for one in ingress.rules}
    said = rules.get(key) or Rule(**key._asdict())
    if not said.deny:
        auth = said.auth or "disabled"  # or allowing the node would bind it to what others have to do
        rules[key] = replace(said, auth=auth, origins=(*said.origins, ALLOW_LOCALHOST.cookie))
    return replace(ingress, rules=tuple(rule for _, rule in sorted(rules.items(), key=itemgetter(0))))


def _cookies(origins: Iterable[Origin]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(one.cookie for one in sorted(origins, key=_order)))


def _words(key: _Key) -> str:
    """Its ports, for people."""
    if not key.protocol:
        return "every port"
    port = f"{key.port}-{key.end_port}" if key.end_port > key.port else key.port or "all"
    return f"{PROTOCOL_NAMES.get(key.protocol, key.protocol)}/{port}"


def _order(origin: Origin) -> tuple[str, ...]:
    """What users wrote before what is built in, then by name."""
    return ("1" if origin.namespace == origin.name == "" else "0", origin.namespace, origin.name,
            origin.kind, origin.section)  # fmt: skip
