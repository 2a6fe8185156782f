"""Which flows are written to files, and what is left out of requests: keys that Hubble names so, too.

One list is in keys of its own (``hubble-export-...``), others are in ``hubble-flowlogs-config``,
which is YAML.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any

from msgspec import Struct

from cirri.errors import CirriError

PATH = "hubble-export-file-path"
SIZE, BACKUPS, COMPRESS = (
    "hubble-export-file-max-size-mb",
    "hubble-export-file-max-backups",
    "hubble-export-file-compress",
)
ALLOW, DENY, FIELDS = "hubble-export-allowlist", "hubble-export-denylist", "hubble-export-fieldmask"
DYNAMIC = "hubble-flowlogs-config"
REDACT, QUERY, USER = "hubble-redact-enabled", "hubble-redact-http-urlquery", "hubble-redact-http-userinfo"
HEADERS_ALLOW, HEADERS_DENY = "hubble-redact-http-headers-allow", "hubble-redact-http-headers-deny"
DEFAULTS: Mapping[str, str] = {
    PATH: "",
    SIZE: "10",
    BACKUPS: "5",
    COMPRESS: "false",
    ALLOW: "",
    DENY: "",
    FIELDS: "",
    DYNAMIC: "",
    REDACT: "false",
    QUERY: "false",
    USER: "true",
    HEADERS_ALLOW: "",
    HEADERS_DENY: "",
}
"""Key -> what holds where it is not given."""
STDOUT = "stdout"
"""As a path: the service's standard output."""
STATIC = "static"
"""Name of the list that has keys of its own."""
_OF_A_LIST = (
    "name",
    "filePath",
    "fieldMask",
    "includeFilters",
    "excludeFilters",
    "fileMaxSizeMb",
    "fileMaxBackups",
    "fileCompress",
    "end",
)
_EMPTY = ("fieldAggregate", "aggregationInterval")
"""Keys of Hubble's that Cirri knows only as empty: flows are aggregated where they are seen."""


class Export(Struct, frozen=True, kw_only=True):
    """One file of flows."""

    name: str
    path: str
    max_bytes: int = 10 << 20
    """A file is not longer."""
    backups: int = 5
    """Files that are kept beside the one that is written."""
    compress: bool = False
    include: tuple[str, ...] = ()
    """``FlowFilter`` messages in JSON, one of which must match; empty: every flow."""
    exclude: tuple[str, ...] = ()
    """Likewise, none of which may match."""
    fields: tuple[str, ...] = ()
    """Paths in message ``Flow`` that are written; empty: all."""
    end_ns: int = 0
    """Unix time after which nothing is written; 0: for ever."""


class Redaction(Struct, frozen=True, kw_only=True):
    """What is not told of requests."""

    query: bool = False
    """What follows ``?`` in a URL."""
    user: bool = True
    """The password in a URL."""
    headers: bool = False
    """Values of headers: of all but :attr:`allow`, or, if that is empty, of all or those in :attr:`deny`."""
    allow: frozenset[str] = frozenset()
    """Names in lower case."""
    deny: frozenset[str] = frozenset()


class InvalidExport(CirriError):
    """A list, or a key of redaction, cannot be used."""

    def __init__(self, key: str, name: str, why: str) -> None:
        self.key, self.name, self.why = key, name, why
        super().__init__(f"cirri-config: {key}: {name + ': ' if name else ''}{why}")


def exports(data: Mapping[str, str]) -> tuple[tuple[Export, ...], list[InvalidExport]]:
    """The files that *data* asks for, without those that are wrong; and what is wrong with these."""
    found: dict[str, Export] = {}
    wrong: list[InvalidExport] = []
    for key, name, make in (*_static(data), *_lists(data.get(DYNAMIC, ""))):
        try:
            export = make()
            if export.name in found:
                raise _Wrong(f"there are two of this name, {export.name}")
            if export.path != STDOUT and any(export.path == other.path for other in found.values()):
                raise _Wrong(f"{export.path} is written by another already")
            found[export.name] = export
        except _Wrong as error:
            wrong.append(InvalidExport(error.key or key, name, str(error)))
    return tuple(found.values()), wrong


def redaction(data: Mapping[str, str]) -> Redaction:
    """What is left out.  Raises: InvalidExport."""
    switches = {}
    for key in (REDACT, QUERY, USER):
        text = data.get(key) or DEFAULTS[key]
        if text not in ("true", "false"):
            raise InvalidExport(key, "", f"{text!r} is not allowed; allowed: true, false")
        switches[key] = text == "true"
    allow, deny = (
        frozenset(data.get(key, "").lower().replace(",", " ").split())
        for key in (HEADERS_ALLOW, HEADERS_DENY)
    )
    if allow and deny:
        raise InvalidExport(HEADERS_DENY, "", f"cannot be given together with {HEADERS_ALLOW}")
    return Redaction(
        query=switches[QUERY], user=switches[USER], headers=switches[REDACT], allow=allow, deny=deny
    )


def complaint(key: str) -> Callable[[str], str]:
    """What is wrong with a value of *key*, "" if nothing: for whoever checks the configuration."""

    def says(value: str) -> str:
        try:
            redaction({key: value})
        except InvalidExport as error:
            return error.why
        wrong = exports({PATH: "/x", key: value} if key != DYNAMIC else {key: value})[1]
        return "; ".join(f"{e.name}: {e.why}" if e.name else e.why for e in wrong)

    return says


