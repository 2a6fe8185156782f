"""What is published of endpoints and when, on a real bus."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from msgspec.structs import replace

from cirri.datapath.regenerate import Local
from cirri.datapath.report import LAZY_S, Reporter
from cirri.datapath.store import Record, Store
from cirri.datapath.views import Views
from cirri.kv import Bus
from cirri.layout import EndpointFlag
from cirri.model import ACKS, ENDPOINTS, NODES, Ack, NodeStatus
from cirri.runtime.logs import Log
from cirri.testing.natsserver import NatsServer
from cirri.testing.wait import eventually

from .test_sync import Known

RECORD = Record(
    id=1, container="c", ifname="eth0", netns="/n", namespace="default", pod="web", interface="lxc0",
    mac="02:00:00:00:00:01", node_mac="02:00:00:00:00:02", ipv4="10.0.0.1", labels=("k8s:app=web",),
    identity=300,
)  # fmt: skip


class Here:
    """A node that has one endpoint, and says so."""

    def __init__(self, bus: Bus, folder: Path) -> None:
        self.endpoints = bus.publisher(ENDPOINTS, "here")
        self.nodes = bus.publisher(NODES, "here")
        self.acks = bus.publisher(ACKS, "here")
        self.local = Local(RECORD, 5, "ready")
        self.reporter = Reporter(
            "here",
            endpoints=self.endpoints,
            nodes=self.nodes,
            acks=self.acks,
            views=Views(*(Known() for _ in Views.__slots__)),  # type: ignore[arg-type]
            store=Store(folder),
            log=Log("error"),
        )


def with_one(folder: Path, test: Callable[[Here], Awaitable[None]]) -> None:
    async def main() -> None:
        with NatsServer() as server:
            bus = await Bus.connect(server.url, name="test")
            here = Here(bus, folder)
            reporting = asyncio.ensure_future(report(here, folder))
            try:
                await eventually(lambda: here.acks.stored and here.endpoints.stored)
                await eventually(lambda: not here.endpoints.pending, what="complete")
                await test(here)
            finally:
                reporting.cancel()
                await asyncio.gather(reporting, return_exceptions=True)
                await bus.drain()

    asyncio.run(main())


async def report(here: Here, folder: Path) -> None:
    async with asyncio.TaskGroup() as tasks:
        await here.reporter.run(tasks, lambda: [here.local], folder)


def test_reports_are_rare_and_what_others_need_is_not_kept_back(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        key, clock = ENDPOINTS.key(here.reporter.endpoint(here.local)), asyncio.get_running_loop().time
        writes, start = here.endpoints.writes, clock()
        here.local.enforced = EndpointFlag.ENFORCE_INGRESS
        here.reporter.changed(here.local)
        await eventually(lambda: here.endpoints.stored[key].ingress_enforced)
        assert clock() - start < LAZY_S * 0.9, "the first is told soon"
        here.local.enforced = EndpointFlag(0)
        here.reporter.changed(here.local)
        await eventually(lambda: not here.endpoints.stored[key].ingress_enforced)
        assert clock() - start >= LAZY_S * 0.9, "the next waits"
        start = clock()
        here.local.record = replace(here.local.record, identity=301)
        here.reporter.changed(here.local)
        await eventually(lambda: here.endpoints.stored[key].identity == 301)
        assert clock() - start < LAZY_S * 0.9
        assert here.endpoints.writes == writes + 3

    with_one(tmp_path, test)


def test_a_report_that_is_undone_meanwhile_is_not_written(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        writes = here.endpoints.writes
        for flags in (EndpointFlag.ENFORCE_EGRESS, EndpointFlag(0)) * 5:
            here.local.enforced = flags
            here.reporter.changed(here.local)
        await asyncio.sleep(1.5 * LAZY_S)  # the time in which it would have been written
        await here.endpoints.settled()
        assert here.endpoints.writes == writes

    with_one(tmp_path, test)


def test_an_acknowledgement_writes_nothing_that_services_follow(tmp_path: Path) -> None:
    async def test(here: Here) -> None:
        here.reporter.status(NodeStatus(node="here", addresses=("192.0.2.1",)))
        await eventually(lambda: here.nodes.stored and not here.nodes.pending)
        others = here.endpoints.writes, here.nodes.writes
        for revision in range(1, 30):
            here.reporter.acknowledge(revision, 7)
            await asyncio.sleep(0)
        wanted = Ack(node="here", policy_revision=29, resources_revision=7)
        await eventually(lambda: here.acks.stored["here"] == wanted)
        assert (here.endpoints.writes, here.nodes.writes) == others

    with_one(tmp_path, test)
