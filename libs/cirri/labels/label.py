"""One label and its spelling: ``source:key`` or ``source:key=value``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

NAMESPACE_KEY = "io.kubernetes.pod.namespace"
SERVICE_ACCOUNT_KEY = "io.cilium.k8s.policy.serviceaccount"
CLUSTER_KEY = "io.cilium.k8s.policy.cluster"
NAMESPACE_LABELS_PREFIX = "io.cilium.k8s.namespace.labels."


class Label(NamedTuple):
    """Source and key together name a label; the same key under two sources is two labels."""

    source: str
    key: str
    value: str = ""

    @classmethod
    def parse(cls, text: str, *, default: str = "unspec") -> Label:
        """The label that *text* spells; *default* is the source of one that names none.

        ``$name`` and ``reserved.name`` are short for ``reserved:name``.
        """
        name, _, value = text.partition("=")
        source, key = split_key(name, default=default)
        return cls(source, key, value)

    def __str__(self) -> str:
        name = f"{self.source}:{self.key}"
        return f"{name}={self.value}" if self.value else name


def split_key(text: str, *, default: str) -> tuple[str, str]:
    """Source and key of *text*, a label's name as users write it."""
    if text.startswith("$"):
        return "reserved", text[1:]
    if text.startswith("reserved."):
        return "reserved", text.removeprefix("reserved.")
    source, colon, key = text.partition(":")
    return (source or default, key) if colon else (default, text)


def canonical(labels: Iterable[str]) -> tuple[str, ...]:
    """*labels* in the one spelling and order under which an identity stores them."""
    return tuple(sorted({str(Label.parse(text)) for text in labels}))
