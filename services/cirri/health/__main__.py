"""``cirri-health``: read this file to see what the service is made of."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from datetime import UTC, datetime

from cirri.health import SERVICE
from cirri.health.probes import Pinger, hello
from cirri.health.view import Answer, Path, View, others, pause_s
from cirri.kv import BusError
from cirri.kv.news import News
from cirri.model import HEALTH, NODES, RESOURCES, NodeHealth, resource_key
from cirri.model.bucket import token
from cirri.model.config import CONFIG, config_data
from cirri.model.health import HealthConfig, InvalidHealth
from cirri.runtime import Runtime, run
from cirri.runtime.health import Page, serve_everywhere

ANSWER_S = 2.0
"""How long a node has to answer; where probes follow each other faster, as long as that takes."""
AFTER_S = 0.02
"""How much later than the echoes HTTP is tried, so that round-trip times do not hold each other's work."""
AT_ONCE = 64
"""Nodes that are being probed at the same time."""
FIRST_S = 1.0
"""A node that is new is probed within this time."""
TELL_S = 10.0
"""How often round-trip times are published, at most."""
GATHER_S = 0.05
"""How long a change of state may wait for others, so that a cut cable is not a hundred messages."""
LISTEN_S = 5.0
"""Between attempts to have the port."""


class Prober:
    """Probes the others and answers them; its view goes to the bus whenever there is one."""

    def __init__(self, rt: Runtime) -> None:
        self.rt, self.view, self.config = rt, View(rt.settings.node), HealthConfig()
        self.listening = "it does not listen yet"
        """Why others get no answer; empty: they do."""
        self._pinger = Pinger()
        self._room = asyncio.Semaphore(AT_ONCE)
        self._due: dict[str, float] = {}
        self._busy: set[str] = set()
        self._known, self._moved = asyncio.Event(), asyncio.Event()
        self._told, self._configured = asyncio.Event(), asyncio.Event()

    async def run(self) -> None:
        """Until cancelled; all of it goes on without the bus."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follow())
                tasks.create_task(self._answer())
                tasks.create_task(self._publish())
                await self._probe(tasks)
        finally:
            self._pinger.close()

    def record(self) -> NodeHealth:
        """What is seen now."""
        pause = pause_s(self.config.interval_s, len(self.view.peers))
        return self.view.record(interval_s=pause, enabled=self.config.enabled, error=self.listening)

    async def _follow(self) -> None:
        """What the tables say: whom to probe, and how."""
        config = self.rt.table(RESOURCES, CONFIG)
        objects, statuses = self.rt.table(RESOURCES, resource_key("Node")), self.rt.table(NODES)
        news = News({"config": config, "objects": objects, "statuses": statuses})
        while True:
            await news.next()
            try:
                now, error = HealthConfig.of(config_data(config)), ""
            except InvalidHealth as invalid:
                now, error = self.config, str(invalid)
            self.rt.ready("configuration", not error, error)
            peers = others(self.view.node, statuses.values(), objects.values()) if now.enabled else {}
            if now != self.config:
                self.config = now
                self._configured.set()
                self._due.clear()
            if self.view.want(peers) or len(self._due) != len(peers):
                soon = time.monotonic() + min(FIRST_S, now.interval_s) * random.random()
                self._due = {node: self._due.get(node, soon) for node in peers}
                self._told.set()
            self._known.set()
            self._moved.set()

    async def _probe(self, tasks: asyncio.TaskGroup) -> None:
        """Each node when it is due, so that they are spread over the interval."""
        while True:
            node = min(self._due, key=self._due.__getitem__, default="")
            wait_s = self._due[node] - time.monotonic() if node else None
            if wait_s is None or wait_s > 0:
                self._moved.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._moved.wait()
                continue
            pause = pause_s(self.config.interval_s, len(self._due))
            self._due[node] = time.monotonic() + pause * random.uniform(0.9, 1.1)
            if node not in self._busy:
                self._busy.add(node)
                tasks.create_task(self._ask(node))

    async def _ask(self, node: str) -> None:
        """Every address of *node*, by both probes."""
        within_s, port = min(ANSWER_S, self.config.interval_s), self.config.port
        async with self._room:
            sent = now()
            addresses = self.view.peers.get(node, ())
            echoes = [self._pinger.ping(address, within_s) for address in addresses]
            greetings = [_greet(address, port, within_s) for address in addresses]
            answers: list[Answer] = await asyncio.gather(*echoes, *greetings)
        self._busy.discard(node)
        paths = [Path(node, a, "icmp") for a in addresses] + [Path(node, a, "http") for a in addresses]
        for path, answer in zip(paths, answers, strict=True):
            if self.view.note(path, answer, sent):
                self._told.set()
                if answer.error:
                    self.rt.log.warning("unreachable", **path._asdict(), error=answer.error)
                else:
                    self.rt.log.info("reachable", **path._asdict())

    async def _answer(self) -> None:
        """``/hello``, on the port that the configuration names."""
        while True:
            config = self.config
            self._configured.clear()
            if not config.enabled:
                self._listens("")
                await self._configured.wait()
                continue
            try:
                server = await serve_everywhere(config.port, {"/hello": lambda: Page(200, b"ok\n")})
            except OSError as error:
                self._listens(f"cannot listen on port {config.port}: {error.strerror or error}")
                with suppress(TimeoutError):
                    async with asyncio.timeout(LISTEN_S):
                        await self._configured.wait()
                continue
            self._listens("")
            try:
                while (self.config.enabled, self.config.port) == (config.enabled, config.port):
                    await self._configured.wait()
                    self._configured.clear()
            finally:
                server.close()

    def _listens(self, error: str) -> None:
        if error != self.listening:
            self.listening = error
            self.rt.ready("answering", not error, error)
            self._told.set()

    async def _publish(self) -> None:
        """The view: a change of state at once, round-trip times now and then."""
        publisher = self.rt.publisher(HEALTH)
        await publisher.start()
        await self._known.wait()
        if (before := publisher.stored.get(token(self.view.node))) is not None:
            self.view.adopt(before)
        declared = False
        while True:
            self._told.clear()
            record = self.record()
            try:
                if declared:
                    await publisher.post(record)
                else:
                    await publisher.replace([record])
                declared = True
            except BusError as error:
                self.rt.log.warning("not published yet", error=str(error))
            with suppress(TimeoutError):
                async with asyncio.timeout(max(TELL_S, record.interval_s)):
                    await self._told.wait()
            await asyncio.sleep(GATHER_S)


async def _greet(address: str, port: int, within_s: float) -> Answer:
    await asyncio.sleep(AFTER_S)
    return await hello(address, port, within_s)


def now() -> str:
    """RFC 3339, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def serve(rt: Runtime) -> None:
    """Probe until cancelled."""
    prober = Prober(rt)

    def count() -> None:
        from cirri.health.metrics import Connectivity

        rt.metrics.register(Connectivity(prober.record))

    asyncio.get_running_loop().call_later(FIRST_S, count)  # imported after what is urgent
    await prober.run()


def main() -> None:
    """Entry point."""
    run(SERVICE, serve)


if __name__ == "__main__":
    main()
