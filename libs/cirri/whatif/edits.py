"""Edits of manifests: what is to be added or removed, and where.  Pure."""

from __future__ import annotations

import copy
import re
from typing import Any, Literal

from msgspec import Struct

from cirri.model import Resource

_STEP = re.compile(r"(?P<key>\w+)|\[(?P<index>\d+)\]")


class Edit(Struct, frozen=True, kw_only=True):
    """One change of one object."""

    object: str
    """``CiliumNetworkPolicy default/rule1``, ``Pod default/xwing``."""
    op: Literal["add", "remove"]
    path: str = ""
    """Of the list or mapping that *value* is added to, or of what is removed; empty: the whole object."""
    value: Any = None
    before: Any = None
    """What is there now that *value* replaces, if something is."""


class Change(Struct, frozen=True, kw_only=True):
    """Edits that belong together."""

    edits: tuple[Edit, ...]


def object_name(resource: Resource) -> str:
    """``KIND NAMESPACE/NAME``."""
    name = f"{resource.namespace}/{resource.name}" if resource.namespace else resource.name
    return f"{resource.kind} {name}"


def at(manifest: Any, path: str) -> Any:
    """The part of *manifest* at *path* (``spec.ingress[0]``); None if there is none."""
    for step in _steps(path):
        try:
            manifest = manifest[step]
        except (KeyError, IndexError, TypeError):
            return None
    return manifest


def appended(manifest: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """*manifest* with *value* at the end of the list at *path*, which is made if it is not there."""
    changed = copy.deepcopy(manifest)
    *above, last = _steps(path)
    inner: Any = changed
    for step in above:
        inner = inner[step]
    inner[last] = [*(inner.get(last) or ()), copy.deepcopy(value)]
    return changed


def without(manifest: dict[str, Any], path: str) -> dict[str, Any]:
    """*manifest* without what is at *path*, and without the list that it was the last item of."""
    changed = copy.deepcopy(manifest)
    *above, last = _steps(path)
    inner: Any = changed
    for step in above:
        inner = inner[step]
    del inner[last]
    if not inner and isinstance(inner, list):
        return without(changed, path.rpartition("[")[0])
    return changed


def _steps(path: str) -> list[Any]:
    return [m["key"] if m["key"] is not None else int(m["index"]) for m in _STEP.finditer(path)]
