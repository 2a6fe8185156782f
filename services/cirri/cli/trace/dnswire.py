"""Enough of DNS's wire format (RFC 1035 section 4) to show a message.  Pure."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

TYPES = {
    1: "A",
    2: "NS",
    5: "CNAME",
    6: "SOA",
    12: "PTR",
    15: "MX",
    16: "TXT",
    28: "AAAA",
    33: "SRV",
    65: "HTTPS",
}
RCODES = ("NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED")
_HEAD = struct.Struct("!6H")
_RECORD = struct.Struct("!HHIH")
MOST_JUMPS = 16


class Message(NamedTuple):
    """A question, or the answer to one."""

    id: int
    answer: bool
    name: str
    """In small letters, with the dot at the end."""
    qtype: str
    rcode: str
    answers: tuple[str, ...]
    """Addresses and canonical names, as far as they are there."""
    truncated: bool


def parse(raw: bytes) -> Message | None:
    """None if it is no message with one question."""
    if len(raw) < _HEAD.size:
        return None
    number, flags, questions, answers, _, _ = _HEAD.unpack_from(raw)
    if questions != 1 or flags >> 11 & 15:
        return None
    try:
        name, at = _name(raw, _HEAD.size)
        qtype, _ = struct.unpack_from("!HH", raw, at)
    except (IndexError, struct.error, ValueError):
        return None
    answer = bool(flags >> 15)
    rcode = flags & 15
    return Message(
        *(number, answer, name, TYPES.get(qtype, f"TYPE{qtype}")),
        RCODES[rcode] if rcode < len(RCODES) else f"RCODE{rcode}",
        tuple(_answers(raw, at + 4, answers)) if answer else (),
        bool(flags & 0x200),
    )


def _answers(raw: bytes, at: int, count: int) -> list[str]:
    """Of *count* records those that are there and can be shown."""
    found = []
    try:
        for _ in range(count):
            _, at = _name(raw, at)
            kind, _, _, size = _RECORD.unpack_from(raw, at)
            at += _RECORD.size
            data = raw[at : at + size]
            if kind == 1 and len(data) == 4:
                found.append(str(IPv4Address(data)))
            elif kind == 28 and len(data) == 16:
                found.append(str(IPv6Address(data)))
            elif kind == 5:
                found.append(_name(raw, at)[0])
            at += size
    except (IndexError, struct.error, ValueError):
        pass  # the rest was cut off
    return found


def _name(raw: bytes, at: int) -> tuple[str, int]:
    """(name, where it ends).  Raises: IndexError, ValueError."""
    labels: list[str] = []
    end = -1
    for _ in range(128 + MOST_JUMPS):
        size = raw[at]
        if size >> 6 == 3:
            end = at + 2 if end < 0 else end
            at = (size & 63) << 8 | raw[at + 1]
        elif size >> 6:
            raise ValueError("no label")
        elif not size:
            return ".".join([*labels, ""]) or ".", at + 1 if end < 0 else end
        else:
            label = raw[at + 1 : at + 1 + size]
            if len(label) < size:
                raise IndexError
            labels.append(label.decode("ascii", "backslashreplace").lower())
            at += 1 + size
    raise ValueError("a name without end")
