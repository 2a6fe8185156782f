"""Which labels count for identity."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from cirri.errors import CirriError
from cirri.labels.label import Label

ALWAYS = {"reserved", "port", "cidr", "fqdn"}
"""Sources of labels that no filter takes away."""

_INCLUDE = (
    r"reserved:.*",
    r"io\.kubernetes\.pod\.namespace",
    r"io\.cilium\.k8s\.namespace\.labels",
    r"app\.kubernetes\.io",
    r"io\.cilium\.k8s\.policy\.cluster",
    r"io\.cilium\.k8s\.policy\.serviceaccount",
)
_EXCLUDE = (
    r"!io\.kubernetes",
    r"!kubernetes\.io",
    r"!statefulset\.kubernetes\.io/pod-name",
    r"!apps\.kubernetes\.io/pod-index",
    r"!batch\.kubernetes\.io/job-completion-index",
    r"!batch\.kubernetes\.io/controller-uid",
    r"!.*beta\.kubernetes\.io",
    r"!k8s\.io",
    r"!pod-template-generation",
    r"!pod-template-hash",
    r"!controller-revision-hash",
    r"!controller-uid",
    r"!annotation.*",
    r"!etcd_node",
    r"!topology\.kubernetes\.io",
)


class InvalidLabelFilter(CirriError):
    """A prefix of the label filter cannot be understood."""

    hint = "Write prefixes as [source:][!]regular-expression, separated by spaces"

    def __init__(self, prefix: str, why: str) -> None:
        self.prefix = prefix
        self.why = why
        super().__init__(f"label filter: {prefix!r} is not a prefix: {why}")


@dataclass(frozen=True, slots=True)
class Prefix:
    """A regular expression that a key must begin with, for one source or ("") for all."""

    source: str
    pattern: re.Pattern[str]
    exclude: bool

    @classmethod
    def parse(cls, text: str) -> Prefix:
        """Understands ``prefix``, ``!prefix``, ``source:prefix``, ``source:!prefix``, ``!source:prefix``."""
        rest = text.removeprefix("!")
        source, colon, key = rest.partition(":")
        if not colon:
            source, key = "", rest
        exclude = rest != text or key.startswith("!")
        key = key.removeprefix("!")
        if not key:
            raise InvalidLabelFilter(text, "it is empty")
        try:
            return cls(source, re.compile(key), exclude)
        except re.error as error:
            raise InvalidLabelFilter(text, str(error)) from error

    def length(self, label: Label) -> int:
        """How many characters of the key it covers; 0: no match."""
        if self.source and self.source != label.source:
            return 0
        match = self.pattern.match(label.key)
        return match.end() if match else 0


@dataclass(frozen=True)
class LabelFilter:
    """An ordered list of inclusive and exclusive prefixes."""

    prefixes: tuple[Prefix, ...]
    whitelist: bool
    """The user named an inclusive prefix: then only what is included counts."""
    _known: dict[tuple[str, str], bool] = field(default_factory=dict, repr=False, compare=False)
    """Answers by source and key: few keys are used by very many pods."""

    @classmethod
    def parse(cls, user: Iterable[str] = ()) -> LabelFilter:
        """The defaults with the *user*'s prefixes appended.  Raises InvalidLabelFilter."""
        defaults = tuple(map(Prefix.parse, _INCLUDE + _EXCLUDE))
        added = tuple(map(Prefix.parse, user))
        return cls(defaults + added, any(not prefix.exclude for prefix in added))

    def counts(self, label: Label) -> bool:
        """Whether *label* is part of an identity: longest inclusive against shortest exclusive."""
        name = (label.source, label.key)
        if (known := self._known.get(name)) is None:
            known = self._known[name] = self._decide(label)
        return known

    def _decide(self, label: Label) -> bool:
        if label.source in ALWAYS:
            return True
        included = excluded = 0
        for prefix in self.prefixes:
            length = prefix.length(label)
            if not length:
                continue
            if not prefix.exclude:
                included = max(included, length)
            elif not excluded or length < excluded:
                excluded = length
        return included > excluded or (not self.whitelist and not excluded)

    def relevant(self, labels: Iterable[str]) -> frozenset[str]:
        """Those of *labels* that count."""
        return frozenset(text for text in labels if self.counts(Label.parse(text)))
