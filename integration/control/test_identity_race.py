"""Two allocators at once on a real bus: one label set never gets two numbers."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from cirri.identity.allocator import Allocator
from cirri.identity.demand import Demand, LabelSet
from cirri.identity.keeper import FOUND_S, RELEASE_S, Keeper
from cirri.kv import Bus, Publisher
from cirri.labels import NODE_SPACE, SPACE, WORLD_SPACE, Space, probes, space_of
from cirri.model import IDENTITIES, Identity
from cirri.testing.natsserver import NatsServer

CROWDED = Space(low=range(256, 280), high=range(1000, 9000), low_probes=4, probes=40)
"""So few numbers that most sets find their first ones taken."""

SPACES = {
    SPACE: CROWDED,
    WORLD_SPACE: Space(low=range(20_000, 20_024), high=range(30_000, 38_000), low_probes=4, probes=40),
    NODE_SPACE: Space(low=range(40_000, 40_024), high=range(50_000, 58_000), low_probes=4, probes=40),
}


def crowded(labels: LabelSet) -> Space:
    """As few for every kind of identity."""
    return SPACES[space_of(labels)]


@pytest.fixture
def server() -> Iterator[NatsServer]:
    with NatsServer() as running:
        yield running


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Instance:
    """An identity service without its main loop, so that a test can decide who does what when."""

    def __init__(self, bus: Bus, keeper: Keeper) -> None:
        self.bus, self.keeper, self.refresh = bus, keeper, keeper.allocator.refresh

    @classmethod
    @asynccontextmanager
    async def run(
        cls, server: NatsServer, clock: Clock, space: Callable[[LabelSet], Space] = crowded
    ) -> AsyncIterator[Instance]:
        bus = await Bus.connect(server.url)
        try:
            publisher = bus.publisher(IDENTITIES)
            await publisher.start()
            await publisher.complete()
            async with bus.table(IDENTITIES) as table:
                await table.ready.wait()
                keeper = Keeper(bus, publisher, table, Demand(), now=clock, space=space)
                keeper.found(publisher.stored.values())
                yield cls(bus, keeper)
        finally:
            await bus.drain()

    def want(self, names: list[str]) -> None:
        """Exactly these sets are in use."""
        self.keeper.demand.use("all", tuple((labels_of(name), 0) for name in names))

    def in_force(self, user: str, labels: LabelSet, number: int = 0) -> None:
        """*user* has *labels*, and *number* if that is not 0."""
        self.keeper.demand.use(user, ((labels, number),))


def labels_of(name: str) -> LabelSet:
    """Of an endpoint, a prefix or a node, as the first letter says."""
    match name[0]:
        case "p":
            return f"cidr:10.0.{name[1:]}.0/24", "reserved:world-ipv4"
        case "n":
            return f"k8s:name={name}", "reserved:host"
    return (f"k8s:app={name}",)


async def numbers(bus: Bus) -> dict[tuple[str, ...], list[int]]:
    found: dict[tuple[str, ...], list[int]] = {}
    for entry in await bus.entries(IDENTITIES):
        if entry.value.labels:
            found.setdefault(entry.value.labels, []).append(entry.value.id)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_racing_for_the_same_sets(server: NatsServer, seed: int) -> None:
    async def scenario() -> None:
        order = random.Random(seed)
        clock = Clock()
        async with Instance.run(server, clock) as one, Instance.run(server, clock) as other:
            names = [f"{kind}{n}" for kind in "apn" for n in range(40)]
            for each in (one, other):
                order.shuffle(names)
                each.want(names)
            await asyncio.gather(one.keeper.allocate(), other.keeper.allocate())
            stored = await numbers(one.bus)
            assert len(stored) == 120
            assert {labels: len(found) for labels, found in stored.items() if len(found) > 1} == {}
            for labels, (number,) in stored.items():
                assert one.keeper.book.number(labels) == other.keeper.book.number(labels) == number

    asyncio.run(scenario())


@pytest.mark.parametrize("seed", range(4))
def test_racing_while_sets_come_and_go(server: NatsServer, seed: int) -> None:
    async def scenario() -> None:
        order = random.Random(seed)
        clock = Clock()
        async with Instance.run(server, clock) as one, Instance.run(server, clock) as other:
            for _ in range(12):
                names = [f"{kind}{n}" for kind in "apn" for n in range(40) if order.random() < 0.4]
                one.want(names)
                other.want(list(reversed(names)))
                clock.now += order.choice([0.5, RELEASE_S])
                await asyncio.gather(
                    one.keeper.allocate(),
                    other.keeper.release(settled=True),
                    other.keeper.allocate(),
                    one.refresh(),
                )
                stored = await numbers(one.bus)
                assert {labels: found for labels, found in stored.items() if len(found) > 1} == {}
                # Each decided from what it knew; once it knows what the other did, nobody lacks a number.
                for each in (one, other):
                    await each.refresh()
                    await each.keeper.allocate()
                stored = await numbers(one.bus)
                assert {labels: found for labels, found in stored.items() if len(found) > 1} == {}
                assert set(map(labels_of, names)) <= stored.keys()
            one.want([])
            other.want([])
            for _ in range(4):
                for each in (one, other):
                    await each.refresh()
                    await each.keeper.release(settled=True)
                clock.now += FOUND_S
            assert await one.bus.keys(IDENTITIES) == [], "everything is free again, retired numbers too"

    asyncio.run(scenario())


def test_a_number_another_set_passed_is_retired_until_that_one_is_gone(server: NatsServer) -> None:
    async def scenario() -> None:
        clock = Clock()
        tiny = Space(low=range(300, 301), high=range(1000, 1001), low_probes=1, probes=40)
        async with Instance.run(server, clock, lambda _: tiny) as one:
            one.want(["a"])
            await one.keeper.allocate()
            one.want(["a", "b"])
            await one.keeper.allocate()
            assert await numbers(one.bus) == {("k8s:app=a",): [300], ("k8s:app=b",): [1000]}
            one.want(["a", "b", "c"])
            await one.keeper.allocate()
            assert list(one.keeper.errors) == [("k8s:app=c",)]
            assert one.keeper.errors[("k8s:app=c",)].startswith(
                "no identity for k8s:app=c: its 2 numbers are"
            )
            one.want(["b"])
            await settle(one, clock)
            retired = await one.bus.get(IDENTITIES, "300")
            assert retired is not None
            assert retired.value.labels == ()
            assert await numbers(one.bus) == {("k8s:app=b",): [1000]}
            one.want([])
            await settle(one, clock)
            await settle(one, clock)
            assert await one.bus.keys(IDENTITIES) == []

    asyncio.run(scenario())


class Interrupted:
    """The publisher of an instance that is overtaken just before it writes its second choice."""

    def __init__(self, publisher: Publisher[Identity], second: int, meanwhile: Callable[[], Any]) -> None:
        self._publisher, self._second, self._meanwhile = publisher, second, meanwhile

    async def create(self, identity: Identity) -> int:
        if identity.id == self._second:
            await self._meanwhile()
        return await self._publisher.create(identity)


def test_a_first_choice_that_becomes_free_at_the_last_moment_is_closed(server: NatsServer) -> None:
    async def scenario() -> None:
        async with (
            Instance.run(server, Clock()) as one,
            Instance.run(server, Clock()) as other,
        ):
            wanted = ("k8s:app=a",)
            first, second = list(probes(wanted, CROWDED))[:2]
            await other.bus.create(IDENTITIES, Identity(id=first, labels=("k8s:app=foreign",)))
            await one.refresh()
            publisher = one.bus.publishers[0]
            meanwhile = partial(other.bus.delete, IDENTITIES, str(first))
            book, demand = one.keeper.book, one.keeper.demand
            late: Any = Interrupted(publisher, second, meanwhile)
            stored = one.bus.tables[0]
            assert await Allocator(one.bus, late, stored, book, demand).allocate(wanted) == second
            # The other one has not heard of it yet, and looks for a number itself.
            other.want(["a"])
            await other.keeper.allocate()
            assert await numbers(one.bus) == {wanted: [second]}

    asyncio.run(scenario())


async def settle(one: Instance, clock: Clock) -> None:
    await one.keeper.release(settled=True)
    clock.now += RELEASE_S
    await one.keeper.release(settled=True)


def test_a_set_that_comes_back_in_time_keeps_its_number(server: NatsServer) -> None:
    async def scenario() -> None:
        clock = Clock()
        async with Instance.run(server, clock) as one:
            one.want(["a"])
            await one.keeper.allocate()
            before = await numbers(one.bus)
            one.want([])
            await one.keeper.release(settled=True)
            clock.now += RELEASE_S / 2
            one.want(["a"])
            await one.keeper.release(settled=True)
            clock.now += RELEASE_S
            one.want([])
            await one.keeper.release(settled=True)
            assert await numbers(one.bus) == before, "its time begins anew"
            clock.now += RELEASE_S
            await one.keeper.release(settled=False)
            assert await numbers(one.bus) == before, "while a node may not have reported, nothing is unused"
            await one.keeper.release(settled=True)
            assert await numbers(one.bus) == {}

    asyncio.run(scenario())


def test_a_number_found_at_the_start_may_be_that_of_a_node_that_has_not_spoken(server: NatsServer) -> None:
    async def scenario() -> None:
        clock = Clock()
        async with Instance.run(server, clock) as one:
            one.want(["a", "b"])
            await one.keeper.allocate()
        async with Instance.run(server, clock) as one:
            one.want(["b"])
            await one.keeper.release(settled=True, whole=False)
            one.want([])
            await one.keeper.release(settled=True, whole=False)
            clock.now += FOUND_S
            await one.keeper.release(settled=True, whole=False)
            assert await numbers(one.bus) == {("k8s:app=a",): [one.keeper.book.number(("k8s:app=a",))]}
            await one.keeper.release(settled=True, whole=True)
            assert await numbers(one.bus) == {}

    asyncio.run(scenario())


def test_numbers_in_force_survive_the_loss_of_the_bucket(server: NatsServer) -> None:
    async def scenario() -> None:
        async with Instance.run(server, Clock()) as one:
            labels = ("k8s:app=a",)
            order = list(probes(labels, CROWDED))
            foreign = next(n for n in CROWDED.low if n not in order)
            # Somebody had the first two numbers when this set got its third.
            one.in_force("one", labels, order[2])
            one.in_force("two", ("k8s:app=b",), foreign)
            await one.keeper.allocate()
            stored = await numbers(one.bus)
            assert stored[labels] == [order[2]]
            known = Counter(entry.value.labels == () for entry in await one.bus.entries(IDENTITIES))
            assert known[True] >= 2, "the two before it are closed"

    asyncio.run(scenario())


def test_a_number_in_force_is_not_given_to_another_set(server: NatsServer) -> None:
    async def scenario() -> None:
        async with Instance.run(server, Clock()) as one:
            wanted = ("k8s:app=a",)
            first = next(iter(probes(wanted, CROWDED)))
            one.in_force("one", ("k8s:app=other",), first)
            one.in_force("two", wanted)
            await one.keeper.allocate()
            assert first not in (await numbers(one.bus))[wanted]

    asyncio.run(scenario())
