"""DNS messages, as much of them as decisions need: the question of a query, the addresses of an answer.

Everything is bytes of one message and offsets into it; nothing recurses, every walk moves forward or,
through compression, strictly backwards.  Names are kept as on the wire, in lower case, without compression.
"""

from __future__ import annotations

from typing import NamedTuple

HEADER = 12
LONGEST_NAME = 255
SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, FORMERR = 2, 3, 4, 5, 1
A, CNAME, AAAA, OPT, SVCB, HTTPS, IXFR, AXFR = 1, 5, 28, 41, 64, 65, 251, 252
INTERNET = 1
MOST_TTL = 604800
"""Seconds: no server's word holds longer (RFC 8767, section 4)."""
MOST_JUMPS = 16
"""Of compression in one name."""
MOST_ADDRESSES = 1024
"""Of one answer that are looked at: 64 KiB hold 4,000, and no name needs them."""

_MAPPED = bytes(10) + b"\xff\xff"
_QUESTION_POINTER = b"\xc0\x0c"
_HINTS = {4: 4, 6: 16}
"""Parameter of SVCB and HTTPS -> bytes of an address (RFC 9460, section 14.3.2)."""
_TYPES = {
    1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA", 33: "SRV",
    35: "NAPTR", 41: "OPT", 43: "DS", 46: "RRSIG", 48: "DNSKEY", 64: "SVCB", 65: "HTTPS", 251: "IXFR",
    252: "AXFR", 255: "ANY",
}  # fmt: skip
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_")


class Malformed(ValueError):
    """The bytes are no DNS message, or not one that can be decided about."""


class Unanswerable(Malformed):
    """Not even a refusal can be sent: it has no header, or is an answer itself."""


class Answer(NamedTuple):
    """What an answer says about the name that was asked for."""

    addresses: tuple[tuple[bytes, int], ...]
    """(16 bytes, seconds): the least time to live on the way to it."""
    aliases: tuple[bytes, ...] = ()
    """Names on the way, in order."""


def question_end(message: bytes) -> int:
    """Offset behind the question of a query or answer with exactly one.

    Raises: Malformed.
    """
    size = len(message)
    if size < HEADER + 5 or message[4:6] != b"\0\1":
        raise Malformed("not one question")
    at, limit = HEADER, min(size - 5, HEADER + LONGEST_NAME - 1)
    while length := message[at]:
        at += length + 1
        if length > 63 or at > limit:  # compression has nothing to point at yet
            raise Malformed("question cut short or too long")
    return at + 5


def folded(message: bytes, end: int) -> bytes:
    """The question of *message* that ends at *end*, its name in lower case."""
    return message[HEADER : end - 4].lower() + message[end - 4 : end]


def check_query(message: bytes) -> int:
    """:func:`question_end` of a query.

    Raises:
        Unanswerable: it is none.
        Malformed: it is one, but not about one name; ``refusal`` with FORMERR or NOTIMP answers it.
    """
    if len(message) < HEADER or message[2] & 0x80:
        raise Unanswerable("no query")
    if message[2] & 0x78:
        raise Malformed("no standard query")
    return question_end(message)


def refusal(query: bytes, code: int, end: int = HEADER) -> bytes:
    """The answer to *query* whose question ends at *end* (HEADER: it is not repeated) with *code*."""
    known = end > HEADER
    edns = known and query[10:12] != b"\0\0" and query[end : end + 3] == b"\0\0\x29"
    head = bytes((0x80 | query[2] & 0x79, 0x80 | query[3] & 0x10 | code))
    counts = b"\0\1\0\0\0\0\0\1" if edns else b"\0\1\0\0\0\0\0\0" if known else bytes(8)
    # OPT says that we would take 1232 bytes, and why there is no answer: 15, blocked (RFC 8914).
    more = b"\0\0\x29\x04\xd0\0\0\0\0\0\6\0\x0f\0\2\0\x0f" if edns else b""
    return query[:2] + head + counts + query[HEADER:end] + more


