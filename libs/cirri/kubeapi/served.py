"""Which resources are served, from the table of kinds: names, scope, and columns of ``kubectl get``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cirri.manifests import KINDS, Kind, crd
from cirri.manifests.crd import is_custom

STATUS = ("get", "patch", "update")
VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


class Column(NamedTuple):
    """One column of a table."""

    name: str
    cell: Callable[[Mapping[str, Any]], Any]
    type: str = "string"
    priority: int = 0
    """Above 0: shown with ``-o wide``."""
    format: str = ""


class Served(NamedTuple):
    """One resource of the API."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    status: bool = True

    @property
    def resource(self) -> str:
        """``plural.group``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        """``group/version``, or ``v1``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def root(self) -> str:
        """Where the API has it: ``/api/v1`` or ``/apis/GROUP/VERSION``."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str = "", name: str = "") -> str:
        """Of an object, or of all (of *namespace*)."""
        inside = f"/namespaces/{namespace}" if namespace and self.namespaced else ""
        return f"{self.root}{inside}/{self.plural}" + (f"/{name}" if name else "")


DEFINITIONS = Served(
    "apiextensions.k8s.io",
    "v1",
    "customresourcedefinitions",
    "CustomResourceDefinition",
    False,
    ("crd", "crds"),
)


def served(kind: Kind) -> Served:
    """How the API has *kind*."""
    group, _, version = kind.api_version.rpartition("/")
    common = ("all",) if kind.name in _ALL else ()
    categories = tuple(crd.categories(kind)) if is_custom(kind) else common
    return Served(
        group,
        version,
        kind.plural,
        kind.name,
        kind.namespaced,
        kind.short,
        categories,
        kind.name not in ("ConfigMap", "Secret", "Event", "EndpointSlice"),
    )


_ALL = frozenset({"Pod", "Service", "Deployment"})


def every() -> tuple[Served, ...]:
    """Every kind that Cirri knows."""
    return tuple(served(kind) for kind in KINDS.values())
