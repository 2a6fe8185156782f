"""The compiled edge repeats what was decided, exactly that, and tells the rest."""

from __future__ import annotations

import mmap
import select
import socket
import time
from collections.abc import Callable, Iterator

import dns.message
import dns.rcode
import dns.rrset
import pytest

from cirri.dnsproxy.core import Core, Event, Kind
from cirri.dnsproxy.counts import Counts
from cirri.dnsproxy.slots import left, needed
from cirri.dnsproxy.sockets import FAMILIES, LOCAL, prepare, written
from cirri.layout.address import address16

SLOTS, SIZE = 128, 512
SUBJECT, DNS, RULES, COOKIE = 1001, 1002, 5, 9
NAME = b"\3www\7example\3com\0"
ONE, TWO = address16("192.0.2.1"), address16("2001:db8::1")


class Edge:
    """A core between a pod and a server, both of them sockets of the test."""

    def __init__(self, family: socket.AddressFamily) -> None:
        self.memories = {each: mmap.mmap(-1, needed(SLOTS, SIZE) + 8) for each in FAMILIES}
        self.family = family
        self.core = Core(self.memories, SLOTS, SIZE)
        self.pod, self.server = (socket.socket(family, socket.SOCK_DGRAM) for _ in range(2))
        for one in (self.pod, self.server):  # the core speaks for the server, too
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind((LOCAL[family], 0))
            one.settimeout(5)
        self.ends = written(self.pod.getsockname()), written(self.server.getsockname())
        self.address = socket.inet_pton(family, LOCAL[family])
        self.core.pods([(1, SUBJECT, self.address)])
        self.core.lease(10.0, 100)
        self.asked = 0

    def close(self) -> None:
        self.core.close()
        self.pod.close()
        self.server.close()

    def put(self, name: str = "www.example.com", kind: str = "A") -> dns.message.Message:
        """A question of the pod."""
        self.asked += 1
        query = dns.message.make_query(name, kind, id=self.asked)
        self.core.put(query.to_wire(), *self.ends)
        return query

    def event(self) -> Event:
        """What the core tells next."""
        assert select.select([self.core.events_fd], [], [], 5)[0], "nothing is told"
        self.core.woken()
        (found,) = self.core.take()
        return found

    def last(self, query: dns.message.Message) -> Event:
        """What is told about a question that was just put."""
        event = self.event()
        assert event.query == query.to_wire()
        return event

    def silent(self) -> None:
        assert not select.select([self.core.events_fd], [], [], 0)[0]

    def allow(self, event: Event) -> None:
        assert event.kind == Kind.QUESTION
        self.core.route(SUBJECT, self.ends[1], RULES, DNS)
        self.core.ask(event.id, RULES, DNS, COOKIE)
        self.core.flush()

    def heard(self) -> tuple[dns.message.Message, tuple[str, int]]:
        """What the server was asked, and by whom."""
        data, who = self.server.recvfrom(65535)
        return dns.message.from_wire(data), who

    def answer(self, *records: str, change: Callable[[bytes], bytes] = bytes) -> dns.message.Message:
        """The server answers; the question that it got."""
        query, who = self.heard()
        reply = dns.message.make_response(query)
        for record in records:
            owner, ttl, kind, data = record.split(" ", 3)
            reply.answer.append(dns.rrset.from_text(owner, int(ttl), "IN", kind, data))
        self.server.sendto(change(reply.to_wire()), who)
        return query

    def given(self) -> dns.message.Message:
        """What the pod was answered, under the server's address."""
        data, who = self.pod.recvfrom(65535)
        assert who[:2] == self.server.getsockname()[:2]
        return dns.message.from_wire(data)

    def counts(self) -> Counts:
        found = Counts()
        self.core.count(found)
        return found

    def know(self, *addresses: bytes, lasts: int = 60) -> None:
        until = int(time.time()) + lasts
        self.core.know(1, NAME, tuple((address, until) for address in addresses))


@pytest.fixture(params=FAMILIES, ids=["4", "6"])
def edge(request: pytest.FixtureRequest) -> Iterator[Edge]:
    found = Edge(request.param)
    yield found
    found.close()


@pytest.fixture
def allowed(edge: Edge) -> Edge:
    """www.example.com may be asked for; everything about the first question is done."""
    edge.put()
    edge.allow(edge.event())
    edge.answer()
    edge.given()
    return edge


def test_what_was_decided_is_repeated(edge: Edge) -> None:
    query = edge.put()
    event = edge.event()
    assert (event.pod, event.subject, event.query) == (1, SUBJECT, query.to_wire())
    assert (event.client, event.server) == edge.ends
    edge.allow(event)
    asked = edge.answer()
    assert asked.question == query.question
    assert query.is_response(edge.given())
    for name, kind in (("www.example.com", "A"), ("wWw.exAMPle.com", "AAAA")):
        query = edge.put(name, kind)
        asked = edge.answer()
        assert asked.question == query.question
        given = edge.given()
        assert query.is_response(given)
        assert given.question == query.question
    edge.silent()
    edge.put("other.example.com")
    assert edge.event().kind == Kind.QUESTION, "nothing was decided about it"
    assert edge.counts().answers == 3
    told = [(event.kind, event.identity, event.number) for event in edge.core.take(records=True)]
    assert told == [(kind, DNS, COOKIE) for _ in range(3) for kind in (Kind.PASSED, Kind.ANSWERED)]


