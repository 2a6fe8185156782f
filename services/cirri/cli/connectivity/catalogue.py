"""Which tests there are, and which of them were asked for.  Pure but for reading the files beside it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml
from msgspec import Struct

from cirri.errors import CirriError

HERE = Path(__file__).parent
Expected = Literal["allow", "drop", "403", "closed", "no-name"]
Variant = Literal["ccnp", "port-range"]


class Check(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Some ask some others, and what should come of it."""

    scenario: str
    sources: tuple[str, ...] = msgspec.field(name="from")
    to: tuple[str, ...]
    by: Literal["http", "https", "ping"] = "http"
    expect: Expected = "allow"
    path: str = "/"
    method: str = "GET"
    headers: dict[str, str] = {}
    port: int = 0
    """0: the usual one."""


class Case(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Policies, and what holds under them."""

    test: str
    policies: tuple[str, ...] = ()
    checks: tuple[Check, ...]
    variants: tuple[Variant, ...] = ()
    variant: Variant | None = None
    """What is done to the policies first."""

    @property
    def scenarios(self) -> tuple[str, ...]:
        """Names of what it looks at, each once."""
        return tuple(dict.fromkeys(check.scenario for check in self.checks))


class BadPattern(CirriError):
    """``--test`` is no regular expression."""

    def __init__(self, pattern: str, why: str) -> None:
        super().__init__(f'--test "{pattern}": {why}')


@cache
def cases() -> tuple[Case, ...]:
    """All of them, in the order in which they run, variants after what they are variants of."""
    said = yaml.safe_load((HERE / "scenarios.yaml").read_text())
    groups: dict[str, list[str]] = said["groups"]
    found = []
    for entry in said["tests"]:
        checks = [_plain(check, groups) for check in entry["checks"]]
        test = msgspec.convert({**entry, "checks": checks}, Case)
        found.append(test)
        for variant in test.variants:
            name = f"{test.test}-{variant}"
            found.append(msgspec.structs.replace(test, test=name, variants=(), variant=variant))
    return tuple(found)


def _plain(check: dict[str, Any], groups: dict[str, list[str]]) -> dict[str, Any]:
    """*check* with names in the place of groups."""
    return {**check, **{side: _names(check[side], groups) for side in ("from", "to")}}


def _names(said: str | list[str], groups: dict[str, list[str]]) -> list[str]:
    words = [said] if isinstance(said, str) else said
    return [name for word in words for name in groups.get(word, [word])]


def select(known: Iterable[Case], patterns: Sequence[str]) -> tuple[Case, ...]:
    """Those of *known* that *patterns* name, in their order.

    A pattern is a regular expression that is searched in ``TEST`` and ``TEST/SCENARIO``; with ``!`` in
    front it takes out.  What is taken out is out, whatever else names it; without a pattern that takes
    in, all are in.  Of a test of which only some scenarios are named, only these remain.  Raises: BadPattern.
    """
    inside = [_compiled(p) for p in patterns if not p.startswith("!")]
    outside = [_compiled(p[1:]) for p in patterns if p.startswith("!")]

    def named(by: list[re.Pattern[str]], test: str, scenario: str) -> bool:
        return any(p.search(test) or p.search(f"{test}/{scenario}") for p in by)

    def wanted(test: str, scenario: str) -> bool:
        return (not inside or named(inside, test, scenario)) and not named(outside, test, scenario)

    found = []
    for test in known:
        checks = tuple(c for c in test.checks if wanted(test.test, c.scenario))
        if checks:
            found.append(msgspec.structs.replace(test, checks=checks))
    return tuple(found)


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise BadPattern(pattern, str(error)) from None
