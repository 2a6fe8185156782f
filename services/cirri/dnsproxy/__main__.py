"""``cirri-dnsproxy``: read this file to see what the service is made of."""

from __future__ import annotations

import asyncio
import gc
import resource
import socket
import time
from collections.abc import Sequence

import msgspec

from cirri.dnsproxy import SERVICE
from cirri.dnsproxy.asked import cache, uses
from cirri.dnsproxy.counts import Counts
from cirri.dnsproxy.desk import Desk
from cirri.dnsproxy.duty import Duty
from cirri.dnsproxy.facts import Facts
from cirri.dnsproxy.inflight import Inflight
from cirri.dnsproxy.journal import Journal
from cirri.dnsproxy.kernel import Kernel
from cirri.dnsproxy.opening import Openings
from cirri.dnsproxy.slots import Question
from cirri.dnsproxy.sockets import inherited, listening, prepare
from cirri.dnsproxy.tcp import Streams
from cirri.dnsproxy.udp import Relay
from cirri.dnsproxy.watch import Watch
from cirri.model.request import NameCacheRequest
from cirri.proxies import SOCKET, ProxiesClient
from cirri.proxies.model import DNS_PORT
from cirri.runtime import Runtime, run
from cirri.runtime.records import RecordStream

TICK_S = 0.05
"""Between two looks at what the other instance may have left behind."""
LOOK_S = 0.2
"""Between two looks at what waits too long."""
DRAIN_S = 1.0
"""How long questions under way may still be answered after SIGTERM; the other instance has the rest."""
MOST_FILES = 65536


class Proxy:
    """One instance."""

    def __init__(self, rt: Runtime) -> None:
        loop = asyncio.get_running_loop()
        settings, self.rt, self.counts = rt.settings, rt, Counts()
        state = settings.state_dir / "dnsproxy"
        self.inflight = Inflight(settings.run_dir)
        self.client = ProxiesClient(settings.run_dir / SOCKET, state / f"told-{self.inflight.number}.msgpack")
        self.kernel, self.facts = Kernel(settings.bpffs), Facts()
        journal = Journal(state / "facts.journal")
        for record in journal.news():
            self.facts.apply(record)
        self.openings = Openings(
            facts=self.facts, journal=journal, kernel=self.kernel, ask=self.client.ask, counts=self.counts,
            spawn=rt.tasks.create_task,
        )  # fmt: skip
        self.records = RecordStream(rt)
        self.watch = Watch(self.records, settings.node)
        self.desk = Desk(self.openings, self.kernel, self.counts, self.watch, rt.log.warning)
        self.relay = Relay(loop, self.desk, self.inflight)
        self.streams = Streams(loop, self.desk, rt.tasks.create_task)
        self._told = asyncio.Event()
        self.duty = Duty(state / "duty.lock", self.openings, self.kernel, self.desk.by_address)

    async def run(self) -> None:
        """Until cancelled, and then until what is under way is done."""
        create = self.rt.tasks.create_task
        create(self.client.run())
        create(self.records.run())
        create(self._handle())
        following = create(self._follow())
        try:
            await self._told.wait()
            await self._listen()
            create(self._tick())
            create(self.duty.run())
            await following
        finally:
            await self._end()

    async def _follow(self) -> None:
        """What the datapath service says."""
        async for told in self.client.changes():
            self.desk.adopt(told)
            self._told.set()
            self.rt.ready("rules", True)

    async def _listen(self) -> None:
        shared = inherited() or listening(DNS_PORT)
        for one in shared:
            prepare(one)
        datagrams = [one for one in shared if one.type == socket.SOCK_DGRAM]
        self.relay.listen(datagrams)
        self._again(self.inflight.left)
        await self.streams.listen([one for one in shared if one.type == socket.SOCK_STREAM])
        self.rt.ready("listening", True)
        self.rt.log.info("listening", sockets=len(shared), instance_number=self.inflight.number)

    def _again(self, questions: Sequence[Question]) -> None:
        """Take over what another process had not done."""
        if questions:
            self.counts.replayed += len(questions)
            self.relay.take(questions)
            self.rt.log.info("questions taken over", count=len(questions))

    async def _tick(self) -> None:
        look_at = 0.0
        while True:
            await asyncio.sleep(TICK_S)
            self._again(list(self.inflight.orphans()))
            self.openings.refresh()
            self.desk.look()
            self.relay.look()
            self.watch.look()
            if time.monotonic() >= look_at:
                look_at = time.monotonic() + LOOK_S
                self.streams.look()
                there = self.kernel.ready
                self.rt.ready("kernel", there, "" if there else "there is no map cirri_names yet")

    async def _handle(self) -> None:
        async def names(_: bytes) -> bytes:
            return msgspec.msgpack.encode(uses(self.facts, self.client.latest))

        async def learnt(payload: bytes) -> bytes:
            request = msgspec.msgpack.decode(payload, type=NameCacheRequest)
            self.openings.refresh()
            return msgspec.msgpack.encode(cache(self.facts, self.openings.note, request))

        await self.rt.handle("names", names)
        await self.rt.handle("cache", learnt)

    async def _end(self) -> None:
        self.relay.stop()
        self.streams.stop()
        until = time.monotonic() + DRAIN_S
        while (self.relay.waiting or self.streams.clients) and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        if not self.relay.waiting:
            self.inflight.close()
        self.relay.close()
        self.duty.close()


async def serve(rt: Runtime) -> None:
    """Ask and answer until cancelled."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, MOST_FILES), hard))
    gc.set_threshold(20000, 20, 1_000_000)  # facts are many and have no cycles: not to be walked at each turn
    proxy = Proxy(rt)

    def count() -> None:
        from cirri.dnsproxy.metrics import CountMetrics
        from cirri.runtime.gauges import Gauges

        pods = proxy.facts.pods.values
        gauges = {
            "facts": ("Addresses of names that pods know", lambda: sum(p.pairs for p in pods())),
            "waiting": ("Questions over UDP that wait for an answer", lambda: proxy.relay.waiting),
            "connections": ("Connections of pods over TCP", lambda: len(proxy.streams.clients)),
        }
        rt.metrics.register(CountMetrics(proxy.counts))
        rt.metrics.register(Gauges(SERVICE.name, gauges))

    asyncio.get_running_loop().call_later(1.0, count)  # imported after what is urgent
    await proxy.run()


def main() -> None:
    """Entry point."""
    run(SERVICE, serve)


if __name__ == "__main__":
    main()
