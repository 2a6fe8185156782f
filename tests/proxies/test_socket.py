"""Both ends on a real socket: what one says the other hears, whoever starts, stops or is slow."""

from __future__ import annotations

import asyncio
import random
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgpack  # type: ignore[import-untyped]
import pytest
from msgspec.structs import replace

from cirri.errors import CirriError
from cirri.proxies import (
    AskRefused,
    DnsRule,
    Listener,
    NameSelector,
    NodeProxies,
    ProxiesClient,
    ProxiesServer,
    ProxyEndpoint,
    Serving,
)
from cirri.proxies.changes import changed, changes
from cirri.proxies.model import NodeChanges
from cirri.proxies.wire import from_server, pack
from cirri.testing.wait import eventually


def state(revision: int) -> NodeProxies:
    return NodeProxies(
        revision=revision,
        node="a",
        endpoints=(ProxyEndpoint(id=7, identity=300, pod="web", addresses=("10.0.0.1",)),),
        listeners=(Listener(port=10100, direction="egress", subject=300, kind="http", rules="{}"),),
        names={300: (NameSelector(key="k1", entry='{"matchName":"github.com"}'),)},
        sets={0x03000001: ("k1",)},
    )


class Side:
    """A datapath service that numbers sets from 1 on and remembers what it was told."""

    def __init__(self, socket: Path) -> None:
        self.numbers: dict[tuple[str, ...], int] = {}
        self.told: list[Serving] = []
        self.in_force = asyncio.Event()
        self.in_force.set()
        self.server = ProxiesServer(socket, number=self.number, serving=self.told.append)

    async def number(self, keys: tuple[str, ...]) -> int:
        if "unknown" in keys:
            raise CirriError("nobody names it")
        await self.in_force.wait()
        return self.numbers.setdefault(keys, len(self.numbers) + 1)


@asynccontextmanager
async def listening(side: Side) -> AsyncIterator[None]:
    server = await side.server.start()
    try:
        yield
    finally:
        server.close()


@asynccontextmanager
async def proxy(folder: Path, name: str = "proxy") -> AsyncIterator[ProxiesClient]:
    client = ProxiesClient(folder / "proxies.sock", folder / name)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(client.run())
        try:
            yield client
        finally:
            running.cancel()


def run(work: Callable[[Path], Awaitable[None]], folder: Path) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await work(folder)

    asyncio.run(bounded())


async def states(folder: Path) -> None:
    side = Side(folder / "proxies.sock")
    side.server.publish(state(1))
    async with listening(side), proxy(folder) as one, proxy(folder, "other") as other:
        heard, also = one.changes(), other.changes()
        assert await anext(heard) == await anext(also) == state(1)
        for revision in range(2, 6):
            side.server.publish(state(revision))
        await eventually(lambda: one.latest == other.latest == state(5))
        assert await anext(heard) == state(5)  # the newest, not each one
        assert stat.S_IMODE((folder / "proxies.sock").stat().st_mode) == 0o600
    cached = ProxiesClient(folder / "nobody.sock", folder / "proxy")
    assert cached.latest == state(5)
    assert await anext(cached.changes()) == state(5)


def some_state(dice: random.Random, revision: int) -> NodeProxies:
    """Any; of few values, so that much stays the same from one to another."""
    ports = dice.sample(range(5), dice.randrange(5))
    return NodeProxies(
        revision=revision,
        node=dice.choice("ab"),
        endpoints=tuple(ProxyEndpoint(id=n, identity=n) for n in range(dice.randrange(3))),
        listeners=tuple(
            Listener(port=p, direction="egress", subject=1, kind="http", rules=dice.choice("xy"))
            for p in ports
        ),
        dns=tuple(DnsRule(subject=n, protocol=17, port=53) for n in range(dice.randrange(3))),
        names={n: (NameSelector(key=dice.choice("kl"), entry=""),) for n in dice.sample(range(4), 2)},
        sets={n: (dice.choice("kl"),) for n in dice.sample(range(6), 3)},
        dns_port=dice.choice((1, 2)),
        settings=dice.choice(({}, {"a": "b"})),
    )


