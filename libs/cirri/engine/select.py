"""Selectors: predicates over one identity's labels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal, NamedTuple

from cirri.engine.span import Span, span_of
from cirri.labels import CIDR, CLUSTER_KEY, NAMESPACE_KEY, NAMESPACE_LABELS_PREFIX, PORT, Label
from cirri.labels.prefixes import Network, prefix_key, prefix_of

Operator = Literal["In", "NotIn", "Exists", "DoesNotExist", "Within", "NotWithin"]

ANY_SOURCE = "any"
FQDN = "fqdn"

SHOWN = 20
"""Alternatives of a selector that people are shown."""

Token = str | Span
"""What an identity has at least one of if a condition holds: a name (``k8s:app``), a name with its value
(``k8s:app=web``), ``""``, which every identity has, or a prefix that one of its prefixes lies in."""


class _Known(NamedTuple):
    """A label's text, taken apart."""

    name: tuple[str, str]
    value: str
    tokens: tuple[str, ...]


@lru_cache(maxsize=1 << 16)
def _known(text: str) -> _Known:
    source, key, value = Label.parse(text)
    # Named ports are for the engine's own conditions: "any source" leaves them out.
    sources = (source,) if source == PORT else (source, ANY_SOURCE)
    names = [f"{each}:{key}" for each in sources]
    return _Known((source, key), value, (*names, *(f"{name}={value}" for name in names)))


_WORLDS = {_known(f"reserved:world-ipv{version}").name for version in (4, 6)}


class LabelSet:
    """An identity's labels, arranged for matching.

    Who has the world's label of one family has ``reserved:world`` too, as where there is one family only.
    """

    __slots__ = ("_by_key", "_tokens", "by_name", "spans")

    def __init__(self, labels: Iterable[str]) -> None:
        known = [_known(text) for text in labels]
        self.by_name: dict[tuple[str, str], str] = {one.name: one.value for one in known}
        if not _WORLDS.isdisjoint(self.by_name) and (world := _known("reserved:world")) not in known:
            known.append(world)
            self.by_name[world.name] = world.value
        self.spans: list[Span] = []
        """The address prefixes among them."""
        self._by_key: dict[str, list[str]] | None = None
        self._tokens = known
        for source, key in self.by_name:
            if source == CIDR and (span := span_of(key)) is not None:
                self.spans.append(span)

    def values(self, source: str, key: str) -> list[str]:
        """Values of *key*: under one source, or with source ``any`` under every source."""
        if source != ANY_SOURCE:
            value = self.by_name.get((source, key))
            return [] if value is None else [value]
        if self._by_key is None:
            self._by_key = {}
            for (own, name), value in self.by_name.items():
                if own != PORT:
                    self._by_key.setdefault(name, []).append(value)
        return self._by_key.get(key, [])

    def tokens(self) -> list[str]:
        """Its tokens, apart from prefixes."""
        return ["", *(token for one in self._tokens for token in one.tokens)]


class Requirement(NamedTuple):
    """One condition on one key; *values* are sorted and empty for all but (Not)In.

    (Not)Within has a prefix as its *key*: some (no) prefix of the identity lies in it.
    """

    source: str
    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def holds(self, labels: LabelSet) -> bool:
        """Whether *labels* satisfy it; NotIn and DoesNotExist hold where the key is absent."""
        match self.operator:
            case "Exists":
                return bool(labels.values(self.source, self.key))
            case "DoesNotExist":
                return not labels.values(self.source, self.key)
            case "In":
                return any(value in self.values for value in labels.values(self.source, self.key))
            case "NotIn":
                return not any(value in self.values for value in labels.values(self.source, self.key))
            case "Within":
                return any(one.inside(self.span) for one in labels.spans)
            case "NotWithin":
                return not any(one.inside(self.span) for one in labels.spans)

    @property
    def span(self) -> Span:
        """Addresses of the prefix of (Not)Within."""
        span = span_of(self.key)
        assert span is not None, self.key
        return span

    @property
    def positive(self) -> bool:
        """It asks for something, and does not merely exclude."""
        return self.operator in {"In", "Exists", "Within"}

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
            case "Within":
                return f"within {prefix_text(self.key)}"
            case "NotWithin":
                return f"not within {prefix_text(self.key)}"


@lru_cache(maxsize=1 << 16)
def prefix_text(key: str) -> str:
    """The prefix with label key *key* as people write it."""
    return str(prefix_of(key))


def require(source: str, key: str, operator: Operator, values: Iterable[str] = ()) -> Requirement:
    """A requirement in canonical form."""
    return Requirement(source, key, operator, tuple(sorted(set(values))))


