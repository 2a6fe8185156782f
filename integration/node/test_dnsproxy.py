"""The DNS proxy between a pod and a real resolver: two instances, killed and replaced while pods ask."""

from __future__ import annotations

import asyncio
import functools
import random
import signal
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset
from msgspec.structs import replace
from pyroaring import BitMap

from cirri.proxies import DnsRule
from cirri.testing.names import DNS, POD, SERVER, SERVER6, SUBJECT, World, world
from cirri.testing.sockets import socket_in
from cirri.testing.wait import eventually

COM, ORG = '{"matchPattern":"*.example.com"}', '{"matchName":"example.org"}'
SLOW = {"tofqdns-proxy-response-max-delay": "300ms"}
RECORDS = [
    "www.example.com. 1 IN A 192.0.2.1",
    "www.example.com. 1 IN AAAA 2001:db8::1",
    "alias.example.com. 1 IN CNAME edge.cdn.example.net.",
    "edge.cdn.example.net. 1 IN A 192.0.2.2",
    "example.org. 1 IN A 192.0.2.3",
    "evil.example. 1 IN A 192.0.2.66",
    *(f"big.example.com. 1 IN A 192.0.{3 + n // 250}.{n % 250}" for n in range(1000)),
    *(f"n{n}.example.com. 1 IN A 198.51.100.{n}" for n in range(200)),
]


