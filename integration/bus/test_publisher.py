"""A publisher keeps the store equal to what it wants, whenever there is a store."""

from __future__ import annotations

import asyncio

import pytest

from cirri.kv import Bus, BusTimeout, KeyTaken, NotOwner, Publisher, stream, verbs
from cirri.kv import writer as writer_module
from cirri.kv.link import Link
from cirri.kv.wire import Raw
from cirri.model import ENDPOINTS, IDENTITIES, NODES, Endpoint, Identity, NodeStatus
from cirri.testing.buses import endpoint, identity, with_two
from cirri.testing.natsserver import NatsServer
from cirri.testing.wait import eventually


async def stored(bus: Bus) -> dict[str, Identity]:
    return {entry.key: entry.value for entry in await bus.entries(IDENTITIES)}


def test_fewest_writes(nats: NatsServer) -> None:
    async def test(bus: Bus, other: Bus) -> None:
        publisher = bus.publisher(IDENTITIES)
        await publisher.start()
        assert dict(publisher.stored) == {}
        first = await publisher.put(identity(1))
        assert await publisher.put(identity(1)) == first
        assert publisher.writes == 1
        await publisher.replace([identity(1), identity(2), identity(3)])
        assert publisher.writes == 4  # two values and the marker
        last = await publisher.replace([identity(1), identity(2, "x=y")])
        assert publisher.writes == 6
        assert last == publisher.revision
        assert await publisher.replace([identity(1), identity(2, "x=y")]) == last
        assert publisher.writes == 6
        assert await publisher.delete("9") == 0
        assert await publisher.delete("1") > last
        assert publisher.writes == 7
        assert await stored(other) == {"2": identity(2, "x=y")} == dict(publisher.stored)

    with_two(nats, test)


def test_successor_finds_what_is_stored(nats: NatsServer) -> None:
    async def test(bus: Bus, other: Bus) -> None:
        publisher = bus.publisher(IDENTITIES)
        await publisher.replace([identity(1), identity(2)])
        await publisher.close()
        successor = other.publisher(IDENTITIES)
        early = asyncio.ensure_future(successor.put(identity(3)))
        await successor.start()
        await early
        assert successor.stored.keys() >= {"1", "2"}
        await successor.put(identity(1))
        assert successor.writes == 1
        await successor.replace([identity(2), identity(3)])
        assert await stored(other) == {"2": identity(2), "3": identity(3)}

    with_two(nats, test)


def test_writes_are_pipelined(nats: NatsServer) -> None:
    async def test(bus: Bus, _: Bus) -> None:
        publisher = bus.publisher(IDENTITIES)
        await publisher.start()
        loop = asyncio.get_running_loop()
        began = loop.time()
        revisions = await asyncio.gather(*(publisher.put(identity(n)) for n in range(2000)))
        took = loop.time() - began
        assert len(set(revisions)) == 2000
        assert took < 2.0

    with_two(nats, test)


def test_newest_of_many_puts_of_a_key_wins(nats: NatsServer) -> None:
    async def test(bus: Bus, other: Bus) -> None:
        publisher = bus.publisher(IDENTITIES)
        await publisher.start()
        await asyncio.gather(*(publisher.put(identity(1, f"n={n}")) for n in range(500)))
        assert await stored(other) == {"1": identity(1, "n=499")}
        assert publisher.writes < 500
        await asyncio.gather(publisher.delete("1"), publisher.put(identity(1)), publisher.delete("1"))
        assert await stored(other) == {}

    with_two(nats, test)


def test_a_posted_value_is_stored_some_time_over_a_loss_of_the_bus(nats: NatsServer) -> None:
    async def test(bus: Bus, other: Bus) -> None:
        publisher = bus.publisher(IDENTITIES)
        await publisher.start()
        for number in range(50):
            await publisher.post(identity(1, f"n={number}"))
        assert publisher.pending == 1, "nothing was waited for"
        await publisher.settled()
        assert await stored(other) == {"1": identity(1, "n=49")}
        assert publisher.writes <= 3, "of one key only the newest waits"
        nats.kill()
        await bus.link.disconnected.wait()
        await publisher.post(identity(1, "away"))
        nats.start()
        await eventually(lambda: not publisher.pending)
        assert await stored(other) == {"1": identity(1, "away")}

    with_two(nats, test)


