"""What a TracingPolicy says, as far as system calls can serve it."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Literal, get_args

from cirri.errors import CirriError
from cirri.model import Resource
from cirri.tracing.syscalls import INSTEAD, NUMBERS

TEXTS = ("string",)
NUMBERS_OF = {"int": 32, "int32": 32, "uint32": 32, "uint64": 64, "int64": 64, "size_t": 64, "fd": 32}
SIGNED = ("int", "int32", "int64", "fd")
TYPES = (*NUMBERS_OF, *TEXTS, "sockaddr")
OPERATORS = {
    "number": (
        *("Equal", "NotEqual", "In", "NotIn", "GT", "GreaterThan", "LT", "LessThan"),
        *("Mask", "InRange", "NotInRange"),
    ),
    "string": ("Equal", "NotEqual", "Prefix", "NotPrefix", "Postfix", "NotPostfix"),
    "sockaddr": ("DAddr", "NotDAddr", "DPort", "NotDPort", "Family"),
}
ACTIONS = ("Post", "NoPost", "Sigkill", "Signal")
FAMILIES = {"AF_INET": 2, "AF_INET6": 10, "AF_UNIX": 1}
MOST_TEXT = 128
_CALL = re.compile(r"(?:__x64_)?sys_(\w+)")
_EVERY = re.compile(r"(\d{1,6})([smh]?)")
HOOK_KINDS = ("tracepoints", "uprobes", "usdts", "lsmhooks", "fentries", "loader", "lists")

Kind = Literal["number", "string", "sockaddr"]
Scope = Literal["thread", "process", "global"]
Value = int | bytes | IPv4Network | IPv6Network | tuple[int, int]


class Unserved(CirriError):
    """A policy asks for something that this version cannot do on this kernel: at *path*, *why*."""

    def __init__(self, path: str, why: str) -> None:
        self.path, self.why = path, why
        super().__init__(f"{path}: {why}")


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of a call that is told."""

    index: int
    type: str
    label: str = ""

    @property
    def kind(self) -> Kind:
        """How it is compared."""
        return "number" if self.type in NUMBERS_OF else ("string" if self.type in TEXTS else "sockaddr")


@dataclass(frozen=True, slots=True)
class Filter:
    """A condition on the argument at a place of the hook's, or on what the call returned."""

    place: int
    """-1: the result."""
    operator: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Selector:
    """Conditions that hold together, and what is done then."""

    filters: tuple[Filter, ...] = ()
    pids: tuple[tuple[bool, tuple[int, ...]], ...] = ()
    """(whether among them, numbers)."""
    binaries: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """(operator, paths): looked at when events are read."""
    results: tuple[Filter, ...] = ()
    """Looked at when the call is over."""
    post: bool = True
    signal: int = 0
    """That is sent to the process; 0: none."""
    every_s: int = 0
    """The same event is told once in so many seconds; 0: each time."""
    scope: Scope = "thread"
    """Whose events are the same."""


