"""``rules`` of a port rule: the requests that a proxy is to let pass, in canonical form."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

from cirri.engine import names, regex
from cirri.engine.rule import Findings

Kind = Literal["http", "kafka", "generic", "dns"]

ANY_REQUEST = "{}"
"""The entry that accepts every request of its protocol; for names :data:`ANY_NAME`."""
ANY_NAME = '{"matchPattern":"*"}'

MISMATCHES = ("LOG", "ADD", "DELETE", "REPLACE")
KAFKA_ROLES = ("produce", "consume")
KAFKA_API_KEYS = frozenset({
    "produce", "fetch", "offsets", "metadata", "leaderandisr", "stopreplica", "updatemetadata",
    "controlledshutdown", "offsetcommit", "offsetfetch", "findcoordinator", "joingroup", "heartbeat",
    "leavegroup", "syncgroup", "describegroups", "listgroups", "saslhandshake", "apiversions", "createtopics",
    "deletetopics", "deleterecords", "initproducerid", "offsetforleaderepoch", "addpartitionstotxn",
    "addoffsetstotxn", "endtxn", "writetxnmarkers", "txnoffsetcommit", "describeacls", "createacls",
    "deleteacls", "describeconfigs", "alterconfigs",
})  # fmt: skip

_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,255}")
_FIELDS = ("http", "dns", "kafka", "l7proto", "l7")


class Requests(NamedTuple):
    """What ``rules`` says: nothing (no *kind*), or which requests of which protocol pass."""

    kind: Kind | Literal[""] = ""
    entries: tuple[str, ...] = ()
    """ORed, canonical JSON, sorted; never empty with a *kind*."""
    parser: str = ""
    field: str = ""
    """The member of ``rules`` that says so."""


def any_request(kind: str) -> str:
    """The entry that accepts everything of *kind*."""
    return ANY_NAME if kind == "dns" else ANY_REQUEST


def canonical(value: Any) -> str:
    """*value* as JSON: equal values are equal texts."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False)


def read_requests(value: Any, path: str, out: Findings, *, namespace: str) -> Requests:
    """What ``rules`` at *path* says; secrets are in *namespace* where they name none."""
    rules = members(value, _FIELDS, path, out)
    given = [name for name in ("http", "dns", "kafka", "l7proto") if rules.get(name)]
    if rules.get("l7") and not rules.get("l7proto"):
        out.fault(f"{path}.l7", "needs l7proto, the name of the parser")
    if len(given) > 1:
        out.fault(f"{path}.{given[1]}", f"cannot be combined with {given[0]}: write two port rules")
    for name in ("http", "dns", "kafka", "l7"):
        if not isinstance(rules.get(name, []), list):
            out.fault(f"{path}.{name}", "must be a list")
            return Requests()
    if not given:
        return Requests()
    where = f"{path}.{given[0]}"
    match given[0]:
        case "http":
            entries = _each(rules["http"], where, lambda v, p: _http(v, p, out, namespace))
            return Requests("http", entries, field="http")
        case "dns":
            return Requests("dns", _each(rules["dns"], where, lambda v, p: read_name(v, p, out)), field="dns")
        case "kafka":
            return Requests(
                "kafka", _each(rules["kafka"], where, lambda v, p: _kafka(v, p, out)), field="kafka"
            )
        case _:
            parser = rules["l7proto"]
            if not isinstance(parser, str):
                out.fault(where, "must be the name of a parser")
                parser = ""
            entries = _each(rules.get("l7", []), f"{path}.l7", lambda v, p: _generic(v, p, out))
            return Requests("generic", entries or (ANY_REQUEST,), parser, "l7proto")


def read_name(value: Any, path: str, out: Findings) -> dict[str, Any]:
    """An item of ``rules.dns`` or ``toFQDNs``: ``{"matchName": ...}`` or ``{"matchPattern": ...}``."""
    entry = members(value, ("matchName", "matchPattern"), path, out)
    if isinstance(value, dict) and len(entry) != 1:
        out.fault(path, f"has {'both' if entry else 'neither'}: one of matchName, matchPattern is needed")
    found = {}
    for field, text in entry.items():
        if not isinstance(text, str):
            out.fault(f"{path}.{field}", f"must be a string, not {text!r}")
        elif wrong := names.name_complaint(text, pattern=field == "matchPattern"):
            out.fault(f"{path}.{field}", wrong)
        else:
            found[field] = names.canonical_name(text)
    return found


def members(value: Any, allowed: Iterable[str], path: str, out: Findings) -> dict[str, Any]:
    """The members of the object *value* that are given; {} and a fault if it is none."""
    if not isinstance(value, dict):
        out.fault(path, f"must be an object, not {value!r}")
        return {}
    for unknown in value.keys() - set(allowed):
        out.fault(f"{path}.{unknown}", f"unknown field; allowed are {', '.join(sorted(allowed))}")
    return {key: one for key, one in value.items() if one is not None}


