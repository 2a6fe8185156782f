"""Questions are found, addresses belong to the name that was asked for, and nothing else is believed."""

import random
from typing import NamedTuple

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from cirri.dnsproxy.message import (
    FORMERR,
    REFUSED,
    Malformed,
    Unanswerable,
    check_query,
    question_end,
    read_answer,
    refusal,
    text,
)
from cirri.layout.address import address16, address_of
from cirri.testing.hostile import fuzzed, seeds


class Case(NamedTuple):
    """An answer about ``www.example.org`` with *records* leads to *addresses* (address, seconds)."""

    id: str
    records: list[str]
    addresses: dict[str, int]
    aliases: tuple[str, ...] = ()
    section: str = "answer"


W = "www.example.org."
CASES = [
    Case("nothing", [], {}),
    Case("one", [f"{W} 30 IN A 192.0.2.1"], {"192.0.2.1": 30}),
    Case("of both families", [f"{W} 30 IN A 192.0.2.1", f"{W} 40 IN AAAA 2001:db8::1"],
         {"192.0.2.1": 30, "2001:db8::1": 40}),
    Case("mixed case", ["WwW.Example.ORG. 30 IN A 192.0.2.1"], {"192.0.2.1": 30}),
    Case("by an alias, the least ttl counts",
         [f"{W} 20 IN CNAME cdn.example.net.", "cdn.example.net. 30 IN A 192.0.2.1"],
         {"192.0.2.1": 20}, ("cdn.example.net",)),
    Case("a chain in any order",
         ["b.net. 5 IN CNAME c.net.", "c.net. 60 IN A 192.0.2.1", f"{W} 20 IN CNAME b.net."],
         {"192.0.2.1": 5}, ("b.net", "c.net")),
    Case("a chain that bites its tail", [f"{W} 20 IN CNAME b.net.", f"b.net. 5 IN CNAME {W}"], {},
         ("b.net", "www.example.org")),
    Case("a stranger's address in the answer",
         [f"{W} 30 IN A 192.0.2.1", "bank.example. 30 IN A 192.0.2.66"], {"192.0.2.1": 30}),
    Case("a stranger's alias", ["bank.example. 30 IN CNAME evil.net.", "evil.net. 30 IN A 192.0.2.66"], {}),
    Case("additional section", [f"{W} 30 IN A 192.0.2.66"], {}, section="additional"),
    Case("authority section", [f"{W} 30 IN A 192.0.2.66"], {}, section="authority"),
    Case("hints of HTTPS", [f"{W} 30 IN HTTPS 1 . alpn=h2 ipv4hint=192.0.2.1,192.0.2.2 ipv6hint=2001:db8::1"],
         {"192.0.2.1": 30, "192.0.2.2": 30, "2001:db8::1": 30}),
    Case("hints of SVCB", [f"{W} 30 IN SVCB 1 svc.example.net. port=8443 ipv4hint=192.0.2.1"],
         {"192.0.2.1": 30}),
    Case("an alias by HTTPS", [f"{W} 30 IN HTTPS 0 svc.example.net."], {}),
    Case("what is no address", [f'{W} 30 IN TXT "192.0.2.1"', f"{W} 30 IN MX 1 mail.example.org."], {}),
    Case("ttl of no time", [f"{W} 0 IN A 192.0.2.1"], {"192.0.2.1": 0}),
    Case("ttl of a century", [f"{W} 2147483647 IN A 192.0.2.1"], {"192.0.2.1": 604800}),
]  # fmt: skip


def answer_to(name: str, records: list[str], section: str = "answer") -> bytes:
    reply = dns.message.make_response(dns.message.make_query(name, "A"))
    for record in records:
        owner, ttl, where, kind, data = record.split(" ", 4)
        getattr(reply, section).append(dns.rrset.from_text(owner, int(ttl), where, kind, data))
    return reply.to_wire()


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_answers(case: Case) -> None:
    wire = answer_to(W, case.records, case.section)
    found = read_answer(wire, question_end(wire))
    assert {str(address_of(address)): ttl for address, ttl in found.addresses} == case.addresses
    assert tuple(map(text, found.aliases)) == case.aliases


