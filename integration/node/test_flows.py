"""The service ``flows`` on the kernel's own ring and a real bus: what it does not tell, it counts."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest
from integration.bench.machine import build_bpf

from cirri.history import ROW, Table
from cirri.history.stream import Gaps, read
from cirri.kv import Bus, LogMissing
from cirri.layout import EVENT_COUNTER, EventRecord, EventType, address16
from cirri.layout.scalar import U32_NUMBER
from cirri.maps import BpfMap, Objects, Programs, SkBuff, open_per_cpu, test_run
from cirri.model import ENDPOINTS, IDENTITIES, RESOURCES, Endpoint, FlowBatch, Identity, L7Batch, L7Record
from cirri.testing import nursed
from cirri.testing.natsserver import NatsServer
from cirri.testing.wait import eventually

NODE = "n1"
WEB, OUT = "10.0.0.1", "203.0.113.5"
FULL = 80_000
"""Events that the ring has no room for."""


class World:
    """A ring that a program fills, and the service."""

    def __init__(self, nats: NatsServer, programs: Programs, bpffs: Path, home: Path) -> None:
        self.nats, self.bpffs, self.home, self._programs = nats, bpffs, home, programs
        self._service: nursed.Nursed | None = None
        with BpfMap(bpffs / "bench_events", U32_NUMBER, EventRecord) as table:
            table.put_many(
                (
                    at,
                    EventRecord(
                        type=EventType.TRACE,
                        source=address16(WEB),
                        destination=address16(OUT),
                        source_identity=300,
                        destination_identity=2,
                        protocol=6,
                        endpoint=1,
                        source_port=at,
                    ),
                )
                for at in range(4096)
            )

    def start(self) -> None:
        env = {
            "CIRRI_NODE": NODE,
            "CIRRI_NATS_URL": self.nats.url,
            "CIRRI_BPFFS": str(self.bpffs),
            "CIRRI_RUN_DIR": str(self.home),
            "CIRRI_STATE_DIR": str(self.home),
        }
        self._service = nursed.start("cirri.flows", env=env, log=self.home / "log")

    def send(self, number: int) -> None:
        assert self._service is not None
        self._service.send_signal(number)

    def end(self, number: int = signal.SIGTERM) -> None:
        if self._service is not None:
            self._service.send_signal(number)
            assert self._service.wait(10) in (0, -number), (self.home / "log").read_text()
            self._service = None

    def emit(self, count: int) -> None:
        test_run(self._programs["tc"], bytes(64), context=SkBuff(mark=count))

    def counters(self) -> tuple[int, int]:
        with open_per_cpu(self.bpffs, EVENT_COUNTER) as counters:
            found = counters.to_dict()
            return sum(found[0]), sum(found[1])

    async def told(self, bus: Bus) -> tuple[int, Counter[str], Gaps]:
        """Rows on the stream, losses of all processes by cause, and what is missing between batches."""
        rows, gaps = 0, Gaps()
        lost: dict[int, dict[str, int]] = {}
        with suppress(LogMissing):
            async for batch in read(bus):
                rows += int((Table.of(batch).rows["type"] != 6).sum())
                gaps.note(batch)
                lost[batch.instance] = {
                    cause: max(count, lost.get(batch.instance, {}).get(cause, 0))
                    for cause, count in batch.lost.items()
                }
        return rows, sum((Counter(each) for each in lost.values()), Counter()), gaps

    async def settled(self, bus: Bus) -> tuple[int, Counter[str]]:
        """The same, when all that the kernel made is told or counted: events more bring counts along."""
        while True:
            self.emit(1)
            async with asyncio.timeout(20):
                await asyncio.sleep(1.3)
                rows, lost, gaps = await self.told(bus)
                assert gaps.missing == 0
                if rows + lost["ring"] + lost["reader"] + lost["stream"] >= sum(self.counters()) - 1:
                    return rows, lost


@pytest.fixture
def world(nats: NatsServer, tmp_path: Path) -> Iterator[World]:
    bpffs = Path(f"/sys/fs/bpf/cirri-test-{uuid4().hex[:12]}")
    made = None
    try:
        with Objects.load(build_bpf("events").parent, bpffs, names=("events.bpf",)) as programs:
            made = World(nats, programs, bpffs, tmp_path)
            made.start()
            yield made
    finally:
        if made is not None:
            made.end(signal.SIGKILL)
        shutil.rmtree(bpffs, ignore_errors=True)


@pytest.fixture
def nats() -> Iterator[NatsServer]:
    with NatsServer() as server:
        yield server


def seen(world: World) -> int:
    """Flows that the service has seen since its start, by its metrics."""
    try:
        address = (world.home / "flows.http").read_text().strip()
        done = subprocess.run(
            ["curl", "-s", f"http://{address}/metrics"],
            capture_output=True,
            text=True,
            check=False,
            timeout=5,
        )
        return int(float(done.stdout.split("\ncirri_flows_seen ")[1].split()[0]))
    except (OSError, IndexError, subprocess.TimeoutExpired):
        return -1


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await holds():  # noqa: ASYNC110 - it asks another process
            await asyncio.sleep(0.1)


def test_what_is_not_told_is_counted(world: World, nats: NatsServer) -> None:
    async def test() -> None:
        bus = await Bus.connect(nats.url, name="test")
        resources = bus.publisher(RESOURCES)
        await resources.replace([])
        world.emit(5000)
        await eventually(lambda: seen(world) >= 5000, within_s=20)
        rows, lost = await world.settled(bus)
        assert (rows >= 5000, +lost) == (True, Counter())

        nats.kill()
        before = seen(world)
        world.emit(3000)
        await eventually(lambda: seen(world) >= before + 3000)
        nats.start()
        await eventually(lambda: bus.connected)
        rows, lost = await world.settled(bus)
        assert (rows >= 8000, +lost) == (True, Counter())

        world.send(signal.SIGSTOP)
        world.emit(FULL)
        full = world.counters()[1]
        assert full > 0
        world.send(signal.SIGCONT)
        rows, lost = await world.settled(bus)
        assert +lost == Counter(ring=world.counters()[1])  # more than before, if the ring was still full

        nats.kill()
        before = seen(world)
        world.emit(2000)
        await eventually(lambda: seen(world) >= before + 2000)
        world.end(signal.SIGKILL)  # with all of them in its memory
        nats.start()
        await eventually(lambda: bus.connected)
        world.emit(FULL)
        full = world.counters()[1]
        world.start()
        await eventually(lambda: seen(world) >= 0, within_s=20)
        rows, lost = await world.settled(bus)
        assert lost["ring"] == world.counters()[1] >= full
        assert lost["reader"] >= 2000
        assert rows + lost["ring"] + lost["reader"] in (sum(world.counters()), sum(world.counters()) - 1)

        world.emit(100)
        world.end()  # in order: nothing more is lost
        world.emit(50)
        world.start()
        await eventually(lambda: seen(world) >= 0, within_s=20)
        after, more = await world.settled(bus)
        assert +(more - lost) == Counter()
        assert after > rows + 150

        nats.kill()
        nats.empty()  # what was stored is gone; what comes is stored again
        nats.start()
        await eventually(lambda: bus.connected)
        world.emit(10)
        await eventually(lambda: seen(world) >= 10)

        async def again() -> bool:
            rows, _, _ = await world.told(bus)
            return rows >= 10

        await until(again)
        await bus.drain()

    asyncio.run(test())


def test_who_it_was_is_told_though_it_was_not_known_yet(world: World, nats: NatsServer) -> None:
    """The pod's first packets come before any news of it; records of proxies are counted."""

    async def test() -> None:
        bus = await Bus.connect(nats.url, name="test")
        resources = bus.publisher(RESOURCES)
        await resources.replace([])
        await eventually(lambda: seen(world) >= 0, within_s=20)
        identities, endpoints = bus.publisher(IDENTITIES), bus.publisher(ENDPOINTS, NODE)
        await identities.replace([])
        await endpoints.replace([])
        world.emit(3)
        await asyncio.sleep(0.1)
        identity = Identity(id=300, labels=("k8s:app=web",))
        endpoint = Endpoint(
            node=NODE,
            id=1,
            namespace="shop",
            pod="web",
            container_id="",
            interface="",
            ipv4=WEB,
            identity=300,
        )
        await identities.replace([identity])
        await endpoints.replace([endpoint])
        record = L7Record(
            time=5, node=NODE, type="request", verdict="dropped", direction="egress", endpoint=1
        )
        record = msgspec.structs.replace(record, source=f"{WEB}:5", destination=f"{OUT}:80")
        for number, told, lost in ((1, 0, 2), (3, 8, 3)):
            batch = L7Batch(
                node=NODE, proxy="p", instance="1", number=number, told=told, lost=lost, records=(record,)
            )
            await bus.publish(f"cirri.l7.{NODE}", msgspec.msgpack.encode(batch))
        found: list[tuple[str, str, int]] = []
        batches: list[FlowBatch] = []

        async def whole() -> bool:
            with suppress(LogMissing):
                batches[:] = [one async for one in read(bus)]
            found[:] = [(one.namespace, one.verdict, len(one.rows) // ROW.itemsize) for one in batches]
            return sum(count for _, _, count in found) >= 5

        await until(whole)
        assert sorted(found) == [("shop", "dropped", 2), ("shop", "forwarded", 3)]
        table = Table.of(next(one for one in batches if one.verdict == "forwarded"))
        assert {end.pod for end in table.ends} == {"web", ""}
        assert ("k8s:app=web",) in {end.labels for end in table.ends}
        assert max(one.lost["l7"] for one in batches) == 2 + 7 + 1
        await bus.drain()

    asyncio.run(test())