def within(prefix: Network) -> Requirement:
    """The condition "is an address in *prefix*"."""
    return Requirement(CIDR, prefix_key(prefix), "Within")


def not_within(prefix: Network) -> Requirement:
    """The condition "is no address in *prefix*"; also true of what has no address, so never alone."""
    return Requirement(CIDR, prefix_key(prefix), "NotWithin")


Alternative = tuple[Requirement, ...]
"""Conditions that must all hold."""


@dataclass(frozen=True)
class Selector:
    """Matches an identity that satisfies every requirement of some alternative.

    Made by :meth:`of`, so that equal meanings written in another order are equal.
    """

    alternatives: tuple[Alternative, ...]

    @classmethod
    def of(cls, *alternatives: Iterable[Requirement]) -> Selector:
        """The selector that is true where one of *alternatives* (ANDs) is; of() matches nothing."""
        return cls(tuple(sorted({tuple(sorted(set(each))) for each in alternatives})))

    @classmethod
    def label(cls, *labels: str) -> Selector:
        """Identities that have any one of *labels*, e.g. ``reserved:host``."""
        parsed = map(Label.parse, labels)
        return cls.of(*([require(one.source, one.key, "Exists")] for one in parsed))

    @classmethod
    def learnt(cls, name: str) -> Selector:
        """Addresses that DNS gave for *name*, a name or a pattern in canonical form.

        They have the label ``fqdn:NAME`` where a world is made up; on a cluster each node knows them.
        """
        return cls.of([require(FQDN, name, "Exists")])

    @property
    def name(self) -> str:
        """The name or pattern of :meth:`learnt`; "" if it is another selector."""
        match self.alternatives:
            case ((Requirement(source="fqdn", operator="Exists", key=key),),):
                return key
        return ""

    def narrowed(self, further: Iterable[Requirement]) -> Selector:
        """What it selects and *further* too."""
        also = tuple(further)
        return Selector.of(*([*each, *also] for each in self.alternatives))

    def matches(self, labels: LabelSet | Iterable[str]) -> bool:
        """Whether it selects an identity with *labels*."""
        known = labels if isinstance(labels, LabelSet) else LabelSet(labels)
        return any(all(one.holds(known) for one in each) for each in self.alternatives)

    @cached_property
    def text(self) -> str:
        """Canonical form: what :attr:`key` is a hash of, and what people read."""
        if not self.alternatives:
            return "none"
        wanted_first = (sorted(each, key=lambda one: not one.positive) for each in self.alternatives)
        return " or ".join(", ".join(map(str, each)) or "*" for each in wanted_first)

    @property
    def summary(self) -> str:
        """:attr:`text` at a length that people read."""
        if len(self.alternatives) <= SHOWN:
            return self.text
        return f"{Selector(self.alternatives[:SHOWN]).text} or {len(self.alternatives) - SHOWN} more"

    @cached_property
    def key(self) -> str:
        """Its key in bucket ``selectors``."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    @cached_property
    def prefixes(self) -> tuple[str, ...]:
        """The prefixes that it tells apart (``10.0.0.0/8``), sorted; that of length 0 is the world itself."""
        keys = {one.key for each in self.alternatives for one in each if one.operator in _OF_PREFIXES}
        return tuple(sorted(text for text in map(prefix_text, keys) if not text.endswith("/0")))

    @property
    def anchors(self) -> frozenset[Token]:
        """Tokens of which an identity must have at least one to be selected."""
        return frozenset(token for each in self.alternatives for token in anchor(each)[0])


_OF_PREFIXES = {"Within", "NotWithin"}


def anchor(alternative: Alternative) -> tuple[tuple[Token, ...], Alternative]:
    """Tokens of which an identity must have at least one for *alternative* to hold, and what must hold
    beside."""
    positive = [one for one in alternative if one.positive]
    if not positive:
        return ("",), alternative
    best = min(positive, key=_breadth)
    rest = tuple(one for one in alternative if one is not best)
    if best.operator == "Within":
        return (best.span,), rest
    name = f"{best.source}:{best.key}"
    return tuple(f"{name}={value}" for value in best.values) or (name,), rest


def _breadth(requirement: Requirement) -> tuple[int, int]:
    """How many identities it probably lets through: small for a label of the application's own."""
    derived = requirement.key in {NAMESPACE_KEY, CLUSTER_KEY} or requirement.key.startswith(
        NAMESPACE_LABELS_PREFIX
    )
    if requirement.operator == "Exists":
        return (3 if derived else 2, 0)
    return (1 if derived else 0, len(requirement.values))
