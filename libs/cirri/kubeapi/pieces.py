"""Pieces of requests and answers over HTTP."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import msgspec
import yaml
from aiohttp import web

from cirri.kubeapi import patches, protobuf
from cirri.kubeapi.answers import ApiError
from cirri.kubeapi.objects import Change, Name, Object, Objects
from cirri.kubeapi.selectors import Matches, field_selector, label_selector
from cirri.kubeapi.served import Served


class Backend(Protocol):
    """Where objects are kept; what is stored appears in *objects*, and only from there in answers."""

    objects: Objects

    async def create(self, kind: Served, manifest: Object) -> Object:
        """Store a new object; as it is stored.  Raises :class:`ApiError`."""

    async def replace(self, kind: Served, manifest: Object, *, status: bool) -> Object:
        """Store another version (only its status, or all but that); as it is stored.  Raises ApiError."""

    async def delete(self, kind: Served, name: Name) -> None:
        """Remove an object that is there.  Raises :class:`ApiError`."""


class Target(NamedTuple):
    """What a path names."""

    kind: Served
    namespace: str
    name: str = ""
    status: bool = False


def failure(error: ApiError) -> web.Response:
    """The answer that *error* is."""
    headers = {"Retry-After": str(error.retry_after_s)} if error.retry_after_s else {}
    return answer(error.status(), error.code, headers)


def answer(value: Any, code: int = 200, headers: Mapping[str, str] = {}) -> web.Response:
    """*value* as JSON."""
    return web.Response(
        body=msgspec.json.encode(value), status=code, content_type="application/json", headers=dict(headers)
    )


async def body(request: web.Request) -> Object:
    """The object that a request brings.  Raises :class:`ApiError`."""
    said = request.headers.get("Content-Type", "json")  # old clients leave it out
    if not any(word in said for word in ("json", "yaml", "protobuf")):
        raise ApiError(415, f"the body of the request was in an unknown format ({said})")
    return mapping(decoded(await request.read()))


def decoded(body: bytes) -> Any:
    """JSON, YAML or protobuf.  Raises :class:`ApiError`."""
    if body.startswith(protobuf.MAGIC):
        try:
            return protobuf.decoded(body)
        except (protobuf.Unreadable, UnicodeDecodeError) as error:
            says = f"the body of the request was in an unknown format (protobuf: {error})"
            raise ApiError(415, says) from None
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        try:
            return yaml.safe_load(body)
        except yaml.YAMLError as error:
            raise ApiError(400, f"the body of the request cannot be read: {error}") from None


def mapping(value: Any) -> Object:
    """*value* if it is an object.  Raises :class:`ApiError`."""
    if not isinstance(value, dict):
        raise ApiError(400, "the body of the request is no object")
    return value


def placed(manifest: Object, target: Target) -> Object:
    """*manifest* with the name, namespace and kind that the path names.  Raises :class:`ApiError`."""
    kind = target.kind
    metadata = dict(mapping(manifest).get("metadata") or {})
    said = {"name": target.name, **({"namespace": target.namespace} if kind.namespaced else {})}
    for field, value in said.items():
        if metadata.setdefault(field, value) != value:
            raise ApiError(
                400, f"the {field} of the object ({metadata[field]}) does not match the URL ({value})"
            )
    for field, value in (("apiVersion", kind.api_version), ("kind", kind.kind)):
        if manifest.get(field, value) != value:
            raise ApiError(
                400, f"{field} in the data ({manifest[field]}) does not match the expected ({value})"
            )
    rest = {key: item for key, item in manifest.items() if key not in ("apiVersion", "kind", "metadata")}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, **rest}


def versioned(manifest: Object, revision: int) -> Object:
    """*manifest* as of *revision*."""
    return {**manifest, "metadata": {**manifest["metadata"], "resourceVersion": str(revision)}}


def wanted(query: Mapping[str, str], namespace: str) -> Matches:
    """Whether an object is what a request selects.  Raises BadSelector."""
    tests = [label_selector(query.get("labelSelector", "")), field_selector(query.get("fieldSelector", ""))]
    if namespace:
        tests.append(lambda manifest: manifest["metadata"].get("namespace") == namespace)
    return lambda manifest: all(test(manifest) for test in tests)


def told(change: Change, wanted: Matches) -> tuple[str, Object] | None:
    """What a watch says about *change*: an object that no longer matches is gone for whoever watches."""
    before = change.before is not None and wanted(change.before)
    if change.after is not None and wanted(change.after):
        return ("MODIFIED" if before else "ADDED"), change.after
    if before and change.before is not None:
        return "DELETED", versioned(change.after or change.before, change.revision)
    return None


def bookmark(kind: Served, revision: int) -> Object:
    """The object of a BOOKMARK event."""
    return {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": {"resourceVersion": str(revision)}}


async def begun(
    there: Iterable[Object], events: AsyncIterator[tuple[str, Object]]
) -> AsyncIterator[tuple[str, Object]]:
    """*events* after what was *there* when the watch began."""
    for each in there:
        yield "ADDED", each
    async for event in events:
        yield event


def token_text(revision: int, name: Name) -> str:
    """Where a list goes on."""
    return base64.urlsafe_b64encode(msgspec.json.encode([revision, *name])).decode()


def token(text: str) -> tuple[int, Name]:
    """What :func:`token_text` wrote.  Raises :class:`ApiError`."""
    try:
        revision, namespace, name = msgspec.json.decode(
            base64.urlsafe_b64decode(text), type=tuple[int, str, str]
        )
    except (ValueError, msgspec.MsgspecError):
        raise ApiError(400, "continue key is not valid") from None
    return revision, (namespace, name)


def contested(conflict: patches.Conflict) -> ApiError:
    """The answer to an apply that would take fields from others."""
    fields = conflict.fields
    causes = [
        {"reason": "FieldManagerConflict", "message": f'conflict with "{manager}"', "field": field}
        for field, manager in fields.items()
    ]
    listed = ", ".join(f'"{manager}": {field}' for field, manager in fields.items())
    plural = "s" if len(fields) > 1 else ""
    says = f"Apply failed with {len(fields)} conflict{plural}: conflict{plural} with {listed}"
    return ApiError(409, says, details={"causes": causes})


def custom(kind: Served) -> bool:
    """Whether it is a custom resource, which has no strategic merge."""
    return kind.group.endswith(".io") and not kind.group.endswith("k8s.io")


def managed(manager: str, kind: Served, fields: Mapping[str, Any]) -> dict[str, Any]:
    """One entry of ``managedFields``."""
    head = {"manager": manager, "operation": "Apply", "apiVersion": kind.api_version}
    return {**head, "fieldsType": "FieldsV1", "fieldsV1": fields}
