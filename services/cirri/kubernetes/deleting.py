"""What a delete request changes.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cirri.kubernetes.state import SYSTEM_NAMESPACES, Change, Key, Refused, State
from cirri.manifests import DEFAULT_NAMESPACE, KINDS, Problem, unknown_kind
from cirri.manifests.api import ObjectRef


def plan_delete(state: State, objects: Sequence[ObjectRef], *, ignore_missing: bool = False) -> list[Change]:
    """What goes, contents of a Namespace before it; raises :class:`Refused` with every problem."""
    problems: list[Problem] = []
    going: dict[Key, None] = {}
    for ref in objects:
        key, complaint = _key(ref)
        if key is not None and not complaint and key not in state and not ignore_missing:
            complaint = "not found"
        if complaint:
            where = f"{ref.kind} {ref.namespace}/{ref.name}" if ref.namespace else f"{ref.kind} {ref.name}"
            problems.append(Problem(path=where, message=complaint))
        elif key is not None and key in state:
            going |= dict.fromkeys(_with_contents(key, state))
    if problems:
        raise Refused(problems)
    return [Change("deleted", state[key]) for key in going]


def _key(ref: ObjectRef) -> tuple[Key | None, str]:
    if ref.kind not in KINDS:
        return None, unknown_kind(ref.kind)
    if not KINDS[ref.kind].namespaced:
        if ref.namespace:
            return None, f"{ref.kind} is cluster-wide: it takes no namespace"
        if ref.kind == "Namespace" and ref.name in SYSTEM_NAMESPACES:
            return None, "is part of every cluster and cannot be deleted"
        return Key(ref.kind, "", ref.name), ""
    return Key(ref.kind, ref.namespace or DEFAULT_NAMESPACE, ref.name), ""


def _with_contents(key: Key, state: State) -> Iterable[Key]:
    if key.kind == "Namespace":
        yield from sorted(inside for inside in state if inside.namespace == key.name)
    yield key
