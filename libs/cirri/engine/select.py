"""Selectors: predicates over one identity's labels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from cirri.labels import CLUSTER_KEY, NAMESPACE_KEY, NAMESPACE_LABELS_PREFIX, Label

Operator = Literal["In", "NotIn", "Exists", "DoesNotExist"]

ANY_SOURCE = "any"


class LabelSet:
    """An identity's labels, arranged for matching."""

    __slots__ = ("by_key", "by_name")

    def __init__(self, labels: Iterable[str]) -> None:
        self.by_name: dict[tuple[str, str], str] = {}
        self.by_key: dict[str, list[str]] = {}
        for text in labels:
            label = Label.parse(text)
            self.by_name[label.source, label.key] = label.value
            self.by_key.setdefault(label.key, []).append(label.value)

    def values(self, source: str, key: str) -> list[str]:
        """Values of *key*: under one source, or with source ``any`` under every source."""
        if source == ANY_SOURCE:
            return self.by_key.get(key, [])
        value = self.by_name.get((source, key))
        return [] if value is None else [value]


class Requirement(NamedTuple):
    """One condition on one key; *values* are sorted and empty for (Does)Not)Exist."""

    source: str
    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def holds(self, labels: LabelSet) -> bool:
        """Whether *labels* satisfy it; NotIn and DoesNotExist hold where the key is absent."""
        found = labels.values(self.source, self.key)
        match self.operator:
            case "Exists":
                return bool(found)
            case "DoesNotExist":
                return not found
            case "In":
                return any(value in self.values for value in found)
            case "NotIn":
                return not any(value in self.values for value in found)

    def __str__(self) -> str:
        name = f"{self.source}:{self.key}"
        match self.operator:
            case "Exists":
                return name
            case "DoesNotExist":
                return f"!{name}"
            case "In" if len(self.values) == 1:
                return f"{name}={self.values[0]}"
            case "In":
                return f"{name} in ({','.join(self.values)})"
            case "NotIn":
                return f"{name} notin ({','.join(self.values)})"


def require(source: str, key: str, operator: Operator, values: Iterable[str] = ()) -> Requirement:
    """A requirement in canonical form."""
    return Requirement(source, key, operator, tuple(sorted(set(values))))


@dataclass(frozen=True)
class Selector:
    """Matches an identity that satisfies every requirement of some alternative.

    Made by :meth:`of`, so that equal meanings written in another order are equal.
    """

    alternatives: tuple[tuple[Requirement, ...], ...]

    @classmethod
    def of(cls, *alternatives: Iterable[Requirement]) -> Selector:
        """The selector that is true where one of *alternatives* (ANDs) is; of() matches nothing."""
        return cls(tuple(sorted({tuple(sorted(set(each))) for each in alternatives})))

    @classmethod
    def label(cls, *labels: str) -> Selector:
        """Identities that have any one of *labels*, e.g. ``reserved:host``."""
        parsed = map(Label.parse, labels)
        return cls.of(*([require(one.source, one.key, "Exists")] for one in parsed))

    def matches(self, labels: LabelSet | Iterable[str]) -> bool:
        """Whether it selects an identity with *labels*."""
        known = labels if isinstance(labels, LabelSet) else LabelSet(labels)
        return any(all(one.holds(known) for one in each) for each in self.alternatives)

    @cached_property
    def text(self) -> str:
        """Canonical form: what :attr:`key` is a hash of, and what people read."""
        if not self.alternatives:
            return "none"
        return " or ".join(", ".join(map(str, each)) or "*" for each in self.alternatives)

    @cached_property
    def key(self) -> str:
        """Its key in bucket ``selectors``."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    @cached_property
    def anchors(self) -> frozenset[str]:
        """Tokens of which an identity must have at least one to be selected.

        See :func:`tokens`; "" (which every identity has) for a selector without any positive
        requirement.
        """
        return frozenset(anchor for each in self.alternatives for anchor in _anchor(each))


def tokens(labels: LabelSet) -> set[str]:
    """The tokens that an identity with *labels* has: names, and names with values."""
    found = {""}
    for (source, key), value in labels.by_name.items():
        for name in (f"{source}:{key}", f"{ANY_SOURCE}:{key}"):
            found.add(name)
            found.add(f"{name}={value}")
    return found


def _anchor(requirements: tuple[Requirement, ...]) -> tuple[str, ...]:
    positive = [one for one in requirements if one.operator in {"In", "Exists"}]
    if not positive:
        return ("",)
    best = min(positive, key=_breadth)
    name = f"{best.source}:{best.key}"
    return tuple(f"{name}={value}" for value in best.values) or (name,)


def _breadth(requirement: Requirement) -> tuple[int, int]:
    """How many identities it probably lets through: small for a label of the application's own."""
    derived = requirement.key in {NAMESPACE_KEY, CLUSTER_KEY} or requirement.key.startswith(
        NAMESPACE_LABELS_PREFIX
    )
    if requirement.operator == "Exists":
        return (3 if derived else 2, 0)
    return (1 if derived else 0, len(requirement.values))
