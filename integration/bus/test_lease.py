"""One holder at a time, by nobody's clock but one's own."""

from __future__ import annotations

import asyncio

from cirri.kv import Bus, Held, verbs
from cirri.model import LEASES
from cirri.testing.buses import with_two
from cirri.testing.natsserver import NatsServer
from cirri.testing.wait import eventually

TTL_S = 0.6


def lease(bus: Bus, holder: str) -> Held:
    return bus.lease("policy", "leader", holder, TTL_S)


async def die(held: Held) -> None:
    """End without a word, as after kill -9."""
    assert held._task is not None
    held._task.cancel()
    await asyncio.gather(held._task, return_exceptions=True)


def test_other_waits_for_the_end_and_follows_at_once(nats: NatsServer) -> None:
    async def test(bus: Bus, other: Bus) -> None:
        loop = asyncio.get_running_loop()
        waiting = lease(other, "b")
        async with lease(bus, "a") as held:
            assert held.held()
            second = asyncio.ensure_future(waiting.__aenter__())
            await eventually(lambda: waiting.holder_seen == "a")
            await asyncio.sleep(2.5 * TTL_S)  # renewals keep it
            assert not second.done()
            assert held.held()
            assert not held.lost.is_set()
        ended = loop.time()
        await second
        assert loop.time() - ended < TTL_S / 2
        assert waiting.held()
        assert not held.held()
        await waiting.__aexit__()

    with_two(nats, test)


def test_silent_holder_is_followed_after_the_ttl_and_knows(nats: NatsServer) -> None:
    async def test(bus: Bus, other: Bus) -> None:
        loop = asyncio.get_running_loop()
        first, second = lease(bus, "a"), lease(other, "b")
        await first.__aenter__()
        await die(first)
        silent = loop.time()
        await second.__aenter__()
        took = loop.time() - silent
        assert 0.6 * TTL_S < took < 3 * TTL_S
        assert not first.held()  # by its own clock, before it hears of anybody
        await second.__aexit__()

    with_two(nats, test)


def test_same_holder_has_it_again_at_once(nats: NatsServer) -> None:
    async def test(bus: Bus, other: Bus) -> None:
        loop = asyncio.get_running_loop()
        first, again = lease(bus, "a"), lease(other, "a")
        await first.__aenter__()
        began = loop.time()
        await again.__aenter__()
        assert loop.time() - began < TTL_S / 2
        await eventually(first.lost.is_set)  # two processes of one name: the older one yields
        assert again.held()
        assert not again.lost.is_set()
        await first.__aexit__()
        assert again.held()
        await again.__aexit__()

    with_two(nats, test)


def test_one_of_many_gets_it(nats: NatsServer) -> None:
    async def test(bus: Bus, other: Bus) -> None:
        having: list[str] = []
        most = 0

        async def contend(who: Bus, name: str) -> None:
            nonlocal most
            async with lease(who, name):
                having.append(name)
                most = max(most, len(having))
                await asyncio.sleep(0.02)
                having.remove(name)

        async with asyncio.timeout(10):
            await asyncio.gather(*(contend(bus if n % 2 else other, f"h{n}") for n in range(8)))
        assert most == 1

    with_two(nats, test)


def test_outage_and_emptied_store_keep_the_holder(nats: NatsServer) -> None:
    async def test(bus: Bus, other: Bus) -> None:
        held, waiting = lease(bus, "a"), lease(other, "b")
        await held.__aenter__()
        second = asyncio.ensure_future(waiting.__aenter__())
        await eventually(lambda: waiting.holder_seen == "a")
        nats.restart(keep=False)
        await eventually(lambda: bus.link.generation == 2)
        await asyncio.sleep(2 * TTL_S)
        await eventually(held.held)
        assert not held.lost.is_set()
        assert not second.done()
        nats.kill()
        await eventually(lambda: not held.held())  # nobody may write that has not heard for a ttl
        assert not held.lost.is_set()
        nats.start()
        await eventually(held.held)
        assert not second.done()
        await held.__aexit__()
        await second
        await waiting.__aexit__()

    with_two(nats, test)


def test_garbage_in_the_lease_is_no_holder(nats: NatsServer) -> None:
    async def test(bus: Bus, _: Bus) -> None:
        await bus.ensure(LEASES)
        await verbs.write(bus.link, LEASES, "policy.leader", b"\xc1garbage")
        async with lease(bus, "a") as held:
            assert held.held()

    with_two(nats, test)
