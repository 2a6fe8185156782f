"""Objects in memory, as an API server keeps them: uid, creationTimestamp, generation."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from cirri.kubeapi.objects import Name, Object, Objects
from cirri.kubeapi.served import Served

_OWNED = ("uid", "creationTimestamp")


class Memory:
    """A :class:`cirri.kubeapi.server.Backend` that forgets everything when it ends."""

    def __init__(self, window: int = 1000, *, uid: Callable[[], str] = lambda: str(uuid4())) -> None:
        self.objects = Objects(window)
        self._uid = uid

    def put(self, kind: Served, manifest: Object) -> Object:
        """Create or replace an object, whatever was there."""
        metadata: dict[str, Any] = dict(manifest["metadata"])
        if kind.kind == "Secret" and (plain := manifest.get("stringData")):
            coded = {key: b64encode(text.encode()).decode() for key, text in plain.items()}
            rest = {part: value for part, value in manifest.items() if part != "stringData"}
            manifest = {**rest, "data": {**(manifest.get("data") or {}), **coded}}
        name = (metadata.get("namespace", ""), metadata["name"])
        before = self.objects.get(kind.resource, name)
        if before is None:
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            metadata |= {"uid": self._uid(), "creationTimestamp": now, "generation": 1}
        else:
            metadata |= {key: before["metadata"][key] for key in (*_OWNED, "generation")}
            metadata["generation"] += _body(before) != _body(manifest)
        return self.objects.put(kind.resource, name, {**manifest, "metadata": metadata})

    async def create(self, kind: Served, manifest: Object) -> Object:
        """Store a new object."""
        return self.put(kind, manifest)

    async def replace(self, kind: Served, manifest: Object, *, status: bool) -> Object:
        """Store another version."""
        return self.put(kind, manifest)

    async def delete(self, kind: Served, name: Name) -> None:
        """Remove an object."""
        self.objects.remove(kind.resource, name)


def _body(manifest: Object) -> Object:
    """What ``generation`` counts changes of."""
    return {part: value for part, value in manifest.items() if part not in ("metadata", "status")}
