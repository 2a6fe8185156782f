"""From the rule sets that select a subject to what its policy says, conflicts included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from cirri.engine.bind import for_subject
from cirri.engine.config import EngineConfig
from cirri.engine.resolve import resolve
from cirri.engine.rule import ObjectRule, PolicyConflict
from cirri.engine.select import Selector
from cirri.model import Direction, Origin


class Traits(NamedTuple):
    """What of a subject matters beside the rules that select it."""

    init: bool = False
    """Its labels are not known yet."""
    host: bool = False
    """It is a node."""
    ports: tuple[tuple[str, str], ...] = ()
    """Its numbers for ports by name (``tcp/http``) that some rule names, sorted."""


@dataclass(frozen=True)
class Outcome:
    """What holds for every subject that the same rules select and that is alike."""

    ingress: Direction
    egress: Direction
    audit_ingress: Direction | None = None
    audit_egress: Direction | None = None
    origins: tuple[Origin, ...] = ()
    selectors: tuple[Selector, ...] = ()
    """Those that its rules name and no object does."""
    confirm_by: float = 0.0
    error: str = ""
    """Why the rules cannot hold together."""
    audit_error: str = ""
    """Why they cannot together with those that are only watched; the others hold."""


def outcome(rules: Sequence[ObjectRule], config: EngineConfig, traits: Traits) -> Outcome:
    """What *rules* say of a subject with *traits*.

    With an ``error`` the directions are those of an endpoint that no rule selects and that is isolated: for
    a subject that has no earlier policy to keep.
    """
    in_force = [rule for rule in rules if not rule.audit]
    confirm_by = min((rule.confirm_by for rule in rules if rule.confirm_by), default=0.0)
    try:
        ingress, egress, origins, selectors = _resolved(in_force, config, traits)
        found = Outcome(ingress, egress, None, None, origins, selectors, confirm_by)
    except PolicyConflict as conflict:
        isolated = replace(config, mode="always")
        ingress, egress, origins, selectors = _resolved([], isolated, traits)
        return Outcome(ingress, egress, None, None, origins, selectors, confirm_by, str(conflict))
    if len(in_force) == len(rules):
        return found
    try:
        ingress, egress, origins, selectors = _resolved(rules, config, traits)
    except PolicyConflict as conflict:
        return replace(found, audit_error=str(conflict))
    return replace(
        found,
        audit_ingress=ingress,
        audit_egress=egress,
        origins=origins,
        selectors=tuple(dict.fromkeys((*found.selectors, *selectors))),
    )


def _resolved(
    rules: Sequence[ObjectRule], config: EngineConfig, traits: Traits
) -> tuple[Direction, Direction, tuple[Origin, ...], tuple[Selector, ...]]:
    theirs = for_subject(rules, dict(traits.ports))
    ingress, egress, origins = resolve(theirs, config, init=traits.init, host=traits.host)
    if theirs == rules:
        return ingress, egress, origins, ()
    known = {peer.key for rule in rules for peer in peers(rule)}
    made = {peer.key: peer for rule in theirs for peer in peers(rule) if peer.key not in known}
    return ingress, egress, origins, tuple(made[key] for key in sorted(made))


def peers(rule: ObjectRule) -> list[Selector]:
    """Every peer selector that *rule* names, as often as it does."""
    terms = (*rule.ingress.terms, *rule.egress.terms)
    return [selector for term in terms for selector in term.peers or ()]