@dataclass(frozen=True, slots=True)
class Hook:
    """A system call that a policy speaks of."""

    policy: str
    """``NAME`` or ``NAMESPACE/NAME``."""
    index: int
    """Among the policy's."""
    function: str
    number: int
    arguments: tuple[Argument, ...]
    selectors: tuple[Selector, ...]
    message: str = ""
    tags: tuple[str, ...] = ()
    returns: Argument | None = None
    """Told when the call is over, with its result."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy that can be served."""

    name: str
    namespace: str
    """"": of the whole cluster."""
    pods: Mapping[str, Any] | None
    """Label selector; None: all processes, of no pod too."""
    hooks: tuple[Hook, ...]

    @property
    def title(self) -> str:
        """``NAME`` or ``NAMESPACE/NAME``."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


def hook_number(hook: Hook) -> int:
    """The number that records have of it: the same in every process."""
    return zlib.crc32(f"{hook.policy} {hook.index} {hook.function}".encode())


def policy_of(resource: Resource) -> Policy:
    """What *resource* says.  Raises: Unserved."""
    spec = resource.manifest.get("spec") or {}
    for kind in HOOK_KINDS:
        if spec.get(kind):
            raise Unserved(
                f"spec.{kind}", "is not served; what is: spec.kprobes of system calls (syscall: true)"
            )
    for name in ("containerSelector", "hostSelector", "nodeSelector", "options"):
        if spec.get(name):
            raise Unserved(f"spec.{name}", "is not served; what is: podSelector")
    namespace = resource.namespace if resource.kind == "TracingPolicyNamespaced" else ""
    title = f"{namespace}/{resource.name}" if namespace else resource.name
    probes = spec.get("kprobes") or []
    if not probes:
        raise Unserved("spec.kprobes", "is missing: the policy has nothing to hook into")
    hooks = tuple(_hook(probe, title, index) for index, probe in enumerate(probes))
    pods = spec.get("podSelector")
    return Policy(resource.name, namespace, {} if namespace and pods is None else pods, hooks)


def _hook(probe: Mapping[str, Any], title: str, index: int) -> Hook:
    at, call = f"spec.kprobes[{index}]", str(probe["call"])
    match = _CALL.fullmatch(call)
    if match is None or not probe.get("syscall", True):
        instead = INSTEAD.get(call, "system calls by their names, such as sys_openat")
        raise Unserved(
            f"{at}.call", f'"{call}" is a function of the kernel, which has no kprobes here; use {instead}'
        )
    if match[1] not in NUMBERS:
        raise Unserved(
            f"{at}.call", f'"{call}" is no system call that is known; known: {", ".join(sorted(NUMBERS))}'
        )
    for name in ("returnArgAction", "data", "ignore"):
        if probe.get(name):
            raise Unserved(f"{at}.{name}", "is not served")
    returns = _returns(probe, at)
    arguments = tuple(_argument(each, f"{at}.args[{i}]") for i, each in enumerate(probe.get("args") or []))
    if len(arguments) > 5:
        raise Unserved(f"{at}.args", f"{len(arguments)} arguments; at most 5 are told")
    found = tuple(
        _selector(each, arguments, returns, f"{at}.selectors[{i}]")
        for i, each in enumerate(probe.get("selectors") or [])
    )
    return Hook(
        title,
        index,
        call if call.startswith("__x64") else f"__x64_{call}",
        NUMBERS[match[1]],
        arguments,
        found or (Selector(),),
        str(probe.get("message") or ""),
        tuple(probe.get("tags") or ()),
        returns,
    )


def _returns(probe: Mapping[str, Any], at: str) -> Argument | None:
    if not probe.get("return"):
        return None
    said = probe.get("returnArg")
    if not isinstance(said, dict) or not said.get("type"):
        raise Unserved(f"{at}.returnArg", "is missing: the type of what the call returns, such as int")
    if said["type"] not in NUMBERS_OF:
        raise Unserved(
            f"{at}.returnArg.type",
            f'"{said["type"]}" is not served: system calls return numbers; what is: {", ".join(NUMBERS_OF)}',
        )
    return Argument(0, str(said["type"]), str(said.get("label") or ""))


def _argument(value: Mapping[str, Any], at: str) -> Argument:
    if value["type"] not in TYPES:
        raise Unserved(f"{at}.type", f'"{value["type"]}" is not served; what is: {", ".join(TYPES)}')
    return Argument(value["index"], value["type"], str(value.get("label") or ""))


def _selector(
    value: Mapping[str, Any], arguments: tuple[Argument, ...], returns: Argument | None, at: str
) -> Selector:
    served = {"matchArgs", "matchPIDs", "matchBinaries", "matchActions", "matchReturnArgs"}
    for name in value:
        if name not in served and value[name]:
            raise Unserved(f"{at}.{name}", f"is not served; what is: {', '.join(sorted(served))}")
    filters = tuple(
        _filter(each, arguments, f"{at}.matchArgs[{i}]")
        for i, each in enumerate(value.get("matchArgs") or [])
    )
    pids = tuple(_pids(each, f"{at}.matchPIDs[{i}]") for i, each in enumerate(value.get("matchPIDs") or []))
    binaries = tuple(
        _binaries(each, f"{at}.matchBinaries[{i}]") for i, each in enumerate(value.get("matchBinaries") or [])
    )
    results = tuple(
        _result(each, returns, f"{at}.matchReturnArgs[{i}]")
        for i, each in enumerate(value.get("matchReturnArgs") or [])
    )
    found = Selector(filters, pids, binaries, results)
    for i, action in enumerate(value.get("matchActions") or []):
        found = _acting(found, action, at, f"{at}.matchActions[{i}]")
    if results and found.every_s:
        raise Unserved(f"{at}.matchReturnArgs", "cannot stand beside rateLimit, which is looked at before")
    return found


def _acting(selector: Selector, action: Mapping[str, Any], at: str, where: str) -> Selector:
    """*selector* with one action more."""
    name = str(action["action"])
    if name not in ACTIONS:
        instead = "Sigkill, which ends the process before its next call" if name == "Override" else "nothing"
        raise Unserved(
            f"{where}.action", f'"{name}" is not served: this needs kprobes or LSM programs; use {instead}'
        )
    for key in action:
        if key not in ("action", "argSig", "rateLimit", "rateLimitScope") and action[key]:
            raise Unserved(f"{where}.{key}", "is not served")
    if name == "NoPost":
        return replace(selector, post=False)
    if name == "Post":
        scope: Any = action.get("rateLimitScope") or "thread"
        if scope not in get_args(Scope):
            raise Unserved(f"{where}.rateLimitScope", f'"{scope}" is none of {", ".join(get_args(Scope))}')
        every_s = _seconds(str(action.get("rateLimit") or "0"), f"{where}.rateLimit")
        return replace(selector, every_s=every_s, scope=scope)
    if selector.binaries:
        raise Unserved(
            f"{at}.matchBinaries", f"cannot stand beside {name}: paths are compared after the call has begun"
        )
    if selector.results:
        raise Unserved(
            f"{at}.matchReturnArgs", f"cannot stand beside {name}: it is done when the call begins"
        )
    return replace(selector, signal=9 if name == "Sigkill" else int(action.get("argSig") or 0))


def _seconds(text: str, at: str) -> int:
    match = _EVERY.fullmatch(text)
    if match is None:
        raise Unserved(at, f'"{text}" is no time; it is a number with s, m, h or nothing (seconds)')
    return int(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def _pids(value: Mapping[str, Any], at: str) -> tuple[bool, tuple[int, ...]]:
    for name in ("followForks", "isNamespacePID"):
        if value.get(name):
            raise Unserved(f"{at}.{name}", "is not served")
    return _among(value, at), tuple(int(each) for each in value["values"])


def _binaries(value: Mapping[str, Any], at: str) -> tuple[str, tuple[str, ...]]:
    if value.get("followChildren"):
        raise Unserved(f"{at}.followChildren", "is not served")
    allowed = ("In", "NotIn", "Prefix", "NotPrefix", "Postfix", "NotPostfix")
    if value["operator"] not in allowed:
        raise Unserved(
            f"{at}.operator", f'"{value["operator"]}" is not served; what is: {", ".join(allowed)}'
        )
    return value["operator"], tuple(str(each) for each in value["values"])


def _among(value: Mapping[str, Any], at: str) -> bool:
    if value["operator"] not in ("In", "NotIn"):
        raise Unserved(f"{at}.operator", f'"{value["operator"]}" is not served; what is: In, NotIn')
    return bool(value["operator"] == "In")


def _filter(value: Mapping[str, Any], arguments: tuple[Argument, ...], at: str) -> Filter:
    wanted = value.get("args", [value.get("index")])[0] if value.get("args") else value.get("index")
    place = next((i for i, each in enumerate(arguments) if each.index == wanted), None)
    if place is None:
        raise Unserved(f"{at}.index", f"{wanted} is none of the hook's args, which are what can be compared")
    return _compared(value, place, arguments[place], at)


def _result(value: Mapping[str, Any], returns: Argument | None, at: str) -> Filter:
    if returns is None:
        raise Unserved(at, "needs return: true and returnArg on the hook")
    return _compared(value, -1, returns, at)


def _compared(value: Mapping[str, Any], place: int, argument: Argument, at: str) -> Filter:
    operator = str(value["operator"])
    if operator not in OPERATORS[argument.kind]:
        raise Unserved(
            f"{at}.operator",
            f'"{operator}" is not served for {argument.type}; what is: {", ".join(OPERATORS[argument.kind])}',
        )
    values = tuple(
        _value(str(each), operator, argument, f"{at}.values") for each in value.get("values") or []
    )
    if not values:
        raise Unserved(f"{at}.values", "is missing")
    return Filter(place, operator, values)


def _value(text: str, operator: str, argument: Argument, at: str) -> Value:
    try:
        if argument.kind == "number" and operator.endswith("InRange"):
            low, _, high = text.partition(":")
            return int(low, 0), int(high, 0)
        if argument.kind == "number":
            return int(text, 0)
        if argument.kind == "string":
            raw = text.encode()
            if not 0 < len(raw) <= MOST_TEXT:
                raise Unserved(at, f"texts of 1 to {MOST_TEXT} bytes can be compared")
            return raw
        if operator == "Family":
            return FAMILIES[text] if text in FAMILIES else int(text)
        if operator in ("DPort", "NotDPort"):
            low, _, high = text.partition(":")
            return int(low), int(high or low)
        return ip_network(text, strict=False)
    except ValueError as error:
        raise Unserved(at, f'"{text}": {error}') from None


def selects(selector: Mapping[str, Any] | None, labels: Iterable[str]) -> bool:
    """Whether a pod with *labels* (``k8s:KEY=VALUE``) is among those of a label selector; None: all are."""
    if selector is None:
        return True
    known = dict(each.removeprefix("k8s:").partition("=")[::2] for each in labels)
    if any(known.get(key) != str(value) for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_expression(each, known) for each in selector.get("matchExpressions") or [])


def _expression(said: Mapping[str, Any], known: Mapping[str, str]) -> bool:
    value, operator, values = known.get(said["key"]), said["operator"], said.get("values") or []
    if operator in ("Exists", "DoesNotExist"):
        return bool((value is not None) == (operator == "Exists"))
    return bool((value in values) == (operator == "In"))
