"""From the kernel's records to facts in words.  Pure."""

from __future__ import annotations

import base64
import signal
import socket
from collections.abc import Callable
from typing import NamedTuple

from cirri.layout import SensorCall, SensorExec, SensorExit, SensorFlag, SensorFork, SensorSocket
from cirri.layout.mirror import shape
from cirri.layout.sensor import SensorType
from cirri.model.runtimeevents import Argument, Binary, Raised
from cirri.tracing import Hook, Selector
from cirri.tracing.policy import SIGNED

TICK_NS = 10_000_000
"""As exactly as /proc tells when a process began."""
Key = tuple[int, int]
"""(number, ticks at its beginning): one process for ever, as numbers are not used again within a tick."""
_RAISED: tuple[tuple[SensorFlag, Raised], ...] = (
    (SensorFlag.SETUID, "PRIVILEGES_RAISED_EXEC_FILE_SETUID"),
    (SensorFlag.SETGID, "PRIVILEGES_RAISED_EXEC_FILE_SETGID"),
    (SensorFlag.FILE_CAPS, "PRIVILEGES_RAISED_EXEC_FILE_CAP"),
)
_WORDS = (
    (SensorFlag.SCRIPT, "script"),
    (SensorFlag.BINARY_CUT, "truncFilename"),
    (SensorFlag.CWD_CUT, "truncCwd"),
    (SensorFlag.ARGS_CUT, "truncArgs"),
    (SensorFlag.ARGS_UNREAD, "errorArgs"),
)
EXEC_BYTES = SensorExec.size()
_TYPE_AT = next(offset for name, offset, _ in shape(SensorExec).fields if name == "type")


_CALL = SensorType.CALL.to_bytes(4, "little")
_TIME_BYTES = 8


def likeness(raw: bytes) -> bytes | None:
    """All of a system call's record but its time, which is in front; None: it is a record of another kind."""
    return raw[_TIME_BYTES:] if raw[_TYPE_AT : _TYPE_AT + 4] == _CALL else None


def time_of(raw: bytes) -> int:
    """When what *raw* tells of was, ns of CLOCK_BOOTTIME."""
    return int.from_bytes(raw[:_TIME_BYTES], "little")


class Exec(NamedTuple):
    """A record of an exec, with what follows it."""

    record: SensorExec
    binary: str
    cwd: str
    arguments: str


class Call(NamedTuple):
    """A system call, with the bytes of those arguments that are no numbers."""

    record: SensorCall
    numbers: tuple[int, ...]
    texts: tuple[bytes, ...]


Record = Exec | SensorExit | SensorFork | SensorSocket | Call
CALL_BYTES = SensorCall.size()


def key_of(pid: int, start_ns: int) -> Key:
    """The process of that number that began then (CLOCK_BOOTTIME)."""
    return pid, start_ns // TICK_NS


def decoded(raw: bytes) -> Record | None:
    """What a record of the ring says; None: it is of no kind that this version knows."""
    kind = int.from_bytes(raw[_TYPE_AT : _TYPE_AT + 4], "little")
    if kind == SensorType.FORK and len(raw) == SensorFork.size():
        return SensorFork.unpack(raw)
    if kind == SensorType.EXIT and len(raw) == SensorExit.size():
        return SensorExit.unpack(raw)
    if kind == SensorType.SOCKET and len(raw) == SensorSocket.size():
        return SensorSocket.unpack(raw)
    if kind == SensorType.CALL and len(raw) >= CALL_BYTES:
        return _call(raw)
    if kind != SensorType.EXEC or len(raw) < EXEC_BYTES:
        return None
    record = SensorExec.unpack(raw[:EXEC_BYTES])
    flags, at = SensorFlag(record.flags), EXEC_BYTES
    pieces = []
    for size in (record.binary_size, record.cwd_size, record.args_size):
        pieces.append(raw[at : at + size])
        at += size
    binary, cwd, arguments = pieces
    anonymous = bool(flags & SensorFlag.ANONYMOUS)
    return Exec(
        record,
        path_text(binary, cut=bool(flags & SensorFlag.BINARY_CUT), anonymous=anonymous),
        path_text(cwd, cut=bool(flags & SensorFlag.CWD_CUT)),
        arguments_text(arguments),
    )


def _call(raw: bytes) -> Call:
    record, at = SensorCall.unpack(raw[:CALL_BYTES]), CALL_BYTES
    texts = []
    for size in (record.size0, record.size1, record.size2, record.size3, record.size4):
        texts.append(raw[at : at + size])
        at += size
    return Call(record, (record.arg0, record.arg1, record.arg2, record.arg3, record.arg4), tuple(texts))


