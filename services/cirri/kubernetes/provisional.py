"""Objects that are in force at once, and undone unless a person confirms them in time.  Pure.

The way of a router's ``commit confirmed``: who locks himself out of the nodes with a policy cannot
take it back any more, so it is taken back for him.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from cirri.kubernetes.state import Change, Key, Pending, Provisional, Refused, State, key_of, with_parts
from cirri.manifests import DEFAULT_NAMESPACE, KINDS, POLICY_KINDS, Problem
from cirri.manifests.api import CONFIRM_WITHIN_S, ObjectRef
from cirri.model import Resource
from cirri.model.resource import CONFIRM_BY


class Terms(NamedTuple):
    """What a request says about confirmation; as in :class:`~cirri.manifests.api.ApplyRequest`."""

    now: datetime
    within_s: int | None = None
    for_good: bool = False


def guarded(changes: Iterable[Change], state: State, pending: Pending, terms: Terms) -> list[Change]:
    """*changes* of *state*, with those marked that a person must confirm.

    An object that waits for its confirmation goes on to wait when it is applied again.  What it goes
    back to is always the last version that was confirmed; applying that one needs no confirmation.
    """
    found = []
    for change in changes:
        key = key_of(change.resource)
        policy = change.resource.kind in POLICY_KINDS
        found.append(_guarded(change, state.get(key), pending.get(key), terms) if policy else change)
    return found


def _guarded(change: Change, old: Resource | None, waiting: Provisional | None, terms: Terms) -> Change:
    new, within_s = change.resource, terms.within_s
    if terms.for_good or (waiting and waiting.before and same(new, waiting.before)):
        return _marked(change, None)
    changed = change.action != "unchanged"
    if within_s is None and changed and (_of_nodes(new) or (old and _of_nodes(old))):
        within_s = CONFIRM_WITHIN_S
    if within_s is None or not (changed or waiting):
        return change._replace(provisional=waiting)
    by = time_text(terms.now + timedelta(seconds=within_s))
    return _marked(change, Provisional(by, waiting.before if waiting else old))


def _marked(change: Change, provisional: Provisional | None) -> Change:
    new = with_deadline(change.resource, provisional.by if provisional else "")
    action = change.action
    if action == "unchanged" and new.manifest != change.resource.manifest:
        action = "configured"
    return change._replace(action=action, resource=new, provisional=provisional)


def _of_nodes(resource: Resource) -> bool:
    """Whether it says something about nodes, and so may cut them off."""
    manifest = resource.manifest
    return any(
        "nodeSelector" in spec for spec in (manifest.get("spec") or {}, *(manifest.get("specs") or ()))
    )


def same(one: Resource, other: Resource) -> bool:
    """Whether both say the same, apart from what the cluster fills in."""
    return _said(one) == _said(other)


def _said(resource: Resource) -> dict[str, object]:
    metadata = {
        k: v for k, v in with_deadline(resource, "").manifest["metadata"].items() if k != "generation"
    }
    return {**{k: v for k, v in resource.manifest.items() if k != "status"}, "metadata": metadata}


def confirmed(state: State, keys: Iterable[Key]) -> list[Change]:
    """What becomes of the provisional objects *keys* when they are confirmed."""
    return [Change("confirmed", with_deadline(state[key], "")) for key in keys]


def undone(state: State, pending: Pending, keys: Iterable[Key]) -> list[Change]:
    """What becomes of the provisional objects *keys* when they are not."""
    return [_undone(state[key], pending[key].before) for key in keys]


def _undone(now: Resource, before: Resource | None) -> Change:
    if before is None:
        return Change("deleted", now)
    # Generations only go up: whoever has seen the newer one must see this one too.
    generation = now.manifest["metadata"]["generation"] + 1
    return Change(
        "restored", with_parts(before, metadata={**before.manifest["metadata"], "generation": generation})
    )


def chosen(pending: Pending, refs: Sequence[ObjectRef]) -> list[Key]:
    """The provisional objects that *refs* name, all if there are none.  Raises :class:`Refused`."""
    if not refs:
        return sorted(pending)
    keys = [_key(ref) for ref in refs]
    missing = [key for key in keys if key not in pending]
    if missing:
        says = "is not provisional: it was confirmed already, or it was undone because nobody did in time"
        raise Refused(Problem(path="/".join(filter(None, key)), message=says) for key in missing)
    return list(dict.fromkeys(keys))


def _key(ref: ObjectRef) -> Key:
    namespaced = ref.kind in KINDS and KINDS[ref.kind].namespaced
    return Key(ref.kind, ref.namespace or DEFAULT_NAMESPACE if namespaced else ref.namespace, ref.name)


def due(pending: Pending, now: datetime) -> list[Key]:
    """The objects whose time is up."""
    return sorted(key for key, each in pending.items() if time_of(each.by) <= now)


def left_s(pending: Pending, now: datetime) -> float | None:
    """Seconds until the next one is due; None if none is provisional."""
    return min(((time_of(each.by) - now).total_seconds() for each in pending.values()), default=None)


def with_deadline(resource: Resource, by: str) -> Resource:
    """*resource* with the annotation that says until when it must be confirmed; "" without."""
    metadata: Mapping[str, object] = resource.manifest["metadata"]
    found = metadata.get("annotations")
    before = dict(found) if isinstance(found, dict) else {}
    after = {k: v for k, v in before.items() if k != CONFIRM_BY} | ({CONFIRM_BY: by} if by else {})
    if after == before:
        return resource
    rest = {k: v for k, v in metadata.items() if k != "annotations"}
    return with_parts(resource, metadata={**rest, **({"annotations": after} if after else {})})


def deadline(resource: Resource) -> str:
    """Until when *resource* must be confirmed; "": it is for good."""
    return str((resource.manifest["metadata"].get("annotations") or {}).get(CONFIRM_BY, ""))


def time_text(moment: datetime) -> str:
    """RFC 3339 in UTC, rounded up to a second."""
    whole = datetime.fromtimestamp(math.ceil(moment.timestamp()), UTC)
    return whole.strftime("%Y-%m-%dT%H:%M:%SZ")


def time_of(text: str) -> datetime:
    """The moment that :func:`time_text` wrote."""
    return datetime.fromisoformat(text)