def test_create_and_other_ways_of_the_owner(nats: NatsServer) -> None:
    async def test(bus: Bus, other: Bus) -> None:
        publisher = bus.publisher(IDENTITIES)
        await publisher.replace([])
        await publisher.create(identity(256, "a=b"))
        with pytest.raises(KeyTaken):
            await publisher.create(identity(256, "c=d"))
        await bus.create(IDENTITIES, identity(257))
        await bus.put(IDENTITIES, identity(258))
        await bus.delete(IDENTITIES, "258")
        nats.restart(keep=False)
        await eventually(lambda: publisher.rebuilds == 1 and not publisher.pending)
        assert await stored(other) == {"256": identity(256, "a=b"), "257": identity(257)}

    with_two(nats, test)


def test_wanted_while_away_is_written_at_the_reconnect(nats: NatsServer) -> None:
    async def test(bus: Bus, other: Bus) -> None:
        publisher = bus.publisher(IDENTITIES)
        await publisher.replace([identity(n) for n in range(5)])
        nats.kill()
        await eventually(lambda: not bus.connected)
        for attempt in (
            publisher.put(identity(7), timeout_s=0.02),
            publisher.put(identity(0, "x=y"), timeout_s=0.02),
            publisher.delete("1", timeout_s=0.02),
        ):
            with pytest.raises(BusTimeout) as caught:
                await attempt
            assert caught.value.kept
        assert publisher.pending == 3
        nats.start()
        await eventually(lambda: not publisher.pending)
        expected = {str(n): identity(n) for n in (2, 3, 4, 7)} | {"0": identity(0, "x=y")}
        assert await stored(other) == expected
        nats.kill()
        with pytest.raises(BusTimeout):
            await publisher.replace([identity(1), identity(2)], timeout_s=0.02)
        nats.empty()
        nats.start()
        await eventually(lambda: not publisher.pending)
        assert await stored(other) == {"1": identity(1), "2": identity(2)}

    with_two(nats, test)


def test_revisions_grow_over_an_emptied_store(nats: NatsServer) -> None:
    async def test(bus: Bus, _: Bus) -> None:
        publisher = bus.publisher(IDENTITIES)
        before = await publisher.replace([identity(n) for n in range(50)])
        nats.restart(keep=False)
        await eventually(lambda: publisher.rebuilds == 1 and not publisher.pending)
        assert publisher.revision > before + 50
        assert await publisher.put(identity(51)) > publisher.revision - 1

    with_two(nats, test)


def test_deletion_that_the_store_forgot_is_made_again(nats: NatsServer) -> None:
    async def test(bus: Bus, other: Bus) -> None:
        publisher = bus.publisher(IDENTITIES)
        await publisher.replace([identity(1), identity(2)])
        nats.stop()
        nats.save("past")
        nats.start()
        await publisher.delete("1")
        nats.kill()
        nats.restore("past")
        nats.start()
        await eventually(lambda: publisher.rebuilds == 1 and not publisher.pending)
        assert await stored(other) == {"2": identity(2)}

    with_two(nats, test)


def test_what_others_wrote_by_hand_is_put_right(nats: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "CHECK_S", 0.1)

    async def test(bus: Bus, other: Bus) -> None:
        publisher = bus.publisher(IDENTITIES)
        await publisher.replace([identity(1)])
        for key, data in (("1", b"garbage"), ("2", b"garbage"), ("_complete", b"garbage")):
            await verbs.write(other.link, IDENTITIES, key, data)
        await eventually(lambda: publisher.rebuilds >= 1 and not publisher.pending)
        assert await other.keys(IDENTITIES) == ["1"]
        assert await stored(other) == {"1": identity(1)}
        async with other.table(IDENTITIES) as table:
            await eventually(table.ready.is_set)

    with_two(nats, test)


def test_shards_make_their_bucket_at_once(nats: NatsServer) -> None:
    async def test(bus: Bus, other: Bus) -> None:
        publishers = [
            who.publisher(ENDPOINTS, f"n{n}") for n in range(8) for who in (bus, other)[n % 2 :][:1]
        ]
        await asyncio.gather(*(p.replace([endpoint(p.shard, 1)]) for p in publishers))
        assert await bus.keys(ENDPOINTS) == [f"n{n}.1" for n in range(8)]
        first: Publisher[Endpoint] = publishers[0]
        await first.replace([])
        assert len(await bus.keys(ENDPOINTS)) == 7
        with pytest.raises(NotOwner):
            await first.put(endpoint("n1", 5))
        with pytest.raises(NotOwner):
            await first.delete("n1.1")
        with pytest.raises(NotOwner):
            await first.replace([endpoint("n0", 1), endpoint("n1", 1)])
        nats.restart(keep=False)
        await eventually(lambda: all(p.revision and not p.pending for p in publishers))
        await eventually(lambda: all(p.rebuilds for p in publishers[1:]))
        assert len(await bus.keys(ENDPOINTS)) == 7

    with_two(nats, test)


