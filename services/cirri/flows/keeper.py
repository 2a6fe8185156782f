"""The wiring: the kernel's ring, the proxies' records and the cluster's news in; tables of flows out."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec

from cirri.flows import NAME_CACHE, NAME_SETS, WHO
from cirri.flows.account import Account
from cirri.flows.book import Book
from cirri.flows.happenings import Happenings
from cirri.flows.kernel import KernelRing
from cirri.flows.names import PodNames
from cirri.flows.node import NodeFlows
from cirri.flows.observed import Observed
from cirri.flows.origins import Origins
from cirri.flows.outlets import Outlets
from cirri.flows.proxied import Heard
from cirri.flows.publish import Publisher
from cirri.flows.rules import RuleFile
from cirri.history.ring import Ring
from cirri.kv import BusError, Message, Table
from cirri.kv.log import Limits
from cirri.kv.news import News
from cirri.maps import BpfError
from cirri.model import ENDPOINTS, IDENTITIES, L7_RECORDS, NODES, RESOURCES, L7Batch, NodeStatus, resource_key
from cirri.model.bucket import token
from cirri.model.config import CONFIG, config_data
from cirri.model.flows import DROPPED_LOG, FORWARDED_LOG
from cirri.model.flowsettings import DEFAULTS, flow_settings
from cirri.model.origins import ProcessesReply, ProcessesRequest
from cirri.model.request import NameCacheReply, NameSetsReply
from cirri.runtime import Runtime

LOOK_S = 1.0
"""How often the kernel's counters are read, and a ring that is not there is looked for."""
CONFIG_S = 5.0
"""How long the configuration may take to be known before defaults hold."""
RESTORE_S = (0.5, 1, 2, 5, 10, 30, 60)
"""Pauses between attempts to hear what the DNS proxy knows."""
ASK_S = 2.0
"""How long neighbours may take to answer."""
NAMES_AGAIN_S = 0.1
"""Between questions for the names behind a number that is not known."""
FINISH_S = 0.8
"""How long the end may take to store what is not stored yet."""
ASK_AT_ONCE = 2000
"""Processes in one question."""
CAUSES = ("ring", "reader", "l7", "stream")