def test_a_refusal_is_sent(edge: Edge) -> None:
    query = edge.put()
    edge.core.reply(edge.event().id, query.to_wire()[:2] + b"\x81\x05" + query.to_wire()[4:])
    assert edge.given().rcode() == dns.rcode.REFUSED
    edge.put()
    assert edge.event().kind == Kind.QUESTION, "refusals are not repeated"


@pytest.mark.parametrize("change", ["clear", "route", "subject"])
def test_a_decision_ends(allowed: Edge, change: str) -> None:
    if change == "clear":
        allowed.core.clear()
    elif change == "route":
        allowed.core.route(SUBJECT, allowed.ends[1], RULES + 1, DNS)
    else:
        allowed.core.pods([(1, SUBJECT + 1, allowed.address)])
    allowed.put()
    assert allowed.event().kind == Kind.QUESTION


def test_a_pod_that_is_gone_asks_nothing(allowed: Edge) -> None:
    allowed.core.pods([])
    allowed.put()
    assert allowed.counts().strangers == 1
    allowed.silent()


W = "www.example.com."
OPEN = [
    ("one", (ONE,), 60, [f"{W} 30 A 192.0.2.1"], True),
    ("one of several", (ONE, TWO), 60, [f"{W} 30 A 192.0.2.1"], True),
    ("both", (ONE, TWO), 60, [f"{W} 30 A 192.0.2.1", f"{W} 30 AAAA 2001:db8::1"], True),
    ("by an alias", (ONE,), 60, [f"{W} 30 CNAME a.net.", "a.net. 900 A 192.0.2.1"], True),
    ("a stranger's", (), 60, ["evil.net. 30 A 192.0.2.66"], True),
    ("an unknown one", (), 60, [f"{W} 30 A 192.0.2.1"], False),
    ("an unknown one beside a fact", (ONE,), 60, [f"{W} 30 A 192.0.2.1", f"{W} 30 AAAA 2001:db8::1"],
     False),
    ("for longer than it will be spared", (ONE,), 9, [f"{W} 90 A 192.0.2.1"], False),
    ("over", (ONE,), -1, [f"{W} 0 A 192.0.2.1"], False),
    ("not plain", (ONE,), 60, [f"{W} 30 HTTPS 1 . ipv4hint=192.0.2.1"], False),
]  # fmt: skip


@pytest.mark.parametrize(
    ("addresses", "lasts", "records", "passes"), [c[1:] for c in OPEN], ids=[c[0] for c in OPEN]
)
def test_an_answer_passes_if_its_addresses_are_facts(
    allowed: Edge, addresses: tuple[bytes, ...], lasts: int, records: list[str], passes: bool
) -> None:
    allowed.know(*addresses, lasts=lasts)
    query = allowed.put()
    allowed.answer(*records)
    if not passes:
        event = allowed.event()
        assert (event.kind, event.identity, event.number) == (Kind.ANSWER, DNS, COOKIE)
        assert allowed.core.believed(event.id)
        assert not allowed.core.believed(event.id)
        allowed.core.reply(event.id, event.answer)
    assert query.is_response(allowed.given())


def test_an_answer_for_longer_passes_and_is_told_once(allowed: Edge) -> None:
    allowed.know(ONE, lasts=60)
    for _ in range(2):
        query = allowed.put()
        allowed.answer(f"{W} 90 A 192.0.2.1")
        assert query.is_response(allowed.given())
    allowed.silent()
    (event,) = allowed.core.take()
    assert (event.kind, event.query[2:], event.answer[2:4]) == (Kind.AGING, query.to_wire()[2:], b"\x81\x00")
    allowed.know(ONE, lasts=70)
    allowed.put()
    allowed.answer(f"{W} 90 A 192.0.2.1")
    allowed.given()
    assert [event.kind for event in allowed.core.take()] == [Kind.AGING], (
        "it was told that they last longer, but not long enough"
    )


def test_many_addresses_of_one_name_and_then_the_newest(allowed: Edge) -> None:
    many = [f"192.0.2.{n}" for n in range(70)]
    for passing, known in ((many[:60], many[:60]), (many[6:], many[60:]), (many[:7], [])):
        allowed.know(*map(address16, known))
        query = allowed.put()
        allowed.answer(*(f"{W} 30 A {one}" for one in passing))
        if known:
            assert query.is_response(allowed.given())
        else:
            assert allowed.event().kind == Kind.ANSWER, "the oldest made room"