def test_shard_whose_key_is_the_shard_alone(nats: NatsServer) -> None:
    async def test(bus: Bus, other: Bus) -> None:
        one, two = bus.publisher(NODES, "n1"), other.publisher(NODES, "n10")
        await one.replace([NodeStatus(node="n1", addresses_used=4)])
        await two.replace([NodeStatus(node="n10")])
        async with other.table(NODES) as table, other.table(NODES, "n1") as mine:
            await eventually(lambda: table.complete == {"n1", "n10"} and mine.ready.is_set())
            assert list(mine) == ["n1"]
        nats.restart(keep=False)
        await eventually(lambda: one.rebuilds and two.rebuilds and not one.pending and not two.pending)
        assert await bus.keys(NODES) == ["n1", "n10"]

    with_two(nats, test)


def test_a_look_at_the_store_does_not_disturb_writing(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(bus: Bus, other: Bus) -> None:
        publisher = bus.publisher(IDENTITIES)
        await publisher.replace([])
        last = stream.last

        async def overtaken(link: Link, bucket: str, pattern: str) -> Raw | None:
            """The last message; when the answer arrives there is a newer one."""
            found = await last(link, bucket, pattern)
            await publisher.put(identity(1, f"revision={found.revision if found else 0}"))
            return found

        monkeypatch.setattr(stream, "last", overtaken)
        assert await publisher._writer._intact()
        monkeypatch.setattr(stream, "last", last)
        assert await publisher._writer._intact()
        await verbs.write(bus.link, IDENTITIES, "9", b"\x80")
        assert not await publisher._writer._intact()

    with_two(nats, test)


def test_old_tombstones_are_removed(nats: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "TOMBSTONES", 10)

    async def test(bus: Bus, other: Bus) -> None:
        publisher = bus.publisher(IDENTITIES)
        await publisher.replace([identity(n) for n in range(60)])
        async with other.table(IDENTITIES) as table:
            await eventually(table.ready.is_set)
            await publisher.replace([identity(n) for n in range(3)])

            def few() -> bool:
                return len(publisher._writer.ledger.tombstones) <= 10

            await eventually(few)
            await publisher.put(identity(50, "back=1"))
            await table.caught_up()
            assert sorted(table) == ["0", "1", "2", "50"]
        about = await stream.info(bus.link, "identities")
        assert about.state.messages < 20
        assert sorted(await stored(other)) == ["0", "1", "2", "50"]

    with_two(nats, test)


def test_closed_gate_lets_nothing_through(nats: NatsServer) -> None:
    async def test(bus: Bus, other: Bus) -> None:
        leads = {"now": False}
        publisher = bus.publisher(IDENTITIES, gate=lambda: leads["now"])
        with pytest.raises(BusTimeout):
            await publisher.put(identity(1), timeout_s=0.1)
        assert not await other.exists(IDENTITIES)
        leads["now"] = True
        await eventually(lambda: not publisher.pending)
        leads["now"] = False
        with pytest.raises(BusTimeout):
            await publisher.put(identity(2), timeout_s=0.1)
        assert await other.keys(IDENTITIES) == ["1"]

    with_two(nats, test)


def test_bus_may_come_later() -> None:
    """Everything is made before there is a server."""
    server = NatsServer()

    async def main() -> None:
        bus = Bus(server.url, name="early")
        bus.begin()
        publisher, table = bus.publisher(IDENTITIES), bus.table(IDENTITIES)
        await table.start()
        wanted = asyncio.ensure_future(publisher.replace([identity(1)]))
        await asyncio.sleep(0.05)
        assert not publisher.started.is_set()
        server.start()
        await wanted
        await eventually(table.ready.is_set)
        assert dict(table) == {"1": identity(1)}
        await bus.drain()

    try:
        asyncio.run(main())
    finally:
        server.close()
