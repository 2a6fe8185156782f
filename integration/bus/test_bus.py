"""Single values, compare-and-set, requests: against a real server."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import msgpack  # type: ignore[import-untyped]  # it has no types
import pytest

from cirri.kv import (
    BucketMissing,
    Bus,
    BusTimeout,
    BusUnavailable,
    KeyInvalid,
    KeyTaken,
    ServiceAway,
    StaleRevision,
)
from cirri.kv.link import Message
from cirri.kv.wire import MAX_VALUE_BYTES, encode, subject_of
from cirri.model import ENDPOINTS, IDENTITIES, RESOURCES, Bucket, Identity, Resource, resource_key
from cirri.testing.buses import endpoint, identity, with_two
from cirri.testing.natsserver import NatsServer, free_port
from cirri.testing.wait import eventually


def test_values(nats: NatsServer) -> None:
    async def test(bus: Bus, other: Bus) -> None:
        with pytest.raises(BucketMissing):
            await bus.get(IDENTITIES, "1")
        with pytest.raises(BucketMissing):
            await bus.put(IDENTITIES, identity(1))
        assert not await bus.exists(IDENTITIES)
        await asyncio.gather(bus.ensure(IDENTITIES), other.ensure(IDENTITIES))
        assert await bus.exists(IDENTITIES)
        assert await bus.get(IDENTITIES, "1") is None
        first = await bus.put(IDENTITIES, identity(1, "a=b"))
        entry = await other.get(IDENTITIES, "1")
        assert entry == ("1", identity(1, "a=b"), first)
        second = await other.put(IDENTITIES, identity(1, "c=d"), revision=first)
        with pytest.raises(StaleRevision) as stale:
            await bus.put(IDENTITIES, identity(1), revision=first)
        assert (stale.value.key, stale.value.revision) == ("1", first)
        with pytest.raises(StaleRevision):
            await bus.delete(IDENTITIES, "1", revision=first)
        with pytest.raises(KeyTaken) as taken:
            await bus.create(IDENTITIES, identity(1))
        assert taken.value.revision == second
        await bus.delete(IDENTITIES, "1", revision=second)
        assert await other.get(IDENTITIES, "1") is None
        assert await bus.create(IDENTITIES, identity(1, "again")) > second
        for key in ("fd00::1", "", "a..b", "_complete"):
            with pytest.raises(KeyInvalid):
                await bus.get(IDENTITIES, key)

    with_two(nats, test)


def test_asking_for_a_bucket_that_is_being_made_does_not_end_the_server(nats: NatsServer) -> None:
    """nats-server 2.9.10 dies of a message asked for while the store of its stream is being opened."""

    async def test(bus: Bus, other: Bus) -> None:
        generation = other.link.generation

        async def ask(bucket: Bucket[Identity]) -> None:
            while True:
                try:
                    assert await other.get(bucket, "1") is None
                except BucketMissing:
                    continue
                return

        for number in range(100):
            bucket = replace(IDENTITIES, name=f"identities{number}")
            asking = asyncio.gather(*(ask(bucket) for _ in range(8)))
            async with bus.table(bucket) as table, asyncio.timeout(10.0):
                await bus.ensure(bucket)
                await asking
                await table.caught_up()
        assert other.link.generation == generation, "the connection was lost"

    with_two(nats, test)


def test_one_of_many_creators_wins(nats: NatsServer) -> None:
    async def test(bus: Bus, other: Bus) -> None:
        await bus.ensure(IDENTITIES)

        async def create(who: Bus, name: str) -> str | None:
            try:
                await who.create(IDENTITIES, identity(256, name))
            except KeyTaken:
                return None
            return name

        for deleted in (False, True):
            if deleted:
                await bus.delete(IDENTITIES, "256")
            names = await asyncio.gather(*(create(bus if n % 2 else other, f"name={n}") for n in range(40)))
            winners = [name for name in names if name]
            assert len(winners) == 1
            entry = await bus.get(IDENTITIES, "256")
            assert entry is not None
            assert entry.value.labels == tuple(winners)

    with_two(nats, test)


def test_no_update_is_lost_between_readers_that_compare(nats: NatsServer) -> None:
    async def test(bus: Bus, other: Bus) -> None:
        await bus.ensure(IDENTITIES)
        await bus.create(IDENTITIES, identity(1))

        async def add(who: Bus, label: str) -> None:
            while True:
                entry = await who.get(IDENTITIES, "1")
                assert entry is not None
                grown = identity(1, *sorted((*entry.value.labels, label)))
                try:
                    await who.put(IDENTITIES, grown, revision=entry.revision)
                except StaleRevision:
                    continue
                return

        await asyncio.gather(*(add(bus if n % 2 else other, f"n={n:02}") for n in range(16)))
        entry = await bus.get(IDENTITIES, "1")
        assert entry is not None
        assert entry.value.labels == tuple(f"n={n:02}" for n in range(16))

    with_two(nats, test)


def test_snapshots_by_pattern(nats: NatsServer) -> None:
    async def test(bus: Bus, other: Bus) -> None:
        await bus.ensure(RESOURCES)
        assert await bus.keys(RESOURCES) == []
        for kind, namespace, name, node in (
            ("Pod", "default", "a", "n1"),
            ("Pod", "default", "b", "n2"),
            ("Pod", "other.ns", "c", "n1"),
            ("Node", "", "n1", ""),
        ):
            await bus.put(RESOURCES, Resource(kind=kind, namespace=namespace, name=name, node=node))
        await bus.delete(RESOURCES, resource_key("Pod", "default", "b", "n2"))
        on_node = resource_key("Pod", "*", "*", "n1")
        assert await other.keys(RESOURCES, on_node) == ["Pod.default.a.n1", "Pod.other=2Ens.c.n1"]
        assert [e.value.name for e in await other.entries(RESOURCES, on_node)] == ["a", "c"]
        assert len(await other.keys(RESOURCES)) == 3
        with pytest.raises(BucketMissing):
            await bus.keys(ENDPOINTS)

    with_two(nats, test)


def test_largest_value_comes_back(nats: NatsServer) -> None:
    async def test(bus: Bus, other: Bus) -> None:
        await bus.ensure(RESOURCES)
        near = Resource(kind="ConfigMap", name="big", manifest={"x": "y" * 100_000})
        room = MAX_VALUE_BYTES - len(encode(RESOURCES, near)[1])
        value = Resource(kind="ConfigMap", name="big", manifest={"x": "y" * (100_000 + room)})
        assert len(encode(RESOURCES, value)[1]) == MAX_VALUE_BYTES
        revision = await bus.create(RESOURCES, value)
        await bus.put(RESOURCES, value, revision=revision)
        entry = await other.get(RESOURCES, resource_key("ConfigMap", "", "big", ""))
        assert entry is not None
        assert entry.value == value
        assert [e.value for e in await other.entries(RESOURCES)] == [value]

    with_two(nats, test)


def test_plain_messagepack_interoperates(nats: NatsServer) -> None:
    async def test(bus: Bus, other: Bus) -> None:
        await bus.ensure(ENDPOINTS)
        got: list[Message] = []
        await other.subscribe(subject_of("endpoints", ">"), got.append)
        await other.link.flush()
        await bus.put(ENDPOINTS, endpoint("n1", 7))
        await eventually(lambda: got)
        raw = msgpack.unpackb(got[0].data)
        assert (raw["node"], raw["id"], raw["labels"], raw["ingress_enforced"]) == ("n1", 7, [], False)
        raw |= {"id": 8, "labels": ["k8s:a=b"], "unknown": {"to": "us"}}
        await other.publish(subject_of("endpoints", "n1.8"), msgpack.packb(raw))
        await other.link.flush()
        entry = await bus.get(ENDPOINTS, "n1.8")
        assert entry is not None
        assert entry.value.labels == ("k8s:a=b",)

    with_two(nats, test)


def test_requests(nats: NatsServer) -> None:
    async def test(bus: Bus, other: Bus) -> None:
        async def echo(message: Message) -> None:
            await other.publish(message.reply, message.data[::-1])

        with pytest.raises(ServiceAway):
            await bus.request("cirri.test.echo", b"abc")
        subscription = await other.subscribe("cirri.test.echo", echo)
        await other.subscribe("cirri.test.silent", lambda _: None)
        await other.link.flush()
        answers = await asyncio.gather(*(bus.request("cirri.test.echo", b"%d" % n) for n in range(200)))
        assert answers == [(b"%d" % n)[::-1] for n in range(200)]
        with pytest.raises(BusTimeout):
            await bus.request("cirri.test.silent", timeout_s=0.05)
        nats.restart()
        await eventually(lambda: other.connected and other.link.generation == 2)
        await other.link.flush()
        assert await bus.request("cirri.test.echo", b"ab") == b"ba"
        await subscription.close()
        await other.link.flush()
        with pytest.raises(ServiceAway):
            await bus.request("cirri.test.echo", b"abc")

    with_two(nats, test)


def test_request_waits_for_the_server_but_not_for_ever(nats: NatsServer) -> None:
    async def test(bus: Bus, other: Bus) -> None:
        async def echo(message: Message) -> None:
            await other.publish(message.reply, message.data)

        await other.subscribe("cirri.test.echo", echo)
        await other.link.flush()
        nats.kill()
        await eventually(lambda: not bus.connected)
        with pytest.raises(BusTimeout):
            await bus.request("cirri.test.echo", timeout_s=0.1)
        with pytest.raises(BusUnavailable):
            await bus.publish("cirri.test.echo")
        asked = asyncio.ensure_future(bus.request("cirri.test.echo", b"x", timeout_s=5))
        await asyncio.sleep(0)
        nats.start()
        try:
            assert await asked == b"x"
        except ServiceAway:  # the asker was back before the one who answers
            await eventually(lambda: other.connected)
            await other.link.flush()
            assert await bus.request("cirri.test.echo", b"x") == b"x"

    with_two(nats, test)


def test_no_server() -> None:
    async def main() -> None:
        with pytest.raises(BusUnavailable) as caught:
            await Bus.connect(f"nats://127.0.0.1:{free_port()}", timeout_s=0.3)
        assert "Check that nats-server runs" in str(caught.value)

    asyncio.run(main())


def test_reconnects_within_its_back_off(nats: NatsServer) -> None:
    async def test(bus: Bus, other: Bus) -> None:
        loop = asyncio.get_running_loop()
        nats.kill()
        await eventually(lambda: not bus.connected)
        await asyncio.sleep(0.6)  # long enough for the pauses to have grown to their limit
        nats.start()
        began = loop.time()
        await eventually(lambda: bus.connected and other.connected)
        assert loop.time() - began < 0.6

    with_two(nats, test)