def runs(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A coroutine as a test."""

    @functools.wraps(test)
    def run(**arguments: Any) -> None:
        asyncio.run(test(**arguments))

    return run


def rules(*entries: str, every: bool = False) -> list[DnsRule]:
    servers = BitMap([DNS]).serialize()
    return [
        DnsRule(subject=SUBJECT, protocol=p, port=53, peers=servers, entries=entries, any=every, cookie=9)
        for p in (6, 17)
    ]


@asynccontextmanager
async def proxied(
    *instances: str, names: tuple[str, ...] = (COM,), settings: Mapping[str, str] = {}
) -> AsyncIterator[World]:
    async with world(RECORDS, *instances) as found:
        found.tell(rules(COM, ORG), names, settings=settings)
        await found.ready(*instances)
        yield found


async def ask(
    here: World, name: str, kind: str = "A", *, tcp: bool = False, **more: Any
) -> dns.message.Message:
    """What the pod is answered."""
    server = more.pop("server", SERVER)
    query = dns.message.make_query(name, kind, use_edns=more.pop("edns", True), payload=1232)
    family = socket.AF_INET6 if ":" in server else socket.AF_INET

    def work() -> dns.message.Message:
        with socket_in(here.pod, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM, family) as one:
            if not tcp:
                one.setblocking(False)
                return dns.query.udp(query, server, timeout=6, sock=one)
            one.settimeout(6)
            one.connect((server, 53))
            one.setblocking(False)
            return dns.query.tcp(query, server, timeout=6, sock=one)

    return await asyncio.to_thread(work)


def addresses(answer: dns.message.Message) -> set[str]:
    return {str(one.address) for rrset in answer.answer for one in rrset if hasattr(one, "address")}


@runs
async def test_names_are_asked_for_refused_and_opened() -> None:
    async with proxied("a", "b") as here:
        for tcp in (False, True):
            for server in (SERVER, SERVER6):
                answer = await ask(here, "WwW.example.com", tcp=tcp, server=server)
                assert addresses(answer) == {"192.0.2.1"}
                assert str(answer.question[0].name) == "WwW.example.com."
                refused = await ask(here, "evil.example", tcp=tcp, server=server)
                assert (refused.rcode(), refused.answer) == (dns.rcode.REFUSED, [])
        number = here.told.sets and min(here.told.sets)
        assert here.opened() == {"192.0.2.1": number}, "refused names open nothing"
        assert addresses(await ask(here, "www.example.com", "AAAA")) == {"2001:db8::1"}
        assert addresses(await ask(here, "alias.example.com")) == {"192.0.2.2"}
        assert addresses(await ask(here, "example.org")) == {"192.0.2.3"}, "no selector is like it"
        assert here.opened() == dict.fromkeys(("192.0.2.1", "2001:db8::1", "192.0.2.2"), number)
        assert (await ask(here, "absent.example.com")).rcode() == dns.rcode.NXDOMAIN

        cut = await ask(here, "big.example.com", edns=False)
        assert cut.flags & dns.flags.TC
        assert len(addresses(await ask(here, "big.example.com", tcp=True))) == 1000
        assert len(here.opened()) == 1003
        found = await asyncio.to_thread(pipelined, here)
        assert found == {f"198.51.100.{n}" for n in range(200) if n != 7}

        here.tell(rules(ORG), [ORG], settings={"tofqdns-dns-reject-response-code": "nameError"})
        await eventually(
            lambda: set(here.opened()) == {"192.0.2.3"}, what="old names go, known ones are found"
        )
        assert (await ask(here, "www.example.com")).rcode() == dns.rcode.NXDOMAIN
        here.tell(rules(every=True), [])
        await eventually(lambda: not here.opened(), what="nothing is opened")
        assert addresses(await ask(here, "evil.example")) == {"192.0.2.66"}


def pipelined(here: World) -> set[str]:
    """Two hundred questions over one connection, cut anywhere; one of them is refused."""
    with socket_in(here.pod, socket.SOCK_STREAM) as one:
        one.settimeout(6)
        one.connect((SERVER, 53))
        asked = [dns.message.make_query(f"n{n}.example.com", "A", id=n) for n in range(200)]
        asked[7] = dns.message.make_query("evil.example", "A", id=7)
        stream = b"".join(struct.pack("!H", len(q.to_wire())) + q.to_wire() for q in asked)
        for at in range(0, len(stream), 997):
            one.sendall(stream[at : at + 997])
        found = set()
        for _ in asked:
            answer, _ = dns.query.receive_tcp(one, time.time() + 6)
            assert asked[answer.id].is_response(answer)
            found |= addresses(answer)
        return found


@runs
async def test_an_answer_waits_for_the_kernel_but_not_for_ever() -> None:
    async with proxied("a", settings=SLOW) as here:
        await ask(here, "example.org")
        here.answers.clear()
        waiting = asyncio.ensure_future(ask(here, "www.example.com"))
        await eventually(lambda: here.asked, what="the number is asked for")
        assert not waiting.done()
        here.answers.set()
        assert addresses(await waiting) == {"192.0.2.1"}
        assert set(here.opened()) == {"192.0.2.1"}
        here.answers.clear()
        here.tell(rules(COM, ORG), [COM, ORG], settings=SLOW)
        await eventually(lambda: (ORG,) in here.asked, what="a name that is known is like a new selector")
        began = time.monotonic()
        assert addresses(await ask(here, "example.org")) == {"192.0.2.3"}
        assert time.monotonic() - began > 0.3
        assert "192.0.2.3" not in here.opened()
        here.answers.set()
        await eventually(lambda: "192.0.2.3" in here.opened(), what="what was late is opened all the same")


@runs
async def test_spoofed_answers_do_nothing() -> None:
    """The resolver stands still; somebody who may use its address guesses."""
    async with proxied("a") as here:
        await ask(here, "example.org")
        here.pause_server(signal.SIGSTOP)
        try:
            waiting = asyncio.ensure_future(ask(here, "www.example.com"))
            await eventually(lambda: len(ports(here)) == 1, what="the question is under way")
            (port,) = ports(here)
            await asyncio.to_thread(spoof, here, port)
            assert not waiting.done()
        finally:
            here.pause_server(signal.SIGCONT)
        assert addresses(await waiting) == {"192.0.2.1"}
        assert set(here.opened()) == {"192.0.2.1"}


def ports(here: World) -> set[int]:
    """Ports from which the proxy asks in the pod's name."""
    import subprocess

    said = subprocess.run(
        ["ip", "netns", "exec", here.node, "ss", "-Huan"], capture_output=True, text=True, check=True
    ).stdout
    ends = [line.split()[3:5] for line in said.splitlines()]
    return {int(local.rpartition(":")[2]) for local, peer in ends if local.startswith(f"{POD}:")}


def spoof(here: World, port: int) -> None:
    """Answers with wrong identifiers, questions, ports and addresses; nobody knows the right ones."""
    chance = random.Random(3)
    wrong = dns.message.make_response(dns.message.make_query("evil.example", "A"))
    right = dns.message.make_response(dns.message.make_query("www.example.com", "A"))
    evil = dns.message.from_text(
        "id 1\nopcode QUERY\nrcode NOERROR\nflags QR RD RA\n;QUESTION\nwww.example.com. IN A\n"
        ";ANSWER\nwww.example.com. 30 IN A 192.0.2.66\n"
    )
    with (
        socket_in(here.server, socket.SOCK_DGRAM) as as_server,
        socket_in(here.server, socket.SOCK_DGRAM) as other,
    ):
        as_server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        as_server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        as_server.bind((SERVER, 53))
        for _ in range(200):
            for message in (wrong, right, evil):
                message.id = chance.randrange(65536)
                wire = message.to_wire()
                as_server.sendto(wire if chance.random() < 0.8 else wire[: len(wire) // 2], (POD, port))
        for number in range(0, 65536, 16):
            evil.id = number
            other.sendto(evil.to_wire(), (POD, port))


class Asker:
    """Asks all the time; every question must be answered, and every answered address be open."""

    def __init__(self, here: World) -> None:
        self.here = here
        self.answered, self.slow, self.failures = 0, 0.0, list[str]()
        self._going = True

    async def run(self) -> None:
        def work() -> None:
            number = 0
            while self._going:
                number = (number + 1) % 200
                query = dns.message.make_query(f"n{number}.example.com", "A")
                began = time.monotonic()
                with socket_in(self.here.pod, socket.SOCK_DGRAM) as one:
                    one.setblocking(False)
                    try:
                        answer = dns.query.udp(query, SERVER, timeout=4, sock=one)
                    except Exception as error:  # noqa: BLE001 - counted
                        self.failures.append(repr(error))
                        continue
                self.slow = max(self.slow, time.monotonic() - began)
                self.answered += 1
                if addresses(answer) - set(self.here.opened()):
                    self.failures.append(f"n{number} is not open")

        await asyncio.to_thread(work)

    async def stop(self, task: asyncio.Future[None]) -> None:
        self._going = False
        await task


@runs
async def test_killed_replaced_and_restarted_under_load() -> None:
    async with proxied("a", "b") as here:
        asker = Asker(here)
        task = asyncio.ensure_future(asker.run())

        async def more(count: int = 30) -> None:
            goal = asker.answered + count
            await eventually(lambda: asker.answered > goal or asker.failures, what="answers go on")

        await more()
        for how in (signal.SIGKILL, signal.SIGTERM):
            for name in "ab":
                code = here.end(name, how)
                assert code == (0 if how == signal.SIGTERM else -9)
                await more()
                here.start(name)
                await here.ready(name)
                await more()
        here.unplug()
        await more()
        await asker.stop(task)
        assert asker.failures == []
        assert asker.slow < 1.0, "what a killed instance had taken is asked by the other"


@runs
async def test_facts_outlive_every_instance_but_not_their_pod() -> None:
    async with proxied("a") as here:
        await ask(here, "www.example.com")
        before = here.opened()
        assert here.end("a", signal.SIGKILL) == -9
        here.maps.names.clear()
        here.start("a")
        await here.ready("a")
        await eventually(lambda: here.opened() == before, what="what was learnt is opened again")

        for endpoints in ((replace(here.told.endpoints[0], pod="other"),), ()):
            here.told = replace(here.told, revision=here.told.revision + 1, endpoints=endpoints)
            here.proxies.publish(here.told)
            await eventually(lambda: not here.opened(), what="another pod's number opens nothing")
            if endpoints:
                await ask(here, "www.example.com")
                assert here.opened() == before


class Zones:
    """A server whose answers over TCP are transfers in three messages, the question in the first alone."""

    def __init__(self, here: World, hangs_up_after: int) -> None:
        self._socket = socket_in(here.server, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((SERVER, 53))
        self._socket.listen()
        self._socket.settimeout(10)
        self._after = hangs_up_after

    def serve(self) -> None:
        with self._socket, self._socket.accept()[0] as one:
            query, _ = dns.query.receive_tcp(one, time.time() + 10)
            parts = ("example.com. 60 IN SOA ns. root. 1 60 60 60 1", "a.example.com. 60 IN A 192.0.2.9",
                     "example.com. 60 IN SOA ns. root. 1 60 60 60 1")  # fmt: skip
            for number, text in enumerate(parts[: self._after]):
                reply = dns.message.make_response(query)
                owner, ttl, kind_of, kind, data = text.split(" ", 4)
                reply.answer.append(dns.rrset.from_text(owner, int(ttl), kind_of, kind, data))
                if number:
                    reply.question = []
                dns.query.send_tcp(one, reply)
            if self._after == len(parts):
                one.recv(1)  # until the pod has what it wanted


@runs
async def test_zones_are_transferred() -> None:
    async with world(RECORDS, "a") as here:
        here.tell(rules(every=True), [COM])
        await here.ready("a")
        here.stop_server()
        for count in (3, 2):
            zones = Zones(here, count)
            serving = asyncio.ensure_future(asyncio.to_thread(zones.serve))
            assert await asyncio.to_thread(transferred, here) == ["SOA", "A", "SOA"][:count]
            await serving
        assert here.opened() == {}


def transferred(here: World) -> list[str]:
    """Types of the records that the pod gets until the last of them, or the end of the connection."""
    found: list[str] = []
    with socket_in(here.pod, socket.SOCK_STREAM) as one:
        one.settimeout(6)
        one.connect((SERVER, 53))
        query = dns.message.make_query("example.com", "AXFR")
        dns.query.send_tcp(one, query)
        while found.count("SOA") < 2:
            try:
                answer, _ = dns.query.receive_tcp(one, time.time() + 6)
            except EOFError:
                break
            assert answer.id == query.id
            found += [dns.rdatatype.to_text(rrset.rdtype) for rrset in answer.answer]
    return found
