"""Facts on their way to a real map and a real journal, of two instances that know each other by these."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from cirri.dnsproxy.counts import Counts
from cirri.dnsproxy.duty import Duty
from cirri.dnsproxy.facts import Facts
from cirri.dnsproxy.journal import Journal
from cirri.dnsproxy.kernel import Kernel
from cirri.dnsproxy.opening import Openings
from cirri.layout import CT, IPCACHE, CtKey, CtValue, IpcacheKey, IpcacheValue
from cirri.layout.address import address16
from cirri.maps import open_pinned
from cirri.proxies import NameSelector, NodeProxies, ProxyEndpoint
from cirri.testing.names import BPFFS, make_maps

API, WWW = b"\3api\7example\3com\0", b"\3www\7example\3com\0"
POD, OTHER = address16("10.0.0.1"), address16("10.0.0.2")
X, Y = address16("192.0.2.1"), address16("192.0.2.2")
COM = NameSelector(key="com", entry='{"matchPattern":"*.example.com"}')
ONE = NameSelector(key="api", entry='{"matchName":"api.example.com"}')
TOLD = NodeProxies(
    revision=1,
    node="n",
    endpoints=(ProxyEndpoint(id=1, identity=100, pod="a"), ProxyEndpoint(id=2, identity=100, pod="b")),
    names={100: (COM, ONE)},
    sets={7: ("com",), 8: ("api", "com")},
)


@pytest.fixture
def pins() -> Iterator[Path]:
    folder = BPFFS / f"cirri-test-{uuid4().hex[:6]}"
    make_maps(folder)
    yield folder
    for pin in folder.iterdir():
        pin.unlink()
    folder.rmdir()


class Instance:
    """One of the two."""

    def __init__(self, folder: Path, pins: Path, numbers: dict[tuple[str, ...], int] | None = None) -> None:
        self.numbers = numbers or {}
        self.asked: list[tuple[str, ...]] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.kernel, self.counts, self.released = Kernel(pins), Counts(), list[str]()
        self.openings = Openings(
            facts=Facts(),
            journal=Journal(folder / "facts"),
            kernel=self.kernel,
            ask=self._ask,
            counts=self.counts,
            spawn=self._spawn,
        )
        for record in self.openings.journal.news():
            self.openings.facts.apply(record)

    async def _ask(self, keys: Iterable[str]) -> int:
        self.asked.append(tuple(sorted(keys)))
        return self.numbers[self.asked[-1]]

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.ensure_future(work))

    def answer(self, pod: int, name: bytes, *addresses: bytes, ttl: int = 30) -> None:
        pairs = tuple((address, ttl) for address in addresses)
        known = self.openings.facts.pods[pod]
        self.openings.submit(known, name, pairs, lambda: self.released.append(f"{pod}"))
        self.openings.flush()

    def duty(self, folder: Path) -> Duty:
        return Duty(folder / "duty", self.openings, self.kernel, {POD: 1, OTHER: 2})


def kernel(instance: Instance) -> dict[tuple[int, bytes], int]:
    return dict(asyncio.run(instance.kernel.read()))


@pytest.fixture
def pair(tmp_path: Path, pins: Path) -> tuple[Instance, Instance]:
    found = Instance(tmp_path, pins), Instance(tmp_path, pins)
    for each in found:
        each.openings.adopt(TOLD)
    return found


def test_an_answer_goes_when_the_kernel_knows(pair: tuple[Instance, Instance]) -> None:
    one, two = pair
    one.answer(1, WWW, X, Y)
    assert one.released == ["1"]
    assert kernel(one) == {(1, X): 7, (1, Y): 7}
    two.openings.refresh()
    assert two.openings.facts.pods[1].knows(WWW, ((X, 30), (Y, 30)), time.time())


def test_one_address_under_names_that_two_instances_learnt(pair: tuple[Instance, Instance]) -> None:
    one, two = pair
    one.answer(1, API, X)
    two.answer(1, WWW, X)
    two.answer(2, WWW, X)
    assert kernel(one) == {(1, X): 8, (2, X): 7}


def test_a_set_without_number_is_asked_for_and_waited_for(pair: tuple[Instance, Instance]) -> None:
    one, _ = pair
    one.openings.adopt(NodeProxies(revision=2, node="n", endpoints=TOLD.endpoints, names=TOLD.names))
    one.numbers = {("com",): 9}

    async def work() -> None:
        one.answer(1, WWW, X)
        one.answer(2, WWW, X)
        assert one.released == []
        await asyncio.gather(*one.tasks)

    asyncio.run(work())
    assert (one.asked, sorted(one.released)) == ([("com",)], ["1", "2"])
    assert kernel(one) == {(1, X): 9, (2, X): 9}


def test_without_a_map_answers_do_not_wait(tmp_path: Path) -> None:
    alone = Instance(tmp_path, tmp_path)
    alone.openings.adopt(TOLD)
    alone.answer(1, WWW, X)
    assert (alone.released, alone.counts.unopened) == (["1"], 1)


def test_an_instance_that_starts_brings_the_kernel_to_the_facts(
    pair: tuple[Instance, Instance], tmp_path: Path, pins: Path
) -> None:
    one, _ = pair
    one.answer(1, WWW, X)
    one.kernel.write([(1, X, 0), (2, Y, 5)])
    again = Instance(tmp_path, pins)
    again.openings.adopt(TOLD)
    assert kernel(again) == {(1, X): 7, (2, Y): 5}
    assert asyncio.run(again.openings.reconcile()) == 1
    assert kernel(again) == {(1, X): 7}
    assert asyncio.run(again.openings.reconcile()) == 0


def test_clean_ups_spare_living_connections(
    pair: tuple[Instance, Instance], tmp_path: Path, pins: Path
) -> None:
    one, two = pair
    one.answer(1, WWW, X, Y)
    one.answer(2, WWW, X)
    lives = time.clock_gettime_ns(time.CLOCK_MONOTONIC) + 3600 * 10**9
    key = CtKey.of(POD, 40000, X, 443, 6)
    with open_pinned(pins, CT) as connections:
        connections.put(key, CtValue(expires=lives))
        connections.put(CtKey.of(OTHER, 40000, X, 443, 6), CtValue(expires=1))
        duty, idle, now = one.duty(tmp_path), two.duty(tmp_path), time.time() + 3600
        assert duty.held()
        assert not idle.held()
        for _ in range(3):
            asyncio.run(duty.round(now))
        assert kernel(one) == {(1, X): 7}
        connections.delete(key)
    for expected in ({(1, X): 7}, {}):
        asyncio.run(duty.round(now))
        assert kernel(one) == expected
    two.openings.refresh()
    assert not two.openings.facts.pods[1].names
    duty.close()
    assert idle.held()
    idle.close()


def test_the_journal_is_written_anew(pair: tuple[Instance, Instance], tmp_path: Path, pins: Path) -> None:
    one, two = pair
    for ttl in range(0, 6000, 60):
        one.answer(1, WWW, X, ttl=ttl)
    before = one.openings.journal.size
    one.openings.compact()
    assert one.openings.journal.size < before / 10
    two.answer(1, API, Y)
    one.openings.refresh()
    facts = [list(each.openings.facts.snapshot()) for each in (one, two, Instance(tmp_path, pins))]
    assert facts[0] == facts[1] == facts[2]


def test_who_a_server_is(pins: Path) -> None:
    with open_pinned(pins, IPCACHE) as ipcache:
        ipcache.put(IpcacheKey(prefix_len=120, address=POD), IpcacheValue(identity=1001))
    here = Kernel(pins)
    assert [here.identity(address[12:]) for address in (POD, X)] == [1001, 9]
    assert here.identity(bytes(15) + b"\1") == 10