def test_changes_make_the_one_of_the_other() -> None:
    dice = random.Random(5)
    known = some_state(dice, 0)
    for revision in range(1, 1000):
        after = some_state(dice, revision)
        told = from_server.decode(pack(changes(known, after))[4:])
        assert changed(known, told) == after
        known = changed(known, told)


def test_of_thousands_of_sets_the_new_one_is_told() -> None:
    before = state(1)
    before = replace(before, sets={n: (f"k{n}",) for n in range(10_000)})
    after = replace(before, revision=2, sets={**before.sets, 10_000: ("k",)})
    told = changes(before, after)
    assert told == NodeChanges(since=1, revision=2, sets={10_000: ("k",)})
    assert changed(before, told).names is before.names


async def missed(folder: Path) -> None:
    """Who does not know what is changed begins anew."""
    side = Side(folder / "proxies.sock")
    side.server.publish(state(1))
    async with listening(side), proxy(folder) as client:
        await eventually(lambda: client.latest == state(1))
        client.latest = state(0)
        side.server.publish(replace(state(2), node="b"))
        await eventually(lambda: client.latest == replace(state(2), node="b"))


async def numbers(folder: Path) -> None:
    side = Side(folder / "proxies.sock")
    async with listening(side), proxy(folder) as client:
        side.in_force.clear()
        first = asyncio.ensure_future(client.ask(["b", "a", "a"]))
        again = asyncio.ensure_future(client.ask(["a", "b"]))
        with pytest.raises(AskRefused, match="nobody names it"):  # one that waits holds up no other
            await client.ask(["unknown"])
        assert not first.done()
        side.in_force.set()
        assert await first == await again == 1
        assert side.numbers == {("a", "b"): 1}


async def outage(folder: Path) -> None:
    async with proxy(folder) as client:
        waiting = asyncio.ensure_future(client.ask(["a"]))
        client.serving([10101, 10100], {10102: "port taken"})
        await asyncio.sleep(0)
        assert not client.connected
        for _ in range(2):  # a second datapath service in place of the first
            side = Side(folder / "proxies.sock")
            side.server.publish(state(1))
            async with listening(side):
                await eventually(lambda side=side: side.told)  # type: ignore[misc]
                assert side.told == [Serving(ports=(10100, 10101), failed={10102: "port taken"})]
                assert await waiting == 1
                side.in_force.clear()
                waiting = asyncio.ensure_future(client.ask(["b"]))
                await eventually(lambda: client.latest == state(1))
            side.server.close()
            await eventually(lambda: not client.connected)
        waiting.cancel()


async def garbled(folder: Path) -> None:
    side = Side(folder / "proxies.sock")
    side.server.publish(state(1))
    async with listening(side):
        for junk in (b"\xff\xff\xff\xff", b"\x00\x00\x00\x01\xc1", b"\x00\x00\x00\x01\x80", b"\x00"):
            reader, writer = await asyncio.open_unix_connection(str(folder / "proxies.sock"))
            writer.write(junk)
            writer.write_eof()
            size = int.from_bytes(await reader.readexactly(4), "big")
            told = msgpack.unpackb(await reader.readexactly(size), strict_map_key=False)
            assert told["type"] == "NodeProxies"
            assert await reader.read() == b""
            writer.close()
        async with proxy(folder) as client:
            await eventually(lambda: client.latest == state(1))


@pytest.mark.parametrize("work", [states, missed, numbers, outage, garbled], ids=lambda work: work.__name__)
def test_socket(work: Callable[[Path], Awaitable[None]], tmp_path: Path) -> None:
    run(work, tmp_path)


def test_unreadable_file_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "proxy").write_bytes(b"\xc1")
    assert ProxiesClient(tmp_path / "proxies.sock", tmp_path / "proxy").latest is None