def arguments_of(said: Call, hook: Hook) -> tuple[Argument, ...]:
    """The arguments of a call as its policy names them."""
    found = []
    for place, each in enumerate(hook.arguments):
        value: int | str = said.numbers[place]
        if each.kind == "string":
            value = _text(said.texts[place].removesuffix(b"\0"))
        elif each.kind == "sockaddr":
            value = sockaddr_text(said.texts[place])
        else:
            value = _signed(said.numbers[place], each.type)
        found.append(Argument(type=each.type, value=value, label=each.label))
    return tuple(found)


def result_of(said: Call, hook: Hook) -> Argument | None:
    """What the call returned, if its policy asks for that."""
    if (returns := hook.returns) is None:
        return None
    return Argument(type=returns.type, value=_signed(said.record.result, returns.type), label=returns.label)


def _signed(number: int, kind: str) -> int:
    return number - (1 << 64) if kind in SIGNED and number >> 63 else number


def sockaddr_text(raw: bytes) -> str:
    """``AF_INET 192.0.2.1 80`` of a ``struct sockaddr``."""
    family = int.from_bytes(raw[:2], "little")
    if family == socket.AF_INET:
        return f"AF_INET {socket.inet_ntop(family, raw[4:8])} {int.from_bytes(raw[2:4])}"
    if family == socket.AF_INET6:
        return f"AF_INET6 {socket.inet_ntop(family, raw[8:24])} {int.from_bytes(raw[2:4])}"
    return {1: "AF_UNIX", 16: "AF_NETLINK", 17: "AF_PACKET"}.get(family, str(family))


def fits_binary(selector: Selector, binary: str) -> bool:
    """Whether a selector's ``matchBinaries`` let a program pass."""
    tests: dict[str, Callable[[str], bool]] = {
        "In": binary.__eq__,
        "Prefix": binary.startswith,
        "Postfix": binary.endswith,
    }
    return all(
        any(tests[operator.removeprefix("Not")](each) for each in paths) != operator.startswith("Not")
        for operator, paths in selector.binaries
    )


def path_text(names: bytes, *, cut: bool = False, anonymous: bool = False) -> str:
    """A path from its names, the last one first, each with a NUL; ``...`` stands for what is missing."""
    parts = [_text(name) for name in names.split(b"\0")[:-1]]
    if anonymous:
        return parts[0] if parts else ""
    return ("..." if cut else "") + "/" + "/".join(reversed(parts))


def arguments_text(raw: bytes) -> str:
    """All but the first of ``argv``, each with a NUL; in quotes where there are blanks, or nothing."""
    parts = raw.removesuffix(b"\0").split(b"\0")[1:]
    return " ".join(f'"{text}"' if " " in text or not text else text for text in map(_text, parts))


def flags_text(flags: int, *, clone: bool) -> str:
    """What is to be said of an exec, in the field's words; *clone*: its process was forked for it."""
    words = ["execve", *(["clone"] if clone else [])]
    return " ".join([*words, *(word for flag, word in _WORDS if flags & flag)])


def binary_of(record: SensorExec) -> Binary | None:
    """What is unusual about the program's file; None: nothing."""
    raised = tuple(name for flag, name in _RAISED if record.flags & flag)
    anonymous, deleted = record.flags & SensorFlag.ANONYMOUS, record.flags & SensorFlag.DELETED
    if not (raised or anonymous or deleted or not record.links):
        return None
    return Binary(
        privileges_changed=raised,
        anonymous=bool(anonymous),
        deleted=bool(deleted),
        inode=record.inode,
        links=record.links,
    )


def ended(code: int) -> tuple[str, int]:
    """(signal, status) of an end that wait(2) tells as *code*."""
    number = code & 0x7F
    if not number:
        return "", code >> 8 & 0xFF
    try:
        return signal.Signals(number).name, 0
    except ValueError:  # real-time signals have no name each
        return f"SIGRTMIN+{number - 34}" if number >= 34 else f"SIG{number}", 0


def exec_id(node: str, time_ns: int, pid: int) -> str:
    """The name of one program in one process, as the field has it."""
    return base64.b64encode(f"{node}:{time_ns}:{pid}".encode()).decode()


def exec_time(name: str) -> int:
    """When the program *name* (as :func:`exec_id` gives it) was started, ns of CLOCK_BOOTTIME."""
    return int(base64.b64decode(name).rsplit(b":", 2)[1])


def _text(raw: bytes) -> str:
    return raw.decode(errors="backslashreplace")
