"""A table holds the last good state through everything that can happen to server and store."""

from __future__ import annotations

import asyncio
import time

import msgpack  # type: ignore[import-untyped]  # it has no types
import pytest

from cirri.kv import BucketMissing, Bus, BusTimeout, Publisher, Table, stream, verbs
from cirri.kv.wire import Marker, encode_marker
from cirri.model import ENDPOINTS, IDENTITIES, RESOURCES, Endpoint, Identity, Resource, resource_key
from cirri.testing.buses import endpoint, identity, with_two
from cirri.testing.natsserver import NatsServer
from cirri.testing.wait import eventually


def quick(bus: Bus, pattern: str = ">") -> Table[Identity]:
    """A table that notices a dead consumer within half a second."""
    return Table(bus.link, IDENTITIES, pattern, heartbeat_s=0.2)


async def ready(table: Table[Identity] | Table[Endpoint] | Table[Resource]) -> None:
    async with asyncio.timeout(5):
        await table.ready.wait()


async def consumers(bus: Bus, bucket: str) -> int:
    return (await stream.info(bus.link, bucket)).state.consumer_count


def test_follows_and_tells(nats: NatsServer) -> None:
    async def test(writer: Bus, reader: Bus) -> None:
        publisher = writer.publisher(IDENTITIES)
        async with reader.table(IDENTITIES) as table:
            await asyncio.sleep(0.05)
            assert not table.ready.is_set()  # no bucket yet
            await publisher.put(identity(1, "a=b"))
            await eventually(lambda: len(table) == 1)
            assert not table.ready.is_set()  # the owner has not said that this is all
            last = await publisher.replace([identity(1, "a=b"), identity(2)])
            await ready(table)
            assert dict(table) == {"1": identity(1, "a=b"), "2": identity(2)}
            assert table.complete == {""}
            assert not table.stale
            changes = table.changes()
            assert await anext(changes) == {"1", "2"}
            revision = await publisher.put(identity(2, "x=y"))
            assert revision > last
            assert await anext(changes) == {"2"}
            assert (table["2"], table.revision, table.revision_of("2")) == (
                identity(2, "x=y"),
                revision,
                revision,
            )
            await publisher.put(identity(2, "x=y"))
            gone = await publisher.delete("1")
            assert await anext(changes) == {"1"}
            await table.caught_up()
            assert (dict(table), table.revision) == ({"2": identity(2, "x=y")}, gone)
            await changes.aclose()  # type: ignore[attr-defined]

    with_two(nats, test)


def test_changes_are_conflated_for_a_slow_reader(nats: NatsServer) -> None:
    async def test(writer: Bus, reader: Bus) -> None:
        publisher = writer.publisher(IDENTITIES)
        await publisher.replace([])
        async with reader.table(IDENTITIES) as table:
            changes = table.changes()
            assert await anext(changes) == frozenset()
            for number in range(300):
                await publisher.put(identity(number % 3, f"n={number}"))
            await table.caught_up()
            assert await anext(changes) == {"0", "1", "2"}
            assert table["2"] == identity(2, "n=299")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await anext(changes)

    with_two(nats, test)


def test_a_table_of_few_keys_among_many_has_caught_up_when_it_has_all_of_them(nats: NatsServer) -> None:
    """The store is asked only about what came since it was asked last."""

    async def test(writer: Bus, reader: Bus) -> None:
        publisher = writer.publisher(IDENTITIES)
        await publisher.replace([identity(number) for number in range(50)])
        async with reader.table(IDENTITIES, "7") as table:
            await ready(table)
            for number in range(100):
                if number % 10 == 0:
                    await publisher.put(identity(7, f"n={number}"))
                await publisher.put(identity(8, f"n={number}"))
                await table.caught_up()
                assert table["7"] == identity(7, f"n={number - number % 10}")
                end = (await stream.info(reader.link, IDENTITIES.name)).state.last_seq
                assert table._certain == end
            await publisher.delete("7")
            await table.caught_up()
            assert not table

    with_two(nats, test)


def test_put_wakes_a_reader_within_two_milliseconds(nats: NatsServer) -> None:
    async def test(writer: Bus, reader: Bus) -> None:
        publisher = writer.publisher(IDENTITIES)
        await publisher.replace([identity(n) for n in range(1000)])
        loop = asyncio.get_running_loop()
        async with reader.table(IDENTITIES) as table:
            changes = table.changes()
            await anext(changes)
            took = []
            for number in range(100):
                began = loop.time()
                await publisher.put(identity(5, f"n={number}"))
                assert await anext(changes) == {"5"}
                took.append(loop.time() - began)
        # The median: the machine may be busy with something else now and then.
        assert sorted(took)[50] < 0.002

    with_two(nats, test)