def filters_of(text: str) -> tuple[str, ...]:
    """The JSON objects in *text*, which stand one after the other or with commas between.

    Raises: ValueError, and says what is wrong.
    """
    found, at, decoder = [], 0, json.JSONDecoder()
    while (at := _after(text, at)) < len(text):
        try:
            value, at = decoder.raw_decode(text, at)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise ValueError(f"{text[at:].strip()[:60]!r} is no flow filter, a JSON object")
        found.append(json.dumps(value, sort_keys=True))
    return tuple(found)


class _Wrong(Exception):
    def __init__(self, why: str, key: str = "") -> None:
        self.key = key
        super().__init__(why)


_Asked = Iterator[tuple[str, str, Callable[[], Export]]]
"""(key, name, what makes it or raises _Wrong)."""


def _words(text: str) -> list[str]:
    """They stand apart by blanks or commas."""
    return text.replace(",", " ").split()


def _after(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n,":
        at += 1
    return at


def _static(data: Mapping[str, str]) -> _Asked:
    path = data.get(PATH, "").strip()
    if not path:
        return

    def make() -> Export:
        compress = data.get(COMPRESS) or DEFAULTS[COMPRESS]
        if compress not in ("true", "false"):
            raise _Wrong(f"{compress!r} is not allowed; allowed: true, false", COMPRESS)
        filters = {}
        for key in (ALLOW, DENY):
            try:
                filters[key] = filters_of(data.get(key, ""))
            except ValueError as error:
                raise _Wrong(str(error), key) from None
        return Export(
            name=STATIC,
            path=_path(path),
            max_bytes=_number(SIZE, data.get(SIZE) or DEFAULTS[SIZE], 1) << 20,
            backups=_number(BACKUPS, data.get(BACKUPS) or DEFAULTS[BACKUPS], 0),
            compress=compress == "true",
            include=filters[ALLOW],
            exclude=filters[DENY],
            fields=tuple(_words(data.get(FIELDS, ""))),
        )

    yield PATH, "", make


def _path(text: str) -> str:
    if text != STDOUT and not text.startswith("/"):
        raise _Wrong(f"{text!r} is not allowed; allowed: an absolute path, or {STDOUT}")
    return text


def _number(key: str, value: Any, least: int) -> int:
    text = str(value)
    if not (text.isascii() and text.isdecimal() and least <= int(text) <= 1_000_000):
        raise _Wrong(f"{text!r} is not allowed; allowed: a number from {least} to 1000000", key)
    return int(text)


def _lists(text: str) -> _Asked:
    if not text.strip():
        return
    import yaml

    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        yield DYNAMIC, "", _failing(f"is no YAML: {' '.join(str(error).split())}")
        return
    listed = document.get("flowLogs") if isinstance(document, dict) else None
    if not isinstance(listed, list) or set(document) != {"flowLogs"}:
        yield DYNAMIC, "", _failing("must be a mapping with the list `flowLogs`, and nothing else")
        return
    for number, item in enumerate(listed):
        if not isinstance(item, dict) or not isinstance(item.get("name"), str) or not item["name"]:
            yield DYNAMIC, f"flowLogs[{number}]", _failing("must be a mapping with a `name`")
        else:
            yield DYNAMIC, item["name"], lambda item=item: _of_mapping(item)  # type: ignore[misc]


def _failing(why: str) -> Callable[[], Export]:
    def fail() -> Export:
        raise _Wrong(why)

    return fail


def _of_mapping(item: Mapping[str, Any]) -> Export:
    for key, value in item.items():
        if key in _EMPTY and value not in (None, [], "", 0, "0s"):
            raise _Wrong(
                f"{key} is not supported: flows are aggregated where they are seen (monitor-aggregation)"
            )
        if key not in (*_OF_A_LIST, *_EMPTY):
            near = get_close_matches(str(key), _OF_A_LIST, 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise _Wrong(f"{key!r} is no such key{hint}; allowed: {', '.join(_OF_A_LIST)}")
    if not isinstance(item.get("filePath"), str):
        raise _Wrong("filePath is required")
    if not isinstance(item.get("fileCompress") or False, bool):
        raise _Wrong(f"fileCompress: {item['fileCompress']!r} is not allowed; allowed: true, false")
    lists = {key: item.get(key) or [] for key in ("fieldMask", "includeFilters", "excludeFilters")}
    for key, kind in zip(lists, (str, dict, dict), strict=True):
        if not isinstance(lists[key], list) or not all(isinstance(each, kind) for each in lists[key]):
            raise _Wrong(f"{key} must be a list of {'paths' if kind is str else 'flow filters'}")
    return Export(
        name=item["name"],
        path=_path(item["filePath"]),
        max_bytes=_number("", item.get("fileMaxSizeMb") or 10, 1) << 20,
        backups=_number("", item.get("fileMaxBackups") or 5, 0),
        compress=item.get("fileCompress") or False,
        include=tuple(json.dumps(each, sort_keys=True) for each in lists["includeFilters"]),
        exclude=tuple(json.dumps(each, sort_keys=True) for each in lists["excludeFilters"]),
        fields=tuple(lists["fieldMask"]),
        end_ns=_time(item.get("end")),
    )


def _time(value: Any) -> int:
    """YAML knows times as such where they are not quoted."""
    if value is None:
        return 0
    try:
        when = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        raise _Wrong(f"end: {value!r} is no time; allowed: as in 2026-10-09T23:59:59-07:00") from None
    return int(when.replace(tzinfo=when.tzinfo or UTC).timestamp() * 1e9)
