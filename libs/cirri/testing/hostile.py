"""DNS messages that somebody broke, or made to break us."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Sequence

import dns.flags
import dns.message
import dns.rdatatype
import dns.rrset

HEAD = struct.pack("!6H", 7, 0x8180, 1, 1, 0, 0)
ASKED = b"\3www\7example\3org\0\0\1\0\1"


def seeds() -> list[bytes]:
    """Answers with everything that is read in them, and answers that lead nowhere."""
    reply = dns.message.make_response(dns.message.make_query("www.example.org", "A", use_edns=True))
    for text in (
        "www.example.org. 20 IN CNAME edge.cdn.example.net.",
        "edge.cdn.example.net. 30 IN A 192.0.2.1",
        "edge.cdn.example.net. 30 IN AAAA 2001:db8::1",
        "www.example.org. 30 IN HTTPS 1 . alpn=h2 ipv4hint=192.0.2.1 ipv6hint=2001:db8::1",
        "bank.example. 30 IN A 192.0.2.66",
    ):
        owner, ttl, kind_of, kind, data = text.split(" ", 4)
        reply.answer.append(dns.rrset.from_text(owner, int(ttl), kind_of, kind, data))
    reply.additional.append(dns.rrset.from_text("www.example.org.", 30, "IN", "A", "192.0.2.67"))
    full = reply.to_wire()
    reply.answer = [rrset for rrset in reply.answer if rrset.rdtype != dns.rdatatype.HTTPS]
    return [full, reply.to_wire(), *loops(), *huge()]


def loops() -> list[bytes]:
    """Compression that points at itself, at what points back, forwards, into the header, along a chain."""
    tail = struct.pack("!HHIH", 1, 1, 30, 4) + b"\xc0\0\2\1"
    at = 12 + len(ASKED)
    chain = b"".join(struct.pack("!H", 0xC000 | at + 10 + 2 * n) for n in range(4000))
    filler = struct.pack("!HHIH", 16, 1, 30, len(chain) + 2) + b"\xc0\x0c" + chain
    two = HEAD[:6] + b"\0\2" + HEAD[8:]
    return [
        HEAD + ASKED + struct.pack("!H", 0xC000 | at) + tail,
        HEAD + ASKED + struct.pack("!HH", 0xC000 | at + 2, 0xC000 | at) + tail,
        HEAD + ASKED + b"\xc0\xff" + tail + bytes(255),
        HEAD + ASKED + b"\xc0\0" + tail,
        HEAD + ASKED + b"\xc0",
        two + ASKED + b"\0" + filler + struct.pack("!H", 0xC000 | at + 11 + 7998) + tail,
    ]


def huge() -> list[bytes]:
    """64 KiB: as many addresses as fit, as many long names as fit, and counts that nothing is behind."""
    one = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 30, 4)
    many = b"".join(one + struct.pack("!I", 0x0A000000 + n) for n in range(4090))
    long = b"".join(b"\x3f" + bytes([97 + n % 26]) * 63 for n in range(3)) + b"\x3d" + b"z" * 61 + b"\0"
    names = (long + struct.pack("!HHIH", 1, 1, 30, 4) + b"\xc0\0\2\1") * 240
    return [
        HEAD[:6] + struct.pack("!H", 4090) + HEAD[8:] + ASKED + many,
        HEAD[:6] + struct.pack("!H", 240) + HEAD[8:] + ASKED + names,
        HEAD[:6] + b"\xff\xff" + HEAD[8:] + ASKED + one + b"\xc0\0\2\1",
    ]


def fuzzed(chance: random.Random, from_: Sequence[bytes], count: int) -> Iterator[bytes]:
    """*count* messages: bytes changed, cut out, doubled, or exchanged for those that matter to a parser."""
    telling = (0, 1, 0x3F, 0x40, 0x7F, 0x80, 0xC0, 0xFF)
    small = [seed for seed in from_ if len(seed) < 1000]
    for number in range(count):
        wire = bytearray(from_[number % len(from_)] if number % 50 == 0 else chance.choice(small))
        for _ in range(chance.choice((0, 1, 1, 2, 3, 8))):
            at = chance.randrange(len(wire))
            match chance.randrange(6):
                case 0:
                    wire[at] = chance.randrange(256)
                case 1:
                    wire[at] = chance.choice(telling)
                case 2:
                    wire[at : at + 2] = struct.pack("!H", 0xC000 | chance.randrange(len(wire)))
                case 3:
                    del wire[at : at + chance.randrange(1, 5)]
                case 4:
                    wire[at:at] = wire[at : at + chance.randrange(1, 30)]
                case 5:
                    del wire[at:]
            if len(wire) < 2:
                break
        yield bytes(wire)