def test_snapshots_under_load_are_never_empty_and_leave_no_consumer(nats: NatsServer) -> None:
    async def test(writer: Bus, reader: Bus) -> None:
        publisher = writer.publisher(IDENTITIES)
        await publisher.replace([identity(n) for n in range(1000)])
        stop = asyncio.Event()

        async def load() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                await asyncio.gather(*(publisher.put(identity(n, f"n={number}")) for n in range(0, 1000, 20)))

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(load())
            for _ in range(40):
                assert len(await reader.keys(IDENTITIES)) == 1000
            for _ in range(40):
                async with reader.table(IDENTITIES) as table:
                    assert len(await anext(table.changes())) == 1000
                    assert len(table) == 1000
            one = "17"
            for _ in range(100):
                assert await reader.keys(IDENTITIES, one) == [one]
            stop.set()
        assert await consumers(reader, "identities") == 0

    with_two(nats, test)


@pytest.mark.parametrize("keep", [True, False], ids=["store kept", "store emptied"])
def test_server_killed(nats: NatsServer, keep: bool) -> None:
    async def test(writer: Bus, reader: Bus) -> None:
        publisher = writer.publisher(IDENTITIES)
        await publisher.replace([identity(n) for n in range(500)])
        async with reader.table(IDENTITIES) as table:
            changes = table.changes()
            await anext(changes)
            seen = {"least": 500}

            async def watch() -> None:
                while True:
                    seen["least"] = min(seen["least"], len(table))
                    await asyncio.sleep(0)

            watching = asyncio.ensure_future(watch())
            nats.kill()
            await eventually(lambda: table.stale)
            # Wanted while nobody answers:
            away = [
                asyncio.ensure_future(publisher.put(identity(3, "new=1"))),
                asyncio.ensure_future(publisher.put(identity(1000))),
                asyncio.ensure_future(publisher.delete("4")),
            ]
            if not keep:
                nats.empty()
            nats.start()
            await asyncio.gather(*away)
            await eventually(lambda: not table.stale)
            await table.caught_up()
            watching.cancel()
            assert dict(table) == dict(publisher.stored.items())
            assert table["3"] == identity(3, "new=1")
            assert seen["least"] >= 499
            assert await anext(changes) == {"3", "4", "1000"}
            assert publisher.rebuilds == (0 if keep else 1)
            assert table.revision_of("1000") > 501  # revisions never go back

    with_two(nats, test)


def test_deletion_missed_in_an_emptied_store_waits_for_the_marker(nats: NatsServer) -> None:
    async def test(writer: Bus, reader: Bus) -> None:
        publisher = writer.publisher(IDENTITIES)
        await publisher.replace([identity(n) for n in range(10)])
        async with reader.table(IDENTITIES) as table:
            await ready(table)
            await publisher.close()
            nats.restart(keep=False)
            # By hand, what an owner does step by step.
            await eventually(lambda: writer.link.generation == reader.link.generation == 2)
            await writer.ensure(IDENTITIES)
            await eventually(lambda: not table._fold._snapshot and table._current(reader.link.generation))
            assert len(table) == 10
            assert table.stale
            for number in range(5):
                await writer.put(IDENTITIES, identity(number, "new=1"))
            await table.caught_up()
            assert (len(table), table["0"]) == (10, identity(0, "new=1"))
            marker = encode_marker(complete=True, era=1 << 50)
            await verbs.write(writer.link, IDENTITIES, "_complete", marker)
            await eventually(lambda: len(table) == 5)
            assert not table.stale

    with_two(nats, test)


def test_store_restored_to_the_past(nats: NatsServer) -> None:
    """Acknowledged writes are lost: the table keeps what it has seen, the owner writes it again."""

    async def test(writer: Bus, reader: Bus) -> None:
        publisher = writer.publisher(IDENTITIES)
        await publisher.replace([identity(n) for n in range(10)])
        nats.stop()
        nats.save("past")
        nats.start()
        await publisher.put(identity(3, "new=1"))
        await publisher.put(identity(11))
        await publisher.delete("4")
        wanted = dict(publisher.stored)
        async with reader.table(IDENTITIES) as table:
            await ready(table)
            assert dict(table) == wanted
            changes = table.changes()
            await anext(changes)
            nats.kill()
            nats.restore("past")
            nats.start()
            await eventually(lambda: publisher.rebuilds == 1 and not publisher.pending)
            await eventually(lambda: not table.stale)
            await table.caught_up()
            assert dict(table) == wanted == dict(publisher.stored)
            assert {e.key for e in await reader.entries(IDENTITIES)} == wanted.keys()
            with pytest.raises(TimeoutError):  # nobody saw anything of it
                async with asyncio.timeout(0.05):
                    await anext(changes)

    with_two(nats, test)


