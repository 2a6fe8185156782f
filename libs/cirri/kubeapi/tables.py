"""Tables, as ``kubectl get`` asks for them (meta.k8s.io/v1 Table).  Pure."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from cirri.kubeapi.objects import Object
from cirri.kubeapi.served import Column, Served


def wants_table(accept: str) -> bool:
    """Whether a request's Accept header asks for tables first."""
    return "as=Table" in accept.split(",", maxsplit=1)[0]


class Tables:
    """Tables with the columns that *columns* has for a kind, else name and age."""

    def __init__(self, columns: Callable[[str], Sequence[Column]] = lambda kind: ()) -> None:
        self._columns = columns

    def table(self, kind: Served, items: Sequence[Object], metadata: Mapping[str, Any]) -> Object:
        """*items* as a table."""
        columns = self._columns(kind.kind) or _DEFAULT
        return {
            "kind": "Table",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": dict(metadata),
            "columnDefinitions": [
                {"name": c.name, "type": c.type, "format": c.format or ("name" if c.name == "Name" else ""),
                 "description": "", "priority": c.priority}
                for c in columns
            ],
            "rows": [{"cells": [c.cell(each) for c in columns], "object": _partial(each)} for each in items],
        }  # fmt: skip

    async def events(
        self, kind: Served, events: AsyncIterator[tuple[str, Object]]
    ) -> AsyncIterator[tuple[str, Object]]:
        """The events of a watch, each object as a table of one row; only the first names its columns."""
        first = True
        async for type_, each in events:
            if type_ in ("BOOKMARK", "ERROR"):
                yield type_, each
                continue
            metadata = {"resourceVersion": each["metadata"].get("resourceVersion", "")}
            found = self.table(kind, [each], metadata)
            yield type_, found if first else {**found, "columnDefinitions": None}
            first = False


def _partial(manifest: Object) -> Object:
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": manifest["metadata"]}


_DEFAULT = (
    Column("Name", lambda manifest: manifest["metadata"]["name"]),
    Column("Created At", lambda manifest: manifest["metadata"].get("creationTimestamp", "")),
)
