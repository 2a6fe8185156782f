"""Hold what is this node's: from tables and beats to the kernel and the wire."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from datetime import UTC, datetime

import msgspec

from cirri.errors import CirriError
from cirri.kv import BusError
from cirri.kv.news import News
from cirri.l2.life import Life, own_record
from cirri.l2.segment import Segment, pinned
from cirri.l2.statuses import changed
from cirri.l2.witness import Witness
from cirri.l2.world import Objects, World
from cirri.layout import L2Flag
from cirri.manifests.api import APPLY, ApplyObject, ApplyReply, ApplyRequest
from cirri.maps import BpfError
from cirri.model import ANNOUNCERS, RESOURCES, resource_key
from cirri.model.announcer import InvalidL2, L2Config
from cirri.model.config import CONFIG, config_data
from cirri.placement import rank
from cirri.placement.policies import KIND
from cirri.runtime import Runtime

GATHER_S = 0.02
"""After a change of objects, so that a file of many Services is looked at once."""
POLL_S = 0.5
"""How often the kernel is asked whether another node made it silent."""
MAPS_S = 0.2
"""Between looks for the maps, which the node's datapath makes."""
REQUEST_S = 5.0
ASK_S = 0.03
"""Between questions to a node whose beats are late."""


class Holding:
    """One node's part in announcing addresses."""

    def __init__(self, rt: Runtime) -> None:
        self.rt = rt
        tables = {
            "services": rt.table(RESOURCES, resource_key("Service", "*")),
            "slices": rt.table(RESOURCES, resource_key("EndpointSlice", "*")),
            "nodes": rt.table(RESOURCES, resource_key("Node")),
            "policies": rt.table(RESOURCES, resource_key(KIND)),
            "config": rt.table(RESOURCES, CONFIG),
        }
        self._tables, self._news = tables, News(tables)
        self.records = rt.table(ANNOUNCERS, needed=False)
        objects = Objects(tables["services"], tables["slices"], tables["nodes"], tables["policies"])
        self.world = World(objects, self.records)
        self.why_idle = "it has only just started"
        """Why this node does not beat; empty: it does."""
        self._active, self._turn, self._sends = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._looks, self._followed = True, False
        self._alive: frozenset[str] = frozenset()
        self._held_by: dict[str, list[str]] = {}
        """Node -> the addresses that it holds as far as this one knows."""
        self._asked = 0

    async def begin(self) -> None:
        """Wait for what there has to be: maps, tables and the bucket."""
        while not await asyncio.to_thread(pinned, self.rt.settings.bpffs):
            self.rt.ready("maps", ok=False, why="the node's datapath has not made them yet")
            await asyncio.sleep(MAPS_S)
        self.rt.ready("maps", ok=True)
        self.segment = Segment(self.rt.settings)
        self.segment.adopt()
        self.rt.ready("device", bool(self.segment.index), "no device leads to other nodes: set CIRRI_UPLINK")
        publisher = self.rt.publisher(ANNOUNCERS)
        await publisher.start()
        await self.records.ready.wait()
        device = (self.segment.device,) if self.segment.device else ()
        record = own_record(self.records, self.rt.settings.node, self.segment.mac, device)
        while True:
            with suppress(BusError):
                await publisher.replace([record])
                break
        self.life = Life(self.rt, self.records, record)
        self.life.moved = self._moved
        self.life.sight.askable = lambda node: bool(self._held_by.get(node))
        self.life.silenced = self._silenced
        self._witness = Witness(self.segment.device, self.segment.mac_bytes, self._answered)

    async def run(self) -> None:
        """Until cancelled."""
        try:
            if self.segment.device:
                self._witness.open()
            async with asyncio.TaskGroup() as tasks:
                for task in (
                    self.life.hear(),
                    self.life.live(self._active),
                    self._follow(),
                    self._announce(),
                    self._ask(),
                ):
                    tasks.create_task(task)
                await self._decide()
        finally:
            await self.life.leave()
            self._witness.close()
            self.segment.close()

    def answered(self) -> float:
        """Answers of the kernel for what is held now."""
        with suppress(BpfError):
            return float(sum(each.answers for each in self.segment.entries().values()))
        return 0.0

    def is_blind(self) -> float:
        """1 while this node beats and does not see who lives."""
        return float(self.life.beating and self.life.blind(time.monotonic()))

    def _silenced(self) -> bool:
        with suppress(BpfError):
            return any(each.flags & L2Flag.YIELDED for each in self.segment.entries().values())
        return False

    def _moved(self) -> None:
        self._looks = True
        self._turn.set()

    async def _follow(self) -> None:
        """Objects and the configuration."""
        await self._news.next()
        while True:
            try:
                config, error = L2Config.of(config_data(self._tables["config"])), ""
            except InvalidL2 as invalid:
                config, error = self.life.config, str(invalid)
            self.rt.ready("configuration", not error, error)
            if config != self.life.config:
                self.life.configure(config)
            if not config.enabled:
                self.why_idle = "enable-l2-announcements is false"
            elif not self._tables["policies"]:
                self.why_idle = f"there is no {KIND}"
            else:
                self.why_idle = ""
            if self.why_idle:
                self._active.clear()
            else:
                self._active.set()
            self._followed = True
            self._moved()
            await self._news.next()
            await asyncio.sleep(GATHER_S)
            self._news.take()

    async def _decide(self) -> None:
        """What is this node's, each time something moved or somebody may have died."""
        polled = 0.0
        while True:
            now = time.monotonic()
            wait_s = min(POLL_S, self.life.sight.next_s(now) + 0.001)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._turn.wait()
            turned = self._turn.is_set()
            self._turn.clear()
            now = time.monotonic()
            if not self._sees(now):
                continue
            alive = self.life.alive(now)
            try:
                if turned or alive != self._alive:
                    self._hold(alive)
                if now - polled > POLL_S and self.life.beating:
                    polled = now
                    for address in self.segment.reclaim():
                        self.rt.log.warning(
                            "answers again: another node announced what is ours", address=address
                        )
                        self._sends.set()
                self.rt.ready("kernel", ok=True)
            except BpfError as error:
                self.rt.ready("kernel", ok=False, why=str(error))
                await asyncio.sleep(MAPS_S)
                self._turn.set()
            self.life.sight.bury(now)

    def _sees(self, now: float) -> bool:
        """Whether this node may decide: it beats and sees, or others do while it does not, or none shall."""
        if not self._followed:
            return False
        if self.why_idle:
            return True
        if self.life.beating:
            return self.life.sees(now)
        return self.rt.bus.connected and bool(self.life.alive(now))

    def _hold(self, alive: frozenset[str]) -> None:
        self._alive = alive
        if self._looks:
            self._looks = False
            self.world.look()
        node = self.rt.settings.node
        places = self.world.place(alive) if not self.why_idle else {}
        mine = {address: place.stand_in for address, place in places.items() if place.node == node}
        if not self.life.beating and not self.why_idle:  # what nobody else may hold stays
            mine |= {a: s for a, s in self.segment.held.items() if a in self.world.wanted and a not in places}
        self._held_by = {}
        for address, place in sorted(places.items(), key=lambda item: (":" in item[0], item[0])):
            self._held_by.setdefault(place.node, []).append(address)
        self.segment.trust(each.mac for each in self.world.announcers.values())
        taken, left = self.segment.hold(mine)
        for address in taken:
            self.rt.log.info("takes", address=address, reason=places[address].reason)
        for address in left:
            self.rt.log.info("leaves", address=address, to=places[address].node if address in places else "")
        self._sends.set()

    async def _ask(self) -> None:
        """Whoever's beats are late for what it holds, one address after the other."""
        while True:
            sight, now = self.life.sight, time.monotonic()
            late = sight.late(now) if self.life.sees(now) else []
            for node in late:
                self._asked += 1
                held = self._held_by[node]
                record = self.world.announcers.get(node)
                if record is not None and record.mac:
                    mac = bytes.fromhex(record.mac.replace(":", ""))
                    self._witness.ask(held[self._asked % len(held)], mac)
                sight.asks(node, now)
            await asyncio.sleep(max(ASK_S, 0.0 if late else sight.late_s(now)))

    def _answered(self, address: str, mac: bytes) -> None:
        """Somebody's kernel has *address* at *mac*."""
        for record in self.world.announcers.values():
            if record.mac == mac.hex(":") and address in self._held_by.get(record.node, ()):
                self.life.sight.answers(record.node, time.monotonic())

    async def _announce(self) -> None:
        """What is due on the wire."""
        while True:
            self._sends.clear()
            wait_s = self.segment.send(time.monotonic())
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._sends.wait()

    async def judge(self) -> None:
        """Keep the conditions of policies true, if it is this node's turn: of those that live one does it."""
        news = News({"policies": self._tables["policies"]})
        await news.next()
        while True:
            alive = self.life.alive(time.monotonic()) | {self.rt.settings.node}
            if rank("conditions", alive, {})[0] == self.rt.settings.node:
                now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
                objects = tuple(
                    ApplyObject(manifest=each, source="l2")
                    for each in changed(self._tables["policies"].values(), now)
                )
                if objects:
                    await self._apply(objects)
            await news.next(REQUEST_S)

    async def _apply(self, objects: tuple[ApplyObject, ...]) -> None:
        request = ApplyRequest(objects=objects, status_only=True, update_only=True)
        try:
            reply = await self.rt.request(APPLY, msgspec.msgpack.encode(request), REQUEST_S)
            error = msgspec.msgpack.decode(reply, type=ApplyReply).error
        except CirriError as failed:
            error = str(failed)
        if error:
            self.rt.log.warning("conditions cannot be written", error=error)
