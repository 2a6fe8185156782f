"""What the cluster holds, and what a request changes in it: types only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from msgspec.structs import replace

from cirri.errors import CirriError
from cirri.manifests import Problem
from cirri.manifests.api import Action
from cirri.model import Resource

SYSTEM_NAMESPACES = ("default", "kube-system")
"""There from the start, and never deleted."""
NAME_LABEL = "kubernetes.io/metadata.name"
"""Every Namespace carries its own name under this label, so that selectors can name it."""


class Key(NamedTuple):
    """What names one object; unlike the bucket's key it does not move with a pod."""

    kind: str
    namespace: str
    name: str


State = Mapping[Key, Resource]


def key_of(resource: Resource) -> Key:
    """The name of *resource*."""
    return Key(resource.kind, resource.namespace, resource.name)


class Provisional(NamedTuple):
    """What becomes of an object that nobody confirms."""

    by: str
    """RFC 3339, UTC: until when it waits for its confirmation."""
    before: Resource | None = None
    """Its last confirmed version, which comes back; None: there was none, so it goes."""


Pending = Mapping[Key, Provisional]
"""The objects that wait for their confirmation."""


class Change(NamedTuple):
    """What becomes of one object."""

    action: Action
    resource: Resource
    """As it is afterwards; of a deleted one, as it was."""
    before: Resource | None = None
    """As it was, if its key in the bucket is another one now."""
    provisional: Provisional | None = None
    """How it waits for its confirmation afterwards."""

    @property
    def written(self) -> bool:
        """Whether the object is another one afterwards."""
        return self.action not in ("unchanged", "deleted")


class Refused(CirriError):
    """A request that cannot be done as a whole, and so not at all."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


def problem(resource: Resource, path: str, message: str) -> Problem:
    """*message* about a field of *resource*, which is named in it."""
    where = f"{resource.namespace}/{resource.name}" if resource.namespace else resource.name
    return Problem(file=resource.source, path=path, message=f"{message} ({resource.kind} {where})")


def with_parts(resource: Resource, **parts: Any) -> Resource:
    """*resource* with some top-level parts of its manifest replaced."""
    return replace(resource, manifest={**resource.manifest, **parts})
