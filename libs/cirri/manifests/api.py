"""The apply API: what ``cirri.kubernetes.apply`` and ``cirri.kubernetes.delete`` carry.

Both are answered by the ``kubernetes`` service; requests are MessagePack, all or nothing: when
one object is refused, ``error`` says why and nothing at all has changed.
"""

from typing import Any, Literal

from msgspec import Struct

APPLY = "cirri.kubernetes.apply"
DELETE = "cirri.kubernetes.delete"

Action = Literal["created", "configured", "unchanged", "deleted"]


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


class Result(Struct, frozen=True, kw_only=True):
    """What became of one object."""

    kind: str
    namespace: str = ""
    name: str
    action: Action
    revision: int = 0
    """Revision of bucket ``resources`` at which it holds; of an unchanged object, that of its
    last change."""


class ApplyReply(Struct, frozen=True, kw_only=True):
    """The answer to both requests."""

    results: tuple[Result, ...] = ()
    error: str | None = None
    """Every problem, one per line; then ``results`` is empty and nothing has changed."""
    revision: int = 0
    """Revision of bucket ``resources`` that covers the whole request."""
    warnings: tuple[str, ...] = ()
    """Valid but suspicious, one sentence each."""
