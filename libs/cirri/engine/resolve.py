"""From the rule sets that select an identity to its policy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from cirri.engine.config import EngineConfig
from cirri.engine.origin import ALLOW_LOCALHOST
from cirri.engine.rule import ObjectRule, Ports, Section
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
    deny: bool


def resolve(
    rules: Iterable[ObjectRule], config: EngineConfig, *, init: bool = False
) -> tuple[Direction, Direction, tuple[Origin, ...]]:
    """Ingress, egress and the origins that they name.

    *init*: the endpoint's labels are not known yet; it is isolated whatever the rules say.
    """
    if config.mode == "never":
        return Direction(), Direction(), ()
    forced = init or config.mode == "always"
    selecting = list(rules)
    origins: dict[int, Origin] = {}
    ingress = _direction([rule.ingress for rule in selecting], origins, config, forced=forced, ingress=True)
    egress = _direction([rule.egress for rule in selecting], origins, config, forced=forced, ingress=False)
    return ingress, egress, tuple(sorted(origins.values(), key=_order))


def _direction(
    sections: list[Section], origins: dict[int, Origin], config: EngineConfig, *, forced: bool, ingress: bool
) -> Direction:
    present = [section for section in sections if section.present]
    enforced = forced or any(section.default_deny for section in present)
    gathered: dict[_Key, set[int]] = {}
    for section in present:
        origins.update((one.cookie, one) for one in section.origins)
        for term in section.terms:
            peers = (ANY_PEER,) if term.peers is None else [peer.key for peer in term.peers]
            for peer in peers:
                for ports in _ALL if term.ports is None else term.ports:
                    gathered.setdefault(_Key(peer, *ports[:3], term.deny), set()).add(term.origin.cookie)
    if ingress and enforced and config.allow_localhost:
        origins[ALLOW_LOCALHOST.cookie] = ALLOW_LOCALHOST
        gathered.setdefault(_Key(LOCALHOST.key, 0, 0, 0, deny=False), set()).add(ALLOW_LOCALHOST.cookie)
    return Direction(
        enforced=enforced,
        rules=tuple(
            Rule(
                selector=key.selector,
                protocol=key.protocol,
                port=key.port,
                end_port=key.end_port,
                deny=key.deny,
                origins=tuple(sorted(cookies, key=lambda cookie: _order(origins[cookie]))),
            )
            for key, cookies in sorted(gathered.items())
        ),
    )


def _order(origin: Origin) -> tuple[str, ...]:
    """What users wrote before what is built in, then by name."""
    return ("1" if origin.namespace == origin.name == "" else "0", origin.namespace, origin.name,
            origin.kind, origin.section)  # fmt: skip
