"""What an API server says beside objects: errors, discovery, versions.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cirri.kubeapi.served import STATUS, VERBS, Served

REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    409: "Conflict",
    410: "Expired",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}
VERSION = {"major": "1", "minor": "20", "gitVersion": "v1.20.2", "platform": "linux/amd64"}
"""As old as the oldest ``kubectl`` that is used with it; nothing newer is promised."""


class ApiError(Exception):
    """An answer that is an error."""

    def __init__(
        self,
        code: int,
        message: str,
        reason: str = "",
        *,
        retry_after_s: int = 0,
        details: Mapping[str, Any] = {},
    ) -> None:
        self.code, self.message, self.retry_after_s, self.details = (
            code,
            message,
            retry_after_s,
            dict(details),
        )
        self.reason = reason or REASONS.get(code, "")
        super().__init__(message)

    def status(self) -> dict[str, Any]:
        """As a ``Status``."""
        details = self.details | ({"retryAfterSeconds": self.retry_after_s} if self.retry_after_s else {})
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            **({"details": details} if details else {}),
            "code": self.code,
        }


def not_found(kind: Served, name: str) -> ApiError:
    """There is no such object."""
    details = {"name": name, "group": kind.group, "kind": kind.plural}
    return ApiError(404, f'{kind.resource} "{name}" not found', details=details)


def core_versions() -> dict[str, Any]:
    """``/api``."""
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def groups(kinds: Iterable[Served]) -> dict[str, Any]:
    """``/apis``."""
    versions: dict[str, dict[str, None]] = {}
    for kind in kinds:
        if kind.group:
            versions.setdefault(kind.group, {})[kind.version] = None
    return {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [_group(name, list(found)) for name, found in versions.items()],
    }


def _group(name: str, versions: Sequence[str]) -> dict[str, Any]:
    found = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": found, "preferredVersion": found[0]}


def group(kinds: Iterable[Served], name: str) -> dict[str, Any] | None:
    """``/apis/GROUP``."""
    versions = list(dict.fromkeys(kind.version for kind in kinds if kind.group == name))
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, versions)} if versions else None


def resources(kinds: Iterable[Served], api_version: str) -> dict[str, Any]:
    """``/api/v1`` or ``/apis/GROUP/VERSION``."""
    found: list[dict[str, Any]] = []
    for kind in kinds:
        if kind.api_version != api_version:
            continue
        entry: dict[str, Any] = {
            "name": kind.plural,
            "singularName": kind.kind.lower(),
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": list(VERBS),
        }
        if kind.short:
            entry["shortNames"] = list(kind.short)
        if kind.categories:
            entry["categories"] = list(kind.categories)
        found.append(entry)
        if kind.status:
            status = {key: entry[key] for key in ("namespaced", "kind")}
            found.append(
                {"name": f"{kind.plural}/status", "singularName": "", "verbs": list(STATUS), **status}
            )
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": found}


def openapi() -> bytes:
    """``/openapi/v2`` as the protobuf that ``kubectl`` asks for: a document without definitions.

    A client checks the fields of what it finds there, and leaves to the server what it does not find; the
    server's own words name the field and what is allowed.  (openapi.v2.Document: swagger is field 1, info 2,
    paths 8; Info: title 1, version 2.)
    """

    def text(field: int, value: bytes) -> bytes:
        return bytes([field << 3 | 2, len(value)]) + value

    info = text(1, b"Cirri") + text(2, b"v1.20.2")
    return text(1, b"2.0") + text(2, info) + text(8, b"")
