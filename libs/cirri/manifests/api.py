"""The apply API: what ``cirri.kubernetes.apply``, ``delete``, ``confirm`` and ``rollback`` carry.

All are answered by the ``kubernetes`` service; requests are MessagePack, all or nothing: when
one object is refused, ``error`` says why and nothing at all has changed.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

APPLY = "cirri.kubernetes.apply"
DELETE = "cirri.kubernetes.delete"
CONFIRM = "cirri.kubernetes.confirm"
"""Keep provisional objects for good."""
ROLLBACK = "cirri.kubernetes.rollback"
"""Undo provisional objects now."""

CONFIRM_WITHIN_S = 60
"""How long an object that can lock nodes out waits for a person, unless the request says otherwise."""
LONGEST_CONFIRM_S = 86_400

Action = Literal["created", "configured", "unchanged", "deleted", "confirmed", "restored"]
Undo = Literal["", "delete", "restore"]


class ApplyObject(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One manifest, as written."""

    manifest: dict[str, Any]
    source: str = ""
    """``file:line`` of the document, kept for explanations."""


class ApplyRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Make the cluster hold *objects*, created or replaced."""

    objects: tuple[ApplyObject, ...]
    status_only: bool = False
    """Replace only the ``status`` of existing objects; everything else in them is ignored."""
    update_only: bool = False
    """Refuse objects that do not exist: a controller must not bring back what was deleted."""
    confirm_within_s: Annotated[int, Meta(ge=1, le=LONGEST_CONFIRM_S)] | None = None
    """Policies are undone unless they are confirmed in this time; None: :data:`CONFIRM_WITHIN_S` for those
    that select nodes, the others are for good."""
    for_good: bool = False
    """Nothing is provisional, and what was is confirmed."""


class ObjectRef(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The name of one object."""

    kind: str
    namespace: str = ""
    """Empty for cluster-wide kinds; for others empty means ``default``."""
    name: str


class DeleteRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Remove *objects*; a Namespace takes everything in it along."""

    objects: tuple[ObjectRef, ...]
    ignore_missing: bool = False
    """Objects that do not exist are no error (and not in the results)."""


class ConfirmRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Confirm, or roll back, provisional *objects*; none named: all there are."""

    objects: tuple[ObjectRef, ...] = ()


class Result(Struct, frozen=True, kw_only=True):
    """What became of one object."""

    kind: str
    namespace: str = ""
    name: str
    action: Action
    revision: int = 0
    """Revision of bucket ``resources`` at which it holds; of an unchanged object, that of its
    last change."""
    confirm_by: str = ""
    """RFC 3339, UTC: until when a person must confirm it; empty: it is for good."""
    undo: Undo = ""
    """What happens otherwise: it is deleted again, or its last confirmed version comes back."""


class ApplyReply(Struct, frozen=True, kw_only=True):
    """The answer to every request."""

    results: tuple[Result, ...] = ()
    error: str | None = None
    """Every problem, one per line; then ``results`` is empty and nothing has changed."""
    revision: int = 0
    """Revision of bucket ``resources`` that covers the whole request."""
    warnings: tuple[str, ...] = ()
    """Valid but suspicious, one sentence each."""