def test_consumer_removed_by_hand(nats: NatsServer) -> None:
    async def test(writer: Bus, reader: Bus) -> None:
        publisher = writer.publisher(IDENTITIES)
        await publisher.replace([identity(1)])
        table = quick(reader)
        async with table:
            await ready(table)
            assert table._feed is not None
            await stream.drop_consumer(writer.link, "identities", table._feed.name)
            await publisher.put(identity(2))
            await eventually(lambda: "2" in table)
            assert table.resyncs >= 1
            assert await consumers(writer, "identities") == 1
        assert await consumers(writer, "identities") == 0

    with_two(nats, test)


def test_stream_removed_by_hand(nats: NatsServer) -> None:
    async def test(writer: Bus, reader: Bus) -> None:
        publisher = writer.publisher(IDENTITIES)
        await publisher.replace([identity(n) for n in range(20)])
        table = quick(reader)
        async with table:
            await ready(table)
            await writer.link.ask("$JS.API.STREAM.DELETE.KV_identities", timeout_s=2)
            await publisher.put(identity(100))  # finds that the bucket is gone, and rebuilds it
            await eventually(lambda: "100" in table)
            assert len(table) == 21
            await eventually(lambda: not table.stale)

    with_two(nats, test)


def test_server_that_hangs_is_noticed(nats: NatsServer) -> None:
    async def test(writer: Bus, reader: Bus) -> None:
        await writer.publisher(IDENTITIES).replace([identity(1)])
        table = quick(reader)
        async with table:
            await ready(table)
            nats.pause()
            try:
                await eventually(lambda: table.stale)
                assert dict(table) == {"1": identity(1)}
                with pytest.raises(BusTimeout):
                    await table.caught_up(0.1)
            finally:
                nats.resume()
            await eventually(lambda: not table.stale)
            await table.caught_up()

    with_two(nats, test)