class Keeper:
    """Everything of one node; it goes on without the bus."""

    def __init__(self, rt: Runtime) -> None:
        self.rt = rt
        settings = rt.settings
        self.instance = secrets.randbits(64)
        self.lost = dict.fromkeys(CAUSES, 0)
        self.settings, _ = flow_settings({})
        self.book = Book(settings.node, settings.cluster)
        self.ring = Ring(int(DEFAULTS["hubble-event-buffer-capacity"]), settings.node, self.instance)
        self.observed = Observed(rt, self.ring, self.lost)
        self._hosts: Mapping[str, NodeStatus] = {}
        self.happenings = Happenings(settings.node, self.observed.source.happened, self._host)
        self.publisher = Publisher(rt.bus, rt.log, (settings.node, self.instance), self.lost, self._settled)
        self.outlets = Outlets(rt, lambda: self.lost)
        self.origins = Origins(settings.bpffs)
        self.flows = NodeFlows(
            self.book,
            PodNames(),
            RuleFile(settings.run_dir / "rules.json", self.observed.revision).get,
            self.instance,
            (self.ring.take, self.observed.source.take, self.publisher.take, self.outlets.take),
            origins=self.origins,
        )
        self.flows.hopeful = lambda: rt.bus.connected
        self.kernel = KernelRing(settings.bpffs, asyncio.get_running_loop())
        self.heard = Heard()
        self._account: Account | None = None
        self._counted = {"overrun": 0, "foreign": 0, "l7": 0}
        self._state = settings.run_dir / "flows.l7"
        self._remembered = b"{}"
        self._unnamed, self._unidentified = asyncio.Event(), asyncio.Event()
        self.book.unnamed = self._unnamed.set

    def _host(self, node: str) -> str:
        known = self._hosts.get(token(node))
        return known.addresses[0] if known is not None and known.addresses else ""

    async def run(self) -> None:
        """Until cancelled; then what is known is stored as far as possible."""
        self.happenings.started()
        with suppress(OSError, msgspec.MsgspecError):
            state = msgspec.json.decode(self._state.read_bytes(), type=dict[str, tuple[int, int]])
            self.heard.restore(state)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follow())
                tasks.create_task(self._configure())
                tasks.create_task(self._count())
                tasks.create_task(self.publisher.run())
                tasks.create_task(self.outlets.run())
                tasks.create_task(self.observed.run())
                await self.rt.hear(L7_RECORDS, self._hear)
                tasks.create_task(self._learn())
                tasks.create_task(self._identify())
                tasks.create_task(self._restore())
                await self._read()
        finally:
            self._losses()
            self.kernel.stop()
            self._take_all()
            self._remember()
            await self.publisher.finish(FINISH_S)
            self.outlets.close()
            if self._account is not None:
                self._account.close()

    # in -----------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        """The kernel's events."""
        while True:
            await self._open()
            self.kernel.start()
            self.rt.ready("reading", True)
            try:
                while not self.kernel.replaced():
                    self.kernel.some.clear()
                    if (left_s := self._take()) == 0:
                        await asyncio.sleep(0)  # others have their turn between two batches
                        continue
                    with suppress(TimeoutError):
                        async with asyncio.timeout(left_s or LOOK_S):
                            await self.kernel.some.wait()
            finally:
                self.kernel.stop()
            self._take_all()

    async def _open(self) -> None:
        while True:
            try:
                self.kernel.open()
                break
            except BpfError as error:
                self.rt.ready("reading", False, str(error))
                await asyncio.sleep(LOOK_S)
        if self._account is not None:
            self._account.close()
        account = self._account = Account(self.rt.settings.run_dir / "flows.account", self.kernel.id)
        submitted = self.kernel.counters()[0]
        while True:
            pending = self.kernel.pending()
            again = self.kernel.counters()[0]
            if again == submitted:
                break
            submitted = again
        missing = max(0, submitted - pending - account.settled)
        if missing:
            self.lost["reader"] += missing
            account.settle(missing)
            self.rt.log.warning("events were lost with an earlier process, or read by others", events=missing)

    def _take(self) -> float | None:
        """Some of what waits here; seconds until it is worth to look again, None: only news is."""
        raw = self.kernel.take()
        if raw is not None:
            self.flows.events(raw)
        left_s = self.flows.settle()
        if self.origins.asked:
            self._unidentified.set()
        return 0.0 if raw is not None else left_s

    def _take_all(self) -> None:
        """Everything that waits here, whatever is known of it."""
        while (raw := self.kernel.take()) is not None:
            self.flows.events(raw)
            self.flows.settle(final=True)
        self.flows.settle(final=True)
        self._losses()

    def _hear(self, message: Message) -> None:
        try:
            batch = msgspec.msgpack.decode(message.data, type=L7Batch)
        except msgspec.MsgspecError as error:
            self.rt.log.error("records cannot be read", error=str(error))
            return
        self.heard.note(batch)
        self.flows.records(self.outlets.redacted(batch.records))
        self.kernel.some.set()

    # news ---------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        """Who is behind addresses and numbers."""
        rt, book = self.rt, self.book
        endpoints, identities = rt.table(ENDPOINTS, needed=False), rt.table(IDENTITIES, needed=False)
        nodes = rt.table(NODES, needed=False)
        services = rt.table(RESOURCES, resource_key("Service", "*"), needed=False)
        pods = rt.table(RESOURCES, resource_key("Pod", "*", "*", rt.settings.node), needed=False)
        tables: dict[str, Table[Any]] = {
            "endpoints": endpoints,
            "identities": identities,
            "nodes": nodes,
            "services": services,
            "pods": pods,
        }

        def labels(number: int) -> tuple[str, ...] | None:
            found = identities.get(str(number))
            return found.labels if found is not None else None

        book.identities = labels
        news = News(tables, wait_for=())
        self._hosts, quiet = nodes, True
        while True:
            changed = await news.next()
            now_ns = time.time_ns()
            if changed["pods"] and book.owners(pods.values()):
                changed["endpoints"] |= {k for k in endpoints if k.startswith(f"{token(book.node)}.")}
            gone = set()
            for key in changed["endpoints"]:
                book.endpoint(key, endpoints.get(key), now_ns)
                self.outlets.endpoint(key, endpoints.get(key))
                self.happenings.endpoint(key, endpoints.get(key), quiet=quiet)
                node, _, number = key.rpartition(".")
                if key not in endpoints and node == token(book.node):
                    gone.add(int(number))
            quiet = not endpoints.ready.is_set()
            self.flows.names.forget(frozenset(gone))
            for key in changed["nodes"]:
                book.machine(key, nodes.get(key), now_ns)
            if changed["services"] or changed["nodes"]:
                own = [address for node in nodes.values() for address in node.addresses]
                book.addresses(services.values(), own)
            book.news()
            book.forget(now_ns)
            self.flows.news()
            self.kernel.some.set()

    async def _configure(self) -> None:
        """What the configuration says."""
        config = self.rt.table(RESOURCES, CONFIG, needed=False)
        news = News({"config": config})
        with suppress(TimeoutError):
            async with asyncio.timeout(CONFIG_S):
                await config.ready.wait()
        if not config.ready.is_set():
            self._adopt({})
        while True:
            await news.next()
            self._adopt(config_data(config))

    def _adopt(self, data: Mapping[str, str]) -> None:
        self.settings, invalid = flow_settings(data)
        wrong = [*invalid, *self.outlets.configure(data)]
        self.rt.ready("configuration", not wrong, "; ".join(str(each) for each in wrong))
        self.book.cluster = data.get("cluster-name") or self.rt.settings.cluster
        self.book.news()
        if self.ring.capacity != self.settings.capacity:
            self.ring.resize(self.settings.capacity)
        one = self.settings
        self.publisher.want(
            {
                FORWARDED_LOG.name: Limits(one.forwarded_age_s, one.forwarded_bytes),
                DROPPED_LOG.name: Limits(one.dropped_age_s, one.dropped_bytes),
            }
        )

    async def _restore(self) -> None:
        """Names that pods were told before this process was there, from whoever told them."""
        for pause_s in RESTORE_S:
            with suppress(BusError, msgspec.MsgspecError):
                answer = await self.rt.request(NAME_CACHE, b"", ASK_S)
                self.flows.names.restore(msgspec.msgpack.decode(answer, type=NameCacheReply).names)
                return
            await asyncio.sleep(pause_s)

    async def _learn(self) -> None:
        """Names behind the numbers that this node gives to sets of names."""
        while True:
            await self._unnamed.wait()
            with suppress(BusError, msgspec.MsgspecError):
                answer = await self.rt.request(NAME_SETS, b"", ASK_S)
                sets = msgspec.msgpack.decode(answer, type=NameSetsReply).sets
                if sets != self.book.named:
                    self.book.named = {**self.book.named, **sets}
                    self.book.news()
                    self.flows.news()
                    self.kernel.some.set()
            await asyncio.sleep(NAMES_AGAIN_S)
            self._unnamed.clear()

    async def _identify(self) -> None:
        """Processes behind ends, as the node's sensor knows them."""
        while True:
            await self._unidentified.wait()
            self._unidentified.clear()
            asked, self.origins.asked = tuple(self.origins.asked.values())[:ASK_AT_ONCE], {}
            try:
                question = msgspec.msgpack.encode(ProcessesRequest(asked=asked))
                answer = await self.rt.request(WHO, question, ASK_S)
                self.origins.learn(msgspec.msgpack.decode(answer, type=ProcessesReply).found)
            except (BusError, msgspec.MsgspecError):
                self.origins.unheard()
            self.flows.news()
            self.kernel.some.set()

    # losses -------------------------------------------------------------------------------------------

    async def _count(self) -> None:
        while True:
            self.origins.look()
            await asyncio.sleep(LOOK_S)
            self._losses()
            self._remember()

    def _remember(self) -> None:
        """For the next process: what of the proxies' records has been heard."""
        state = msgspec.json.encode(self.heard.state())
        if state != self._remembered:
            self._remembered = state
            with suppress(OSError):
                self._state.write_bytes(state)

    def _losses(self) -> None:
        """Bring the counts up to date."""
        for cause, name, count in (
            ("reader", "overrun", self.kernel.overrun),
            ("reader", "foreign", self.kernel.foreign),
            ("l7", "l7", self.heard.lost),
        ):
            more = count - self._counted[name]
            self._counted[name] = count
            if more > 0:
                self.lost[cause] += more
                if cause == "reader":
                    self._settled(more)
        if self._account is not None and self.kernel.reading:
            with suppress(BpfError):
                _, dropped = self.kernel.counters()
                self.lost["ring"] += dropped - self._account.dropped
                self._account.drop(dropped)

    def _settled(self, events: int) -> None:
        if self._account is not None:
            self._account.settle(events)


def gauges(keeper: Keeper) -> Mapping[str, tuple[str, Callable[[], float]]]:
    """What ``/metrics`` says beside what every service does."""
    return {
        "seen": ("Flows seen since the start", lambda: keeper.ring.seen),
        "held": ("Flows in memory", lambda: keeper.ring.held),
        "stored": ("Flows stored on the stream", lambda: keeper.publisher.stored),
        "followers": ("Clients of the observer that follow", lambda: keeper.observed.source.following),
        "told": ("Flows told to clients of the observer", lambda: keeper.observed.observer.told),
        "waiting": ("Flows that wait to be stored", lambda: keeper.publisher.waiting_rows),
        **{
            f"lost_{cause}": (f"Flows lost: {cause}", partial(keeper.lost.__getitem__, cause))
            for cause in CAUSES
        },
    }
