"""Objects that users wrote: manifests, as the API (or ``cirri apply``) holds them."""

import re
from typing import Any

from msgspec import Struct, field

from cirri.model.bucket import Bucket, token

AUDIT_MODE = "policy.cirri.io/audit-mode"
"""Annotation of a policy object; ``enabled``: what it would drop passes and is reported."""
CONFIRM_BY = "cirri.io/confirm-by"
"""Annotation of a policy object that is provisional: RFC 3339, UTC; the ``kubernetes`` service alone writes
it, and undoes the object unless a person confirms it by then."""


_PLAIN = re.compile(r"[-A-Za-z0-9]+\.[-A-Za-z0-9]*\.[-A-Za-z0-9]+\.[-A-Za-z0-9]*")
"""Most keys: nothing of them has to be written otherwise."""


class Resource(Struct, frozen=True, kw_only=True):
    """One object, validated, with defaults filled in."""

    kind: str
    namespace: str = ""
    """Empty for cluster-wide kinds."""
    name: str
    node: str = ""
    """Pods only: the node that runs it, once scheduled.  Part of the key, so that a node can
    watch its own pods alone."""
    manifest: dict[str, Any] = field(default_factory=dict)
    """The whole object: apiVersion, kind, metadata (with uid, generation, creationTimestamp),
    spec, status, ..."""
    source: str = ""
    """``file:line`` of the document it came from, for explanations; empty if unknown."""


def resource_key(kind: str, namespace: str = "", name: str = "*", node: str = "*") -> str:
    """Key (or, with ``*``, watch pattern) of a resource: ``KIND.NAMESPACE.NAME.NODE``.

    ``namespace=""`` means cluster-wide, ``"*"`` any.
    """
    if _PLAIN.fullmatch(f"{kind}.{namespace}.{name}.{node}"):
        return f"{kind}.{namespace or '_'}.{name}.{node or '_'}"
    return ".".join(part if part == "*" else token(part) for part in (kind, namespace, name, node))


RESOURCES = Bucket(
    "resources",
    Resource,
    lambda r: resource_key(r.kind, r.namespace, r.name, r.node),
    writer="kubernetes",
)