GARBAGE = {
    "empty": b"",
    "text": b"hello",
    "cut short": msgpack.packb({"id": 1, "labels": ["a"]})[:-2],
    "not a map": msgpack.packb([1]),
    "wrong type": msgpack.packb({"id": "x", "labels": []}),
    "field missing": msgpack.packb({"id": 1}),
    "other key's": msgpack.packb({"id": 2, "labels": []}),
    "four billion items": b"\xdd\xff\xff\xff\xff",
    "deep": b"\x91" * 50_000,
    "binary": bytes(range(256)),
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_leaves_the_last_good_value(nats: NatsServer, data: bytes) -> None:
    async def test(writer: Bus, reader: Bus) -> None:
        said: list[str] = []
        publisher = writer.publisher(IDENTITIES)
        await publisher.replace([identity(1, "good=1"), identity(2)])
        table = Table(reader.link, IDENTITIES, log=lambda event, **_: said.append(event))
        async with table:
            changes = table.changes()
            await anext(changes)
            for _ in range(3):
                await verbs.write(writer.link, IDENTITIES, "1", data)
            await verbs.write(writer.link, IDENTITIES, "77", data)
            await table.caught_up()
            assert dict(table) == {"1": identity(1, "good=1"), "2": identity(2)}
            assert table.bad_values == 4
            assert table.bad.keys() == {"1", "77"}
            assert said.count("value cannot be read") == 2  # once per key
            assert [e.key for e in await reader.entries(IDENTITIES)] == ["2"]
            assert await reader.get(IDENTITIES, "1") is None
            await writer.put(IDENTITIES, identity(1, "good=2"))
            assert await anext(changes) == {"1"}
            assert table.bad.keys() == {"77"}

    with_two(nats, test)


def test_garbage_marker_completes_nothing(nats: NatsServer) -> None:
    async def test(writer: Bus, reader: Bus) -> None:
        await writer.ensure(IDENTITIES)
        async with reader.table(IDENTITIES) as table:
            for data in (b"", b"\xc1", msgpack.packb({"complete": "yes"}), msgpack.packb([True])):
                await verbs.write(writer.link, IDENTITIES, "_complete", data)
            await table.caught_up()
            assert not table.ready.is_set()
            data = msgpack.packb({"complete": True, "era": 3, "later": 1})
            await verbs.write(writer.link, IDENTITIES, "_complete", data)
            await ready(table)
            assert len(table) == 0

    with_two(nats, test)


class TestPattern:
    """A pattern that does not cover the owner's marker knows of it all the same."""

    PODS = resource_key("Pod", "*", "*", "n1")

    @staticmethod
    def pod(name: str, node: str) -> Resource:
        return Resource(kind="Pod", namespace="default", name=name, node=node)

    def test_ready_with_the_marker_only(self, nats: NatsServer) -> None:
        async def test(writer: Bus, reader: Bus) -> None:
            publisher = writer.publisher(RESOURCES)
            async with reader.table(RESOURCES, self.PODS) as table:
                await publisher.put(self.pod("a", "n1"))
                await publisher.put(self.pod("b", "n2"))
                await eventually(lambda: len(table) == 1)
                assert not table.ready.is_set()
                await publisher.complete()
                await ready(table)
                await table.caught_up()
                assert [r.name for r in table.values()] == ["a"]
                revision = await publisher.put(self.pod("c", "n1"))
                await publisher.put(self.pod("d", "n2"))
                await table.caught_up()
                assert (len(table), table.revision) == (2, revision)

        with_two(nats, test)

    def test_none_of_the_pattern(self, nats: NatsServer) -> None:
        async def test(writer: Bus, reader: Bus) -> None:
            await writer.publisher(RESOURCES).replace([self.pod("b", "n2")])
            async with reader.table(RESOURCES, self.PODS) as table:
                assert await anext(table.changes()) == frozenset()
                await table.caught_up()

        with_two(nats, test)

    def test_emptied_store(self, nats: NatsServer) -> None:
        async def test(writer: Bus, reader: Bus) -> None:
            publisher = writer.publisher(RESOURCES)
            await publisher.replace([self.pod(n, "n1") for n in "abc"])
            async with reader.table(RESOURCES, self.PODS) as table:
                await ready(table)
                await publisher.close()
                nats.restart(keep=False)
                await eventually(lambda: writer.link.generation == reader.link.generation == 2)
                await writer.ensure(RESOURCES)
                await writer.put(RESOURCES, self.pod("a", "n1"))
                await table.caught_up()
                assert len(table) == 3
                second = writer.publisher(RESOURCES)
                await second.replace([self.pod("a", "n1"), self.pod("z", "n1")])
                await eventually(lambda: {r.name for r in table.values()} == {"a", "z"})

        with_two(nats, test)


def test_shards(nats: NatsServer) -> None:
    async def test(writer: Bus, reader: Bus) -> None:
        one, two = writer.publisher(ENDPOINTS, "n1"), reader.publisher(ENDPOINTS, "n2")
        async with reader.table(ENDPOINTS) as table, reader.table(ENDPOINTS, "n1.>") as mine:
            await asyncio.gather(
                one.replace([endpoint("n1", n) for n in range(5)]),
                two.replace([endpoint("n2", n) for n in range(5)]),
            )
            await ready(table)
            await ready(mine)
            await table.caught_up()
            assert (len(table), len(mine)) == (10, 5)
            assert table.complete == {"n1", "n2"}
            await two.close()
            nats.restart(keep=False)
            await eventually(lambda: one.rebuilds == 1 and not one.pending)
            await one.delete("n1.3")
            await eventually(lambda: len(mine) == 4 and len(table) == 9)
            assert sum(1 for key in table if key.startswith("n2.")) == 5  # its owner is not back
            assert table.stale
            assert not mine.stale

    with_two(nats, test)


def test_caught_up_needs_a_bucket(nats: NatsServer) -> None:
    async def test(_: Bus, reader: Bus) -> None:
        async with reader.table(IDENTITIES) as table:
            with pytest.raises(BucketMissing):
                await table.caught_up()

    with_two(nats, test)


def test_reader_that_does_not_read_costs_nobody(nats: NatsServer) -> None:
    """A reader whose process hangs is dropped by the server's flow control, others go on."""

    async def test(writer: Bus, reader: Bus) -> None:
        publisher: Publisher[Identity] = writer.publisher(IDENTITIES)
        await publisher.replace([])
        slow = quick(reader)
        async with slow, writer.table(IDENTITIES) as other:
            await ready(slow)
            loop = asyncio.get_running_loop()
            wide = tuple(f"label={n}" for n in range(200))

            def burn(_: Marker | None = None) -> None:
                until = loop.time() + 0.002
                while loop.time() < until:
                    pass

            take = slow._read

            def slowly(raw: object) -> object:
                burn()
                return take(raw)  # type: ignore[arg-type]

            slow._read = slowly  # type: ignore[method-assign, assignment]
            many = (identity(n % 400, f"{n}", *wide) for n in range(800))
            await asyncio.gather(*(publisher.put(one, timeout_s=60) for one in many))
            await other.caught_up(60)
            await slow.caught_up(60)
            assert dict(slow) == dict(other)

    with_two(nats, test)


def test_who_stood_still_himself_does_not_start_over(nats: NatsServer) -> None:
    """Long work, or a machine that is busy elsewhere, is no silence of the server."""

    async def test(writer: Bus, reader: Bus) -> None:
        publisher = writer.publisher(IDENTITIES)
        await publisher.replace([identity(1)])
        async with quick(reader) as table:
            await ready(table)
            time.sleep(0.8)  # noqa: ASYNC251 - the whole process stands still
            await asyncio.sleep(0.25)
            await publisher.put(identity(2))
            await eventually(lambda: len(table) == 2)
            assert table.resyncs == 0

    with_two(nats, test)
