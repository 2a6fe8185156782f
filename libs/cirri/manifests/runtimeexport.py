"""What a node tells of runtime events beside the bus, and what it tells nobody.

These keys of the configuration Tetragon names so, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from cirri.errors import CirriError
from cirri.manifests.runtimefields import fields_of
from cirri.manifests.runtimefilter import BadRuntimeFilter, wanted
from cirri.manifests.runtimeredact import redaction_of

PATH, PERM = "export-filename", "export-file-perm"
SIZE, BACKUPS, COMPRESS = "export-file-max-size-mb", "export-file-max-backups", "export-file-compress"
ALLOW, DENY, RATE = "export-allowlist", "export-denylist", "export-rate-limit"
FIELDS, REDACT = "field-filters", "redaction-filters"
SERVER = "server-address"
DEFAULTS: Mapping[str, str] = {
    PATH: "",
    PERM: "600",
    SIZE: "10",
    BACKUPS: "5",
    COMPRESS: "false",
    ALLOW: "",
    DENY: "",
    RATE: "-1",
    FIELDS: "",
    REDACT: "",
    SERVER: "",
}
"""Key -> what holds where it is not given."""


class RuntimeExport(NamedTuple):
    """The file of a node's runtime events."""

    path: str
    mode: int = 0o600
    max_bytes: int = 10 << 20
    """A file is not longer."""
    backups: int = 5
    """Files that are kept beside the one that is written."""
    compress: bool = False
    allow: str = ""
    deny: str = ""
    rate: int = -1
    """Events a minute; -1: all."""
    fields: str = ""


class InvalidRuntimeExport(CirriError):
    """A key cannot be used."""

    def __init__(self, key: str, why: str) -> None:
        self.key, self.why = key, why
        super().__init__(f"cirri-config: {key}: {why}")


def runtime_export(data: Mapping[str, str]) -> RuntimeExport | None:
    """The file that *data* asks for, if it does.  Raises: InvalidRuntimeExport."""
    given = {key: data.get(key) or default for key, default in DEFAULTS.items()}
    path, mode, compress = given[PATH].strip(), given[PERM], given[COMPRESS]
    if path and not path.startswith("/"):
        raise InvalidRuntimeExport(PATH, f"{path!r} is not allowed; allowed: an absolute path")
    if not (len(mode) == 3 and all(digit in "01234567" for digit in mode)):
        raise InvalidRuntimeExport(PERM, f"{mode!r} is not allowed; allowed: three octal digits, as in 640")
    if compress not in ("true", "false"):
        raise InvalidRuntimeExport(COMPRESS, f"{compress!r} is not allowed; allowed: true, false")
    for key, read in _LISTS.items():
        try:
            read(given[key])
        except BadRuntimeFilter as error:
            raise InvalidRuntimeExport(key, str(error)) from None
    export = RuntimeExport(
        path=path,
        mode=int(mode, 8),
        max_bytes=_number(SIZE, given[SIZE], 1) << 20,
        backups=_number(BACKUPS, given[BACKUPS], 0),
        compress=compress == "true",
        allow=given[ALLOW],
        deny=given[DENY],
        rate=_number(RATE, given[RATE], -1),
        fields=given[FIELDS],
    )
    return export if path else None


def api_address(data: Mapping[str, str]) -> str:
    """Where the node tells events over gRPC; "": nowhere.  Raises: InvalidRuntimeExport."""
    text = data.get(SERVER, "").strip()
    host, _, port = text.rpartition(":")
    local = host in ("localhost", "127.0.0.1", "[::1]") and port.isdecimal() and 0 < int(port) < 65536
    if text and not text.startswith("unix:///") and not local:
        allowed = "unix:///PATH, or localhost:PORT (what is told there is not encrypted)"
        raise InvalidRuntimeExport(SERVER, f"{text!r} is not allowed; allowed: {allowed}")
    return text


def complaint(key: str) -> Callable[[str], str]:
    """What is wrong with a value of *key*, "" if nothing: for whoever checks the configuration."""

    def says(value: str) -> str:
        try:
            if key == REDACT:
                redaction_of(value)
            runtime_export({key: value})
            api_address({key: value})
        except BadRuntimeFilter as error:
            return str(error)
        except InvalidRuntimeExport as error:
            return error.why
        return ""

    return says


_LISTS: Mapping[str, Callable[[str], object]] = {
    ALLOW: lambda text: wanted(text, ""),
    DENY: lambda text: wanted("", text),
    FIELDS: fields_of,
}


def _number(key: str, text: str, least: int) -> int:
    digits = text.removeprefix("-") if least < 0 else text
    if not (digits.isascii() and digits.isdecimal() and least <= int(text) <= 1_000_000):
        raise InvalidRuntimeExport(key, f"{text!r} is not allowed; allowed: a number from {least} to 1000000")
    return int(text)
