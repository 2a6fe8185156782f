"""Addresses that DNS gives for a name, as policies know them.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cirri.engine import KINDS, InvalidPolicy, rules
from cirri.engine.names import canonical_name, matches_pattern
from cirri.labels import world_label
from cirri.model import Resource


def labels(resources: Iterable[Resource], name: str) -> list[str]:
    """Labels of an address that DNS gave for *name*, where the policies among *resources* are in force."""
    return [world_label(4), *known_as(spoken_of(resources), name)]


def known_as(texts: Iterable[str], name: str) -> list[str]:
    """Labels of an address that DNS gave for *name*, of those *texts* (of :func:`spoken_of`) that mean it."""
    wanted = canonical_name(name)
    return [f"fqdn:{text}" for text in texts if _means(text, wanted)]


def _means(text: str, name: str) -> bool:
    return text == name or ("*" in text and matches_pattern(text, name))


def spoken_of(resources: Iterable[Resource]) -> list[str]:
    """Names and patterns that policies among *resources* speak of."""
    return list(dict.fromkeys(_names(resources)))


def _names(resources: Iterable[Resource]) -> Iterator[str]:
    for one in resources:
        if one.kind not in KINDS:
            continue
        try:
            found = rules(one)
        except InvalidPolicy:
            continue  # means nothing, as elsewhere
        for rule in found:
            for term in rule.egress.terms:
                yield from filter(None, (peer.name for peer in term.peers or ()))