def texts(entry: dict[str, Any], path: str, out: Findings) -> dict[str, str]:
    """The members of *entry* that say something, all of which must be strings."""
    for field, one in entry.items():
        if not isinstance(one, str):
            out.fault(f"{path}.{field}", f"must be a string, not {one!r}")
    return {field: one for field, one in entry.items() if isinstance(one, str) and one}


def read_secret(value: Any, path: str, out: Findings, namespace: str) -> dict[str, str]:
    """A reference to a Secret, with its namespace: *namespace*, or ``default``, where it names none."""
    secret = texts(members(value, ("namespace", "name"), path, out), path, out)
    if "name" not in secret:
        out.fault(f"{path}.name", "is required")
    return {"namespace": namespace or "default", **secret}


def _each(items: list[Any], path: str, read: Callable[[Any, str], dict[str, Any]]) -> tuple[str, ...]:
    return tuple(sorted({canonical(read(item, f"{path}[{i}]")) for i, item in enumerate(items)}))


def _http(value: Any, path: str, out: Findings, namespace: str) -> dict[str, Any]:
    entry = members(value, ("path", "method", "host", "headers", "headerMatches"), path, out)
    lists = {field: entry.pop(field, []) for field in ("headers", "headerMatches")}
    found: dict[str, Any] = {**texts(entry, path, out)}
    for field, expression in found.items():
        if wrong := regex.complaint(expression):
            out.fault(f"{path}.{field}", f"{expression!r} is not a regular expression of RE2: {wrong}")
    for field, items in lists.items():
        if not isinstance(items, list):
            out.fault(f"{path}.{field}", "must be a list")
            lists[field] = []
    for index, header in enumerate(lists["headers"]):
        if wrong := _header_complaint(header):
            out.fault(f"{path}.headers[{index}]", wrong)
    matches = [_header_match(each, f"{path}.headerMatches[{i}]", out, namespace)
               for i, each in enumerate(lists["headerMatches"])]  # fmt: skip
    if lists["headers"]:
        found["headers"] = sorted(set(map(str, lists["headers"])))
    if matches:
        found["headerMatches"] = sorted(matches, key=canonical)
    return found


def _header_complaint(header: Any) -> str:
    if not isinstance(header, str) or not header.strip():
        return f"{header!r} is not a header: Name, Name: value"
    name, blank, _ = header.partition(" ")
    if not blank and ":" in name.removesuffix(":"):
        return f"{header!r} has no blank after the colon: it would mean a header of that whole name"
    return "" if name.removesuffix(":") else f"{header!r} has no name"


def _header_match(value: Any, path: str, out: Findings, namespace: str) -> dict[str, Any]:
    entry = members(value, ("name", "value", "secret", "mismatch"), path, out)
    secret = entry.pop("secret", None)
    found: dict[str, Any] = {**texts(entry, path, out)}
    if "name" not in found:
        out.fault(f"{path}.name", "is required")
    if "mismatch" in found and found["mismatch"] not in MISMATCHES:
        out.fault(f"{path}.mismatch", f"{found['mismatch']!r} is not one of {', '.join(MISMATCHES)}")
    if secret is not None:
        found["secret"] = read_secret(secret, f"{path}.secret", out, namespace)
    return found


def _kafka(value: Any, path: str, out: Findings) -> dict[str, Any]:
    found = texts(members(value, ("role", "apiKey", "apiVersion", "clientID", "topic"), path, out), path, out)
    if "role" in found and "apiKey" in found:
        out.fault(f"{path}.apiKey", "cannot be combined with role, which stands for several API keys")
    for field in found.keys() & {"role", "apiKey"}:
        found[field] = found[field].lower()
    if found.get("role", "produce") not in KAFKA_ROLES:
        out.fault(f"{path}.role", f"{found['role']!r} is not one of {', '.join(KAFKA_ROLES)}")
    if found.get("apiKey", "produce") not in KAFKA_API_KEYS:
        out.fault(f"{path}.apiKey", f"{found['apiKey']!r} is not a Kafka API key")
    version = found.get("apiVersion", "0")
    if not (version.isascii() and version.isdecimal()):
        out.fault(f"{path}.apiVersion", f"{version!r} is not a number")
    if not _TOPIC.fullmatch(found.get("topic", "t")):
        out.fault(f"{path}.topic", 'is at most 255 letters, digits, ".", "_" and "-"')
    return found


def _generic(value: Any, path: str, out: Findings) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        out.fault(path, "maps keys to strings")
        return {}
    if "" in value:
        out.fault(path, "has an empty key")
    return value
