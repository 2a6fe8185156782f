"""A CNI request, understood: environment and configuration in, one checked struct out.  Pure.

Source: CNI specification 1.1.0, sections 2 (execution protocol) and 3.4 (configuration); error
codes of its appendix.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, cast

import msgspec
from msgspec import Struct

from cirri.datapath.errors import (
    IncompatibleVersion,
    InvalidConfig,
    InvalidEnvironment,
    Undecodable,
    UnsupportedField,
)

Command = Literal["ADD", "DEL", "CHECK", "STATUS", "GC", "VERSION"]
VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
SINCE: Mapping[str, str] = {"CHECK": "0.4.0", "STATUS": "1.1.0", "GC": "1.1.0"}
"""Commands that younger versions of the specification brought."""

ATTACHMENTS = "cni.dev/valid-attachments"
KNOWN = {
    "cniVersion", "name", "type", "socket", "args", "capabilities", "runtimeConfig", "prevResult", "dns",
}  # fmt: skip
IGNORED_PREFIX = "cni.dev/"
REFUSED = {
    "ipam": "cirri assigns addresses itself",
    "ipMasq": "masquerading is set in the ConfigMap cirri-config",
    "plugins": "this is a list of configurations; a plugin is given one of them",
}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")
_INTERFACE = re.compile(r"[^/:\s\x00]{1,15}")


class Attachment(Struct, frozen=True, rename={"container": "containerID"}):
    """One interface of one container."""

    container: str
    ifname: str


class CniRequest(Struct, frozen=True, kw_only=True):
    """A checked request.  Fields that a command does not need are empty."""

    command: Command
    version: str
    container: str = ""
    ifname: str = ""
    netns: str = ""
    namespace: str = ""
    pod: str = ""
    dns: dict[str, Any] = {}
    previous: dict[str, Any] | None = None
    """``prevResult``."""
    attachments: tuple[Attachment, ...] = ()
    """GC: what is still in use."""

    @property
    def attachment(self) -> Attachment:
        """Whom the request is about."""
        return Attachment(self.container, self.ifname)


def understand(env: Mapping[str, str], config: str) -> CniRequest:
    """The request that a container runtime made.

    Raises:
        CniFailure: with code 1, 2, 4, 6 or 7.
    """
    command = _command(env)
    fields = _decode(config)
    if command == "VERSION":
        return CniRequest(command=command, version=str(fields.get("cniVersion") or VERSIONS[-1]))
    version = _version(fields, command)
    _check_fields(fields, command)
    about = _environment(env, command)
    return CniRequest(
        command=command,
        version=version,
        dns=fields.get("dns") or {},
        previous=fields.get("prevResult"),
        attachments=_attachments(fields) if command == "GC" else (),
        **about,
    )


def _command(env: Mapping[str, str]) -> Command:
    command = env.get("CNI_COMMAND", "")
    allowed = ("ADD", "DEL", "CHECK", "STATUS", "GC", "VERSION")
    if command not in allowed:
        raise InvalidEnvironment({"CNI_COMMAND": f"is {command!r}, not one of {', '.join(allowed)}"})
    return cast(Command, command)


def _decode(config: str) -> dict[str, Any]:
    try:
        fields = msgspec.json.decode(config)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise Undecodable(str(error)) from error
    if not isinstance(fields, dict):
        raise Undecodable("it is not an object")
    return fields


def _version(fields: Mapping[str, Any], command: Command) -> str:
    version = fields.get("cniVersion", "")
    if not isinstance(version, str):
        raise InvalidConfig("cniVersion", "is not a string")
    if version not in VERSIONS:
        raise IncompatibleVersion(version, VERSIONS)
    since = SINCE.get(command, "")
    if VERSIONS.index(version) < VERSIONS.index(since or version):
        raise IncompatibleVersion(version, VERSIONS[VERSIONS.index(since) :], command)
    return version


def _check_fields(fields: Mapping[str, Any], command: Command) -> None:
    name = fields.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidConfig("name", f"is {_show(name)}, not letters, digits, '_', '.' or '-'")
    if not isinstance(fields.get("type"), str) or not fields["type"]:
        raise InvalidConfig("type", f"is {_show(fields.get('type'))}, not the plugin's name")
    for key, value in fields.items():
        if key in REFUSED:
            raise UnsupportedField(key, _show(value), REFUSED[key])
        if key not in KNOWN and not key.startswith(IGNORED_PREFIX):
            raise UnsupportedField(key, _show(value), "the plugin does not know it")
    if "socket" in fields and not (isinstance(fields["socket"], str) and fields["socket"].startswith("/")):
        raise InvalidConfig("socket", f"is {_show(fields['socket'])}, not an absolute path")
    for key in ("args", "capabilities", "runtimeConfig", "prevResult", "dns"):
        if fields.get(key) is not None and not isinstance(fields[key], dict):
            raise InvalidConfig(key, f"is {_show(fields[key])}, not an object")
    if command == "CHECK" and not fields.get("prevResult"):
        raise InvalidConfig("prevResult", "is missing, CHECK needs it")
    if command == "ADD" and fields.get("prevResult"):
        raise InvalidConfig("prevResult", "is given; cirri-cni must be the first plugin of its list")


def _environment(env: Mapping[str, str], command: Command) -> dict[str, str]:
    """The variables that *command* needs, checked all together so that one error names them all."""
    wrong: dict[str, str] = {}

    def need(name: str, good: Callable[[str], object], rule: str) -> str:
        value = env.get(name, "")
        if not value:
            wrong[name] = "is missing"
        elif not good(value):
            wrong[name] = f"is {value!r}, {rule}"
        return value

    about: dict[str, str] = {}
    if command in {"ADD", "DEL", "CHECK"}:
        about["container"] = need(
            "CNI_CONTAINERID",
            _NAME.fullmatch,
            "not letters, digits, '_', '.' or '-' beginning with one of the first two",
        )
        about["ifname"] = need(
            "CNI_IFNAME", _is_interface, "not a name of 1 to 15 characters without '/', ':' or spaces"
        )
    if command in {"ADD", "CHECK"}:
        about["netns"] = need("CNI_NETNS", lambda path: path.startswith("/"), "not an absolute path")
    if command == "ADD":
        pairs = dict(pair.partition("=")[::2] for pair in env.get("CNI_ARGS", "").split(";") if pair)
        about["namespace"], about["pod"] = pairs.get("K8S_POD_NAMESPACE", ""), pairs.get("K8S_POD_NAME", "")
        if not about["namespace"] or not about["pod"]:
            wrong["CNI_ARGS"] = "does not hold K8S_POD_NAMESPACE=...;K8S_POD_NAME=..."
    if wrong:
        raise InvalidEnvironment(wrong)
    return about


def _is_interface(name: str) -> bool:
    return bool(_INTERFACE.fullmatch(name)) and name not in {".", ".."}


def _attachments(fields: Mapping[str, Any]) -> tuple[Attachment, ...]:
    """The list must be there: its absence would read as "nothing is in use"."""
    if ATTACHMENTS not in fields:
        raise InvalidConfig(ATTACHMENTS, "is missing, GC needs it")
    try:
        return msgspec.convert(fields[ATTACHMENTS], tuple[Attachment, ...])
    except msgspec.ValidationError as error:
        raise InvalidConfig(ATTACHMENTS, f"{error}") from error


def _show(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else text[:57] + "..."