def test_facts_are_forgotten_and_belong_to_their_pod_and_name(allowed: Edge) -> None:
    allowed.know(ONE)
    allowed.core.know(2, NAME, ((TWO, int(time.time()) + 60),))
    allowed.core.forget(2, NAME)
    allowed.core.forget(1, b"\3com\0")
    for records, kind in ((f"{W} 30 A 192.0.2.1",), None), ((f"{W} 30 AAAA 2001:db8::1",), Kind.ANSWER):
        query = allowed.put()
        allowed.answer(*records)
        if kind is None:
            assert query.is_response(allowed.given())
        else:
            assert allowed.event().kind == kind
    allowed.core.forget(1, NAME)
    allowed.put()
    allowed.answer(f"{W} 30 A 192.0.2.1")
    assert allowed.event().kind == Kind.ANSWER


LIES: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("another identifier", lambda w: bytes((w[0] ^ 0x55, w[1] ^ 0xAA)) + w[2:]),
    ("a question", lambda w: w[:2] + b"\1" + w[3:]),
    ("another name", lambda w: w[:14] + b"x" + w[15:]),
    ("another type", lambda w: w[:30] + b"\x1c" + w[31:]),
    ("two questions", lambda w: w[:5] + b"\2" + w[6:]),
    ("a header", lambda w: w[:12]),
    ("less", lambda w: w[:1]),
    ("no question", lambda w: w[:4] + bytes(8)),
]


@pytest.mark.parametrize("change", [lie[1] for lie in LIES], ids=[lie[0] for lie in LIES])
def test_what_does_not_answer_is_not_believed(allowed: Edge, change: Callable[[bytes], bytes]) -> None:
    query = allowed.put()
    asked, who = allowed.heard()
    right = dns.message.make_response(asked).to_wire()
    allowed.server.sendto(change(right), who)
    allowed.server.sendto(right, who)
    allowed.server.sendto(right, who)
    assert query.is_response(allowed.given())
    until = time.monotonic() + 5
    spoofed = 0
    while spoofed < 2 and time.monotonic() < until:
        spoofed += allowed.counts().spoofed
    assert spoofed == 2, "the lie, and the answer that came twice"
    allowed.silent()


def test_an_error_may_leave_the_question_out(allowed: Edge) -> None:
    allowed.put()
    allowed.answer(change=lambda wire: wire[:3] + b"\5" + bytes(8))
    assert allowed.event().kind == Kind.ANSWER


def test_a_type_is_no_letter(allowed: Edge) -> None:
    """65 is ``A``: a type in lower case would be 97."""
    allowed.put(kind="HTTPS")
    query, who = allowed.heard()
    wire = dns.message.make_response(query).to_wire()
    allowed.server.sendto(wire.replace(b"\0\x41\0\1", b"\0\x61\0\1"), who)
    allowed.server.sendto(wire, who)
    assert allowed.given().question == query.question
    assert allowed.counts().spoofed == 1


def test_records_have_their_room(allowed: Edge) -> None:
    list(allowed.core.take(records=True))
    allowed.core.count(Counts())
    allowed.core.lease(10.0, 3)
    for _ in range(4):
        allowed.put()
        allowed.answer()
        allowed.given()
    assert len(list(allowed.core.take(records=True))) == 3
    assert allowed.core.count(Counts()) == 5


def test_questions_that_are_not_done_are_found_by_others(edge: Edge) -> None:
    queries = [edge.put(name).to_wire() for name in ("a.net", "b.net", "c.net")]
    assert select.select([edge.core.events_fd], [], [], 5)[0]
    edge.core.woken()
    events = list(edge.core.take())
    assert [event.query for event in events] == queries
    edge.core.reply(events[1].id, b"")
    memory = edge.memories[edge.family]
    assert left(memory, SLOTS, SIZE) == [(query, *edge.ends) for query in (queries[0], queries[2])]
    for _ in range(SLOTS - 1):  # the first one's slot is given to another question
        edge.core.reply(edge.last(edge.put("d.net")).id, b"")
    edge.put("e.net")
    edge.core.reply(events[0].id, b"")
    assert dns.message.from_wire(left(memory, SLOTS, SIZE)[0][0]).question[0].name.to_text() == "e.net."


def test_without_a_lease_nothing_is_taken(edge: Edge) -> None:
    edge.core.lease(0.0, 0)
    with socket.socket(edge.family, socket.SOCK_DGRAM) as shared:
        shared.bind((LOCAL[edge.family], 0))
        prepare(shared)
        edge.core.listen(shared)
        query = dns.message.make_query("www.example.com", "A").to_wire()
        edge.pod.sendto(query, shared.getsockname())
        edge.pod.sendto(bytes(SIZE + 1), shared.getsockname())
        assert not select.select([edge.core.events_fd], [], [], 0.2)[0]
        edge.core.lease(10.0, 0)
        event = edge.event()
        assert (event.query, event.client, event.server) == (
            query,
            edge.ends[0],
            written(shared.getsockname()),
        )
        edge.core.deaf()
    assert edge.counts().malformed == 1, "too long"