def read_answer(message: bytes, end: int) -> Answer:
    """What *message*, whose question ends at *end*, says about its question; only the answer section counts.

    Records whose owner is neither the name asked for nor an alias of it are passed over.

    Raises: Malformed.
    """
    if message[3] & 0x0F or message[6:8] == b"\0\0":
        return Answer(())
    asked = message[HEADER : end - 4].lower()
    held: dict[bytes, list[tuple[int, bytes]]] = {}
    aliases: dict[bytes, tuple[bytes, int]] = {}
    seen: dict[int, bytes] = {}
    at, size = end, len(message)
    found = 0
    for _ in range(message[6] << 8 | message[7]):
        if message[at : at + 2] == _QUESTION_POINTER:
            owner, at = asked, at + 2
        else:
            owner, at = _name(message, at, seen)
        data = at + 10
        if data > size:
            raise Malformed("record cut short")
        kind = message[at] << 8 | message[at + 1]
        following = data + (message[at + 8] << 8 | message[at + 9])
        if following > size:
            raise Malformed("record cut short")
        if found < MOST_ADDRESSES and message[at + 2 : at + 4] == b"\0\1":
            ttl = int.from_bytes(message[at + 4 : at + 8], "big")
            ttl = 0 if ttl > 0x7FFFFFFF else min(ttl, MOST_TTL)  # RFC 2181, section 8
            if kind in (A, AAAA):
                held.setdefault(owner, []).append((ttl, _address(message[data:following], kind)))
                found += 1
            elif kind == CNAME:
                target, target_end = _name(message, data, seen)
                if target_end != following:
                    raise Malformed("alias of another length")
                aliases.setdefault(owner, (target, ttl))
            elif kind in (HTTPS, SVCB):
                hints = _hints(message, data, following)
                held.setdefault(owner, []).extend((ttl, hint) for hint in hints)
                found += len(hints)
        at = following
    return _along(asked, held, aliases)


def text(wire: bytes) -> str:
    """A name as people write it, without the dot at its end; bytes that no policy can name as ``\\DDD``."""
    labels = []
    at = 0
    while length := wire[at]:
        label = wire[at + 1 : at + 1 + length].lower()
        at += length + 1
        if not _PLAIN.issuperset(label):
            label = b"".join(b"%c" % c if c in _PLAIN else b"\\%03d" % c for c in label)
        labels.append(label.decode())
    return ".".join(labels) or "."


def type_name(number: int) -> str:
    """``AAAA``, or ``TYPE1234`` where it has no name (RFC 3597)."""
    return _TYPES.get(number, f"TYPE{number}")


def _along(
    asked: bytes, held: dict[bytes, list[tuple[int, bytes]]], aliases: dict[bytes, tuple[bytes, int]]
) -> Answer:
    """The addresses that *asked* leads to."""
    if not aliases:
        return Answer(tuple((address, ttl) for ttl, address in held.get(asked, ())))
    found: dict[bytes, int] = {}
    way: list[bytes] = []
    name, least = asked, MOST_TTL
    while True:
        for ttl, address in held.get(name, ()):
            found[address] = min(least, ttl)
        step = aliases.pop(name, None)  # popped: one that leads back ends the walk
        if step is None:
            return Answer(tuple(found.items()), tuple(way))
        name, ttl = step
        least = min(least, ttl)
        way.append(name)


def _address(raw: bytes, kind: int) -> bytes:
    if len(raw) != (4 if kind == A else 16):
        raise Malformed("address of another length")
    return _MAPPED + raw if kind == A else raw


def _hints(message: bytes, at: int, end: int) -> list[bytes]:
    """Addresses in the parameters of an SVCB or HTTPS record (RFC 9460, section 2.2)."""
    _, at = _name(message, at + 2, {}, compressed=False)
    if at > end:
        raise Malformed("target cut short")
    found: list[bytes] = []
    while at < end:
        if at + 4 > end:
            raise Malformed("parameter cut short")
        size = _HINTS.get(message[at] << 8 | message[at + 1], 0)
        start = at + 4
        at = start + (message[at + 2] << 8 | message[at + 3])
        if at > end or (size and (at - start) % size):
            raise Malformed("parameter of another length")
        if size:
            mapped = _MAPPED if size == 4 else b""
            found += [mapped + message[i : i + size] for i in range(start, at, size)]
    return found


def _name(message: bytes, at: int, seen: dict[int, bytes], *, compressed: bool = True) -> tuple[bytes, int]:
    """(the name at *at*, the offset behind it); *seen*: names found at offsets of the same message."""
    parts: list[bytes] = []
    size, total, limit, first, behind = len(message), 0, at, at, 0
    jumped, tail, jumps = 0, 0, 0
    while True:
        if at >= size:
            raise Malformed("name cut short")
        length = message[at]
        if length < 64:
            following = at + length + 1
            total += length + 1
            if following > size or total > LONGEST_NAME:
                raise Malformed("name cut short or too long")
            parts.append(message[at:following])
            at = following
            if not length:
                break
        elif length >= 0xC0 and compressed and at + 1 < size and jumps < MOST_JUMPS:
            behind = behind or at + 2
            at = (length & 0x3F) << 8 | message[at + 1]
            if at >= limit or at < HEADER:  # only backwards: no loop
                raise Malformed("compression that does not lead back")
            if (known := seen.get(at)) is not None:
                if total + len(known) > LONGEST_NAME:
                    raise Malformed("name too long")
                parts.append(known)
                break
            if not jumps:
                jumped, tail = at, len(parts)
            limit = at
            jumps += 1
        else:
            raise Malformed("label of an unknown kind")
    if jumps:
        seen[jumped] = b"".join(parts[tail:]).lower()
    found = seen[first] = b"".join(parts).lower()
    return found, behind or at
