"""What views say of what the kernel's programs saw; they run in integration/lab/test_trace.py."""

from __future__ import annotations

import struct
from ipaddress import ip_network
from typing import Any, NamedTuple

import dns.message
import dns.rrset
import pytest

from cirri.cli.trace.asked import is_pod
from cirri.cli.trace.dns import Talk
from cirri.cli.trace.dnswire import parse
from cirri.cli.trace.drops import PATIENCE_NS, Pairing, Told, fits
from cirri.cli.trace.latency import quantile, spent
from cirri.cli.trace.packets import Seen
from cirri.cli.trace.source import Filter, condition
from cirri.layout import EventRecord, EventType
from cirri.layout.address import address16

REASONS = {5: "SKB_DROP_REASON_TC_INGRESS", 6: "SKB_DROP_REASON_NO_SOCKET"}
A, B = "10.0.0.1", "10.0.0.2"


def packet(**said: Any) -> Seen:
    of: dict[str, Any] = {
        "time": 0,
        "location": 0,
        "point": 1,
        "reason": 5,
        "ifindex": 3,
        "netns": 1,
        "length": 60,
        "pid": 7,
    }
    of |= {"sport": 4000, "dport": 80, "protocol": 6, "sent": True, "comm": "curl", "device": "lxc1"}
    return Seen(**{**of, "source": A, "destination": B, **said})


def told(**said: Any) -> Told:
    of: dict[str, Any] = {"type": EventType.DROP, "source": address16(A), "source_port": 4000}
    of |= {"destination": address16(B), "destination_port": 80, "protocol": 6, "ifindex": 3}
    return Told(None, EventRecord(**{**of, **said}))  # type: ignore[arg-type]


class Pair(NamedTuple):
    """Halves, and what comes of them at a time: (packet's number, verdict's number)."""

    id: str
    packets: list[Seen]
    verdicts: list[Told]
    now: int
    found: list[tuple[int | None, int | None]]


PAIRS = [
    Pair("both halves", [packet(time=50)], [told()], 100, [(0, 0)]),
    Pair("the kernel's own waits for nothing", [packet(reason=6)], [], 100, [(0, None)]),
    Pair("one half waits", [packet(time=50)], [], 100, []),
    Pair("not for ever", [packet(time=50)], [], PATIENCE_NS + 51, [(0, None)]),
    Pair("a verdict whose packet was not seen", [], [told()], PATIENCE_NS + 1, [(None, 0)]),
    Pair("a verdict comes before the end", [packet()], [told(timestamp=9)], 100, []),
    Pair("another device", [packet(time=50)], [told(ifindex=4)], 100, []),
    Pair(
        "its own, not the next", [packet(time=50)], [told(source_port=1, timestamp=40), told()], 100, [(0, 1)]
    ),
    Pair("translated meanwhile", [packet(time=50, dport=8080)], [told()], 100, [(0, 0)]),
]


@pytest.mark.parametrize("case", PAIRS, ids=lambda case: case.id)
def test_halves_of_a_drop_are_joined(case: Pair) -> None:
    found = Pairing(REASONS).join(case.packets, case.verdicts, case.now)
    numbers = [
        (
            next((i for i, each in enumerate(case.packets) if each is one), None),
            next((i for i, each in enumerate(case.verdicts) if each is other), None),
        )
        for one, other in found
    ]
    assert numbers == case.found


@pytest.mark.parametrize(
    ("wanted", "fit"),
    [
        (Filter(), True),
        (Filter(either=(ip_network("10.0.0.2/32"),)), True),
        (Filter(source=(ip_network("10.0.0.2/32"),)), False),
        (Filter(destination=(ip_network("10.0.0.0/30"), ip_network("fd00::/8"))), True),
        (Filter(port=80), True),
        (Filter(port=81), False),
        (Filter(protocol=17), False),
    ],
)
def test_the_datapaths_word_is_asked_for_as_the_kernels(wanted: Filter, *, fit: bool) -> None:
    assert fits(told().record, wanted) is fit
    code = (
        condition(wanted).replace("&&", " and ").replace("||", " or ").replace("U)", ")").replace("->", ".")
    )

    class S:
        source = struct.unpack("<4I", address16(A))
        destination = struct.unpack("<4I", address16(B))
        sport, dport, protocol = 0xA00F, 0x5000, 6

    assert bool(eval(code.replace("U", ""), {"s": S})) is fit  # C of this kind is Python too


def query(name: str, **flags: Any) -> dns.message.Message:
    return dns.message.make_query(name, "A", id=7, **flags)


def answer(name: str, *addresses: str) -> bytes:
    message = dns.message.make_response(query(name))
    message.answer = [
        dns.rrset.from_text(name, 5, "IN", "CNAME", "b.example."),
        dns.rrset.from_text("b.example.", 5, "IN", "A", *addresses),
    ]
    return message.to_wire()


def test_messages_are_read() -> None:
    asked = parse(query("A.example.").to_wire())
    assert asked == (7, False, "a.example.", "A", "NOERROR", (), False)
    whole = parse(answer("a.example.", A, B))
    assert whole is not None
    assert (whole.answers[0], {*whole.answers[1:]}) == ("b.example.", {A, B})  # in any order
    cut = parse(answer("a.example.", A, B)[:-3])
    assert cut is not None
    assert len(cut.answers) == 2


@pytest.mark.parametrize("size", range(0, 60, 3))
def test_no_piece_of_a_message_is_misread(size: int) -> None:
    got = parse(answer("a.example.", A)[:size])
    assert got is None or (got.name == "a.example." and got.answers in ((), ("b.example.",)))


@pytest.mark.parametrize(
    "raw", [b"\xc0\x0c" * 40, bytes(12), b"\0\1\1\0\0\1" + bytes(6) + b"\xc0\x0c\0\1\0\1"]
)
def test_what_is_no_message_is_none(raw: bytes) -> None:
    assert parse(raw) is None


def test_a_packet_seen_at_several_devices_is_told_once() -> None:
    talk = Talk()
    ask, reply = query("a.example.").to_wire(), answer("a.example.", A)
    back = packet(time=9, source=B, destination=A, sport=53, dport=4000, protocol=17)
    news = [talk.take(packet(point=2, dport=53), ask), talk.take(packet(point=1, dport=53), ask)]
    news += [talk.take(back, reply), talk.take(back, reply)]
    assert [each is not None for each in news] == [True, False, True, False]
    assert talk.take(packet(point=2, dport=53), ask) is not None  # it is asked again
    assert talk.take(back._replace(dport=4001), reply) is None  # nobody asked


def test_quantiles_are_ends_of_powers_of_two() -> None:
    buckets = [0] * 10 + [50, 49, 0, 1]
    assert [quantile(buckets, share) for share in (0.5, 0.99, 1.0)] == [2.048, 4.096, 16.384]
    assert quantile([0] * 32, 0.5) == 0.0


def test_programs_of_one_name_are_summed() -> None:
    before = {1: ("from_pod", 10, 100), 2: ("from_pod", 5, 5), 3: ("to_pod", 1, 1)}
    after = {1: ("from_pod", 12, 160), 2: ("from_pod", 6, 15), 3: ("to_pod", 1, 1), 4: ("rest", 1, 9)}
    assert spent(before, after) == {"from_pod": (3, 70), "rest": (1, 9)}


def test_a_pod_has_a_namespace_or_not() -> None:
    assert is_pod("a/web", "web")
    assert is_pod("a/web", "a/web")
    assert not is_pod("a/web", "b/web")
    assert not is_pod("", "")
