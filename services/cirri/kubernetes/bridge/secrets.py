"""Which Secrets the objects of people name.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from cirri.kubernetes.bridge.reflector import Place
from cirri.kubernetes.state import Key
from cirri.model import Resource

FIELD = "secret"
"""In a policy: ``terminatingTLS``, ``originatingTLS`` and header matches name a Secret in it."""
BGP_FIELD, BGP_NAMESPACE = "authSecretRef", "kube-system"
"""In a BGP peer's configuration: the Secret with its password, always in this namespace."""


def named(resource: Resource) -> frozenset[Place]:
    """The Secrets that a policy names; without a namespace they are in its own, or in ``default``."""
    manifest = resource.manifest
    found = (*_in(manifest.get("spec")), *_in(manifest.get("specs")))
    return frozenset(Place(namespace or resource.namespace or "default", name) for namespace, name in found)


def _in(value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, list):
        for each in value:
            yield from _in(each)
    elif isinstance(value, dict):
        for field, each in value.items():
            if field == BGP_FIELD and isinstance(each, str):
                yield BGP_NAMESPACE, each
            elif field == FIELD and isinstance(each, dict) and isinstance(each.get("name"), str):
                yield str(each.get("namespace") or ""), each["name"]
            else:
                yield from _in(each)


class Names:
    """Who names what."""

    def __init__(self) -> None:
        self._by: dict[Key, frozenset[Place]] = {}

    def note(self, key: Key, places: Iterable[Place]) -> bool:
        """*key* names *places* now; whether that is news."""
        found, before = frozenset(places), self._by.get(key, frozenset())
        if found:
            self._by[key] = found
        else:
            self._by.pop(key, None)
        return found != before

    def all(self) -> frozenset[Place]:
        """Everything that somebody names."""
        return frozenset[Place]().union(*self._by.values())