def test_what_failed_says_nothing() -> None:
    wire = bytearray(answer_to(W, [f"{W} 30 IN A 192.0.2.1"]))
    wire[3] |= 3
    assert read_answer(bytes(wire), question_end(bytes(wire))).addresses == ()


def test_another_class_says_nothing() -> None:
    wire = answer_to(W, [f"{W} 30 IN A 192.0.2.1"])
    chaos = wire.replace(b"\xc0\x0c\0\1\0\1", b"\xc0\x0c\0\1\0\3")
    assert chaos != wire
    assert read_answer(chaos, question_end(chaos)).addresses == ()


@pytest.mark.parametrize("edns", [False, True])
@pytest.mark.parametrize("code", [REFUSED, 3])
def test_refusals(edns: bool, code: int) -> None:
    query = dns.message.make_query("Www.Example.ORG", "AAAA", use_edns=edns, want_dnssec=edns)
    wire = query.to_wire()
    reply = dns.message.from_wire(refusal(wire, code, check_query(wire)))
    assert query.is_response(reply)
    assert (reply.rcode(), reply.edns >= 0, reply.question) == (code, edns, query.question)
    assert not reply.answer
    assert str(reply.question[0].name) == "Www.Example.ORG."


QUERY = dns.message.make_query("a.b", "A", id=7).to_wire()


@pytest.mark.parametrize(
    ("wire", "error"),
    [
        (b"", Unanswerable),
        (QUERY[:11], Unanswerable),
        (answer_to("a.b", []), Unanswerable),
        (QUERY[:12], Malformed),
        (QUERY[:-1], Malformed),
        (QUERY[:5] + b"\2" + QUERY[6:], Malformed),
        (QUERY[:5] + b"\0" + QUERY[6:], Malformed),
        (QUERY[:2] + b"\x29" + QUERY[3:], Malformed),
        (QUERY[:12] + b"\xc0\x0c\0\1\0\1", Malformed),
        (QUERY[:12] + b"\x40" + bytes(80), Malformed),
        (QUERY[:12] + b"\1a" * 128 + b"\0\0\1\0\1", Malformed),
    ],
    ids=[
        "nothing", "part of a header", "an answer", "a header", "cut short", "two questions", "no question",
        "another opcode", "a pointer", "a reserved length", "too long a name",
    ],
)  # fmt: skip
def test_queries_that_cannot_be_decided(wire: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        check_query(wire)
    if error is Malformed:
        assert dns.message.from_wire(refusal(wire.ljust(12, b"\0"), FORMERR)).rcode() == dns.rcode.FORMERR


def test_the_longest_name_is_one() -> None:
    wire = QUERY[:12] + b"\1a" * 127 + b"\0\0\1\0\1"
    assert check_query(wire) == len(wire)


@pytest.mark.parametrize(
    ("wire", "says"),
    [
        (b"\0", "."),
        (b"\3WWW\7example\3org\0", "www.example.org"),
        (b"\3a.b\1*\0", r"a\046b.\042"),
        (b"\2\xc3\xa9\3_x-\0", r"\195\169._x-"),
    ],
)
def test_names_are_written(wire: bytes, says: str) -> None:
    assert text(wire) == says


def test_dnspython_agrees_about_damaged_answers() -> None:
    """What we take from a message that is broken somewhere, the oracle takes too, if it can read it."""
    agreed = 0
    for wire in fuzzed(random.Random(5), seeds(), 20000):
        try:
            end = question_end(wire)
            found = dict(read_answer(wire, end).addresses)
        except Malformed:
            continue
        try:
            oracle = dns.message.from_wire(wire, ignore_trailing=True, one_rr_per_rrset=True)
        except Exception:  # noqa: BLE001 - it reads what we need not, and objects to that
            continue
        agreed += 1
        told = {
            address16(str(one[0].address))
            for one in oracle.answer
            if one.rdclass == 1 and one.rdtype in (1, 28)
        }
        hints = {address16(str(each)) for one in oracle.answer if one.rdtype in (64, 65) and one.rdclass == 1
                 for key in (4, 6) for each in getattr(one[0].params.get(key), "addresses", ())}  # fmt: skip
        assert set(found) <= told | hints, wire.hex()
        assert text(wire[12 : end - 4]) == text(oracle.question[0].name.to_wire() or b"\0")
    assert agreed > 500
