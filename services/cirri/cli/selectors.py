"""``cirri policy selectors``: whom the selectors of peers select now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click
from msgspec import Struct

from cirri.cli.bus import with_bus
from cirri.cli.context import Target
from cirri.cli.output import emit, output, table
from cirri.model import POLICIES, SELECTORS, Direction, SelectorSet, SubjectPolicy

if TYPE_CHECKING:
    from cirri.kv import Bus


class Use(Struct, frozen=True, kw_only=True):
    """One selector."""

    key: str
    selector: str
    """In canonical form."""
    policies: tuple[str, ...]
    """``NAMESPACE/NAME`` of the objects that name it, as far as they have a subject."""
    users: int
    """Identities whose policy names it."""
    identities: tuple[int, ...]
    prefixes: tuple[str, ...]
    """Address prefixes that it tells apart."""


@click.command()
@output
@click.pass_obj
def selectors(target: Target, form: str | None) -> None:
    """List the selectors of peers, the policies that use them, and the identities that they select."""

    async def read(bus: Bus) -> list[Use]:
        sets = [entry.value for entry in await bus.entries(SELECTORS)]
        policies = [entry.value.subject for entry in await bus.entries(POLICIES)]
        return list(uses(sets, [policy for policy in policies if policy is not None]))

    found = with_bus(target, read)
    if form:
        emit(found, form)
        return
    rows = [
        (u.selector, u.policies or "-", str(u.users), [str(i) for i in u.identities] or "-") for u in found
    ]
    click.echo(table(("SELECTOR", "LABELS", "USERS", "IDENTITIES"), rows))


def uses(sets: Iterable[SelectorSet], policies: Iterable[SubjectPolicy]) -> Iterator[Use]:
    """Every selector, by its text."""
    from pyroaring import BitMap

    users: dict[str, set[int]] = {}
    names: dict[str, set[str]] = {}
    for policy in policies:
        origins = {origin.cookie: origin for origin in policy.origins}
        for rule in (rule for side in _sides(policy) for rule in side.rules):
            users.setdefault(rule.selector, set()).add(policy.identity)
            for origin in (origins[cookie] for cookie in rule.origins if cookie in origins):
                name = f"{origin.namespace}/{origin.name}" if origin.namespace else origin.name
                names.setdefault(rule.selector, set()).add(name or origin.section)
    for one in sorted(sets, key=lambda s: s.text):
        yield Use(
            key=one.key,
            selector=one.text,
            policies=tuple(sorted(names.get(one.key, ()))),
            users=len(users.get(one.key, ())),
            identities=tuple(BitMap.deserialize(one.identities)) if one.identities else (),
            prefixes=one.prefixes,
        )


def _sides(policy: SubjectPolicy) -> Iterator[Direction]:
    yield from filter(None, (policy.ingress, policy.egress, policy.audit_ingress, policy.audit_egress))
