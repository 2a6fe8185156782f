"""Which answers are believed, what is said to questions that cannot be decided, and the records of both."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, cast

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from msgspec.structs import replace

from cirri.dnsproxy.counts import Counts
from cirri.dnsproxy.desk import Asked, Desk
from cirri.dnsproxy.facts import Facts, Pod
from cirri.dnsproxy.journal import Journal
from cirri.dnsproxy.kernel import Kernel
from cirri.dnsproxy.message import Answer
from cirri.dnsproxy.opening import Openings
from cirri.dnsproxy.sockets import written
from cirri.dnsproxy.watch import PER_LOOK, Watch
from cirri.layout.address import address16
from cirri.model.records import DnsFacts, L7Record
from cirri.proxies import DnsRule, NameSelector, NodeProxies, ProxyEndpoint
from cirri.runtime.records import RecordStream


class Heard:
    """Stands where records go."""

    def __init__(self) -> None:
        self.records: list[L7Record] = []
        self.lost = 0

    def add(self, records: tuple[L7Record, ...]) -> None:
        self.records += records

    def lose(self, count: int) -> None:
        self.lost += count


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    kernel, counts = Kernel(tmp_path), Counts()

    async def ask(_: object) -> int:
        raise AssertionError

    openings = Openings(
        facts=Facts(), journal=Journal(tmp_path / "facts"), kernel=kernel, ask=ask, counts=counts, spawn=print
    )
    return Desk(openings, kernel, counts, Watch(cast(RecordStream, Heard()), "n"), print)


QUERY = dns.message.make_query("www.example.com", "A", id=7)
QUESTION = QUERY.to_wire()[12:33].lower()


def reply(name: str = "www.example.com", *, code: int = 0, address: str = "", cut: int = 0) -> bytes:
    found = dns.message.make_response(dns.message.make_query(name, "A", id=7))
    found.set_rcode(cast(Any, code))
    if address:
        found.answer.append(dns.rrset.from_text(f"{name}.", 30, "IN", "A", address))
    wire = found.to_wire()
    return wire[: len(wire) - cut]


NOTHING = Answer(())
ONE = Answer(((address16("192.0.2.1"), 30),))


class Case(NamedTuple):
    """What is believed of *message*, and what is counted."""

    id: str
    message: bytes
    believed: Answer | None
    counted: str = ""


CASES = [
    Case("an answer", reply(address="192.0.2.1"), ONE),
    Case("in another case", reply("wWw.exAMple.com", address="192.0.2.1"), ONE),
    Case("no such name", reply(code=3), NOTHING),
    Case("about another name", reply("evil.example.com", address="192.0.2.1"), None, "spoofed"),
    Case("a question", QUERY.to_wire(), None, "spoofed"),
    Case("nothing", b"", None, "spoofed"),
    Case("an error without the question", reply(code=5)[:4] + bytes(8), NOTHING),
    Case("success without the question", reply()[:4] + bytes(8), None, "spoofed"),
    Case("cut short", reply(address="192.0.2.1", cut=2), None, "malformed"),
    Case("cut short and saying so", b"\0\7\x82\0" + reply(address="192.0.2.1", cut=2)[4:], NOTHING),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_believe(desk: Desk, case: Case) -> None:
    assert desk.believe(QUESTION, case.message) == case.believed
    for name in ("spoofed", "malformed"):
        assert getattr(desk.counts, name) == (name == case.counted)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (QUERY.to_wire()[:20], dns.rcode.FORMERR),
        (b"\0\7\x28\0" + QUERY.to_wire()[4:], dns.rcode.NOTIMP),
        (reply(), None),
        (b"\0\7", None),
    ],
)
def test_objections(desk: Desk, message: bytes, code: int | None) -> None:
    said = desk.objection(message)
    assert (dns.message.from_wire(said).rcode() if said else None) == code
    assert desk.counts.malformed == 1


def asked() -> Asked:
    pod = Pod(3)
    pod.identity = 100
    ends = [written((address, port)) for address, port in (("10.0.0.1", 4000), ("2001:db8::53", 53))]
    return Asked(pod, ends[0], ends[1], 101, QUESTION, 9, 10.0, QUERY.to_wire())


def test_records() -> None:
    heard = Heard()
    watch = Watch(cast(RecordStream, heard), "n")
    watch.passed(asked())
    watch.refused(asked(), 5)
    watch.answered(asked(), reply(), ONE, 10.5)
    watch.failed(asked(), "no answer")
    told = [(one.type, one.verdict, one.message, one.latency_ns, one.dns) for one in heard.records]
    question = {"query": "www.example.com", "qtypes": ("A",)}
    assert told == [
        ("request", "forwarded", "", 0, DnsFacts(**cast(Any, question))),
        ("request", "dropped", "", 0, DnsFacts(**cast(Any, question), rcode=5)),
        (
            "response",
            "forwarded",
            "",
            500_000_000,
            DnsFacts(**cast(Any, question), ips=("192.0.2.1",), ttl=30),
        ),
        ("response", "error", "no answer", 0, DnsFacts(**cast(Any, question))),
    ]
    one = heard.records[0]
    assert (one.source, one.destination) == ("10.0.0.1:4000", "[2001:db8::53]:53")
    assert (one.endpoint, one.source_identity, one.destination_identity, one.rule) == (3, 100, 101, 9)


def test_records_that_there_is_no_time_for_are_counted() -> None:
    heard = Heard()
    watch = Watch(cast(RecordStream, heard), "n")
    for _ in range(PER_LOOK + 5):
        watch.passed(asked())
    assert (len(heard.records), heard.lost) == (PER_LOOK, 0)
    watch.look()
    assert heard.lost == 5
    watch.passed(asked())
    assert len(heard.records) == PER_LOOK + 1


ENTRY = '{"matchName":"a.example"}'


class Repeats:
    """Stands where the compiled edge is: how often it was told to forget, and of which pods it knows."""

    def __init__(self) -> None:
        self.forgot = 0
        self.known: set[tuple[int, int, bytes]] = set()

    def clear(self) -> None:
        self.forgot += 1

    def pods(self, pods: Iterable[tuple[int, int, bytes]]) -> None:
        self.known = set(pods)


def test_decisions_are_forgotten_with_rules_and_pods_alone(desk: Desk) -> None:
    core = Repeats()
    desk.core = cast(Any, core)
    pod = ProxyEndpoint(id=1, identity=100, pod="a", addresses=("10.0.0.1", "fd00::1"))
    told = NodeProxies(revision=1, node="n", endpoints=(pod,))
    desk.adopt(told)
    assert core.known == {(1, 100, bytes((10, 0, 0, 1))), (1, 100, address16("fd00::1"))}
    before = core.forgot
    desk.adopt(told := replace(told, sets={7: ("a",)}, names={100: (NameSelector(key="a", entry=ENTRY),)}))
    assert core.forgot == before
    desk.adopt(told := replace(told, dns=(DnsRule(subject=100, protocol=17, port=53),)))
    assert core.forgot == before + 1
    desk.adopt(replace(told, endpoints=(replace(pod, identity=101),)))
    assert core.forgot == before + 2
    assert {identity for _, identity, _ in core.known} == {101}
