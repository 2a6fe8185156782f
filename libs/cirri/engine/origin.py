"""Provenance: a stable number for each rule of each object, stored with every kernel entry."""

from __future__ import annotations

import hashlib

from cirri.model import Origin, Resource

BUILT_IN = "built-in"
"""Kind of the rules that nobody wrote."""


def cookie(kind: str, namespace: str, name: str, section: str) -> int:
    """32 bits that stand for a rule: the same after every restart, never 0."""
    digest = hashlib.sha256("\n".join((kind, namespace, name, section)).encode()).digest()
    return int.from_bytes(digest[:4], "big") or 1


def origin(resource: Resource, section: str, log: str = "") -> Origin:
    """Provenance of the rule at path *section* of *resource*; *log* is the ``log.value`` of its spec."""
    return Origin(
        cookie=cookie(resource.kind, resource.namespace, resource.name, section),
        kind=resource.kind,
        namespace=resource.namespace,
        name=resource.name,
        section=section,
        source=resource.source,
        log=log,
    )


def built_in(section: str) -> Origin:
    """Provenance of a rule that comes with the product."""
    return Origin(
        cookie=cookie(BUILT_IN, "", "", section), kind=BUILT_IN, namespace="", name="", section=section
    )


ALLOW_LOCALHOST = built_in("allow-localhost")
"""The node itself may reach its pods: kubelet probes."""
