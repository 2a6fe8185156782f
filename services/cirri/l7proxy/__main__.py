"""``cirri-l7proxy``: read this file to see what the service is made of."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from cirri.kv.news import News
from cirri.l7proxy import LISTENERS, RULES, SERVICE, access, sampling, secrets, status
from cirri.l7proxy.bootstrap import ADMIN_SOCKET, XDS_SOCKET
from cirri.l7proxy.ipcache import Ipcache
from cirri.l7proxy.listening import Report, report
from cirri.l7proxy.messages import LISTENER_TYPE, ROUTE_TYPE, SECRET_TYPE
from cirri.l7proxy.resources import Wanted, named_secrets, wanted
from cirri.l7proxy.server import XdsServer
from cirri.l7proxy.session import Refusal
from cirri.l7proxy.vault import Vault
from cirri.model import RESOURCES, resource_key
from cirri.model.request import L7Listeners, L7Rules
from cirri.netlink.sockets import listening_tcp
from cirri.proxies import SOCKET, NodeProxies, ProxiesClient
from cirri.runtime import Runtime, run
from cirri.runtime.budget import Budget
from cirri.runtime.records import RecordStream

CACHE, VAULT = "l7proxy.proxies", "l7proxy.secrets"
LOOK_S, HURRY_S = 0.5, 0.01
"""How often the kernel is asked what listens; while something is to begin to."""
SETTLE_S = 0.005
"""How long Envoy's answer to a change of rules is waited for before anybody is told what serves."""
PATIENCE_S = 3.0
"""How long after the start an Envoy that listens may take to connect, before it counts as gone."""


class L7Proxy:
    """Has Envoy know what the datapath service says, and the datapath service what Envoy took."""

    def __init__(self, rt: Runtime) -> None:
        self.rt = rt
        settings = rt.settings
        self.client = ProxiesClient(settings.run_dir / SOCKET, settings.state_dir / CACHE)
        self.server = XdsServer(settings.run_dir / XDS_SOCKET, moved=self._moved, records=self._logged)
        self.records = RecordStream(rt)
        self.node: NodeProxies | None = None
        self.wanted = Wanted({})
        self.reported = Report()
        self.requests = 0
        self._ipv6 = _has_ipv6()
        self._vault = Vault(settings.run_dir / VAULT)
        self._secrets = self._vault.read()
        self._rejected: dict[tuple[int, str], str] = {}
        self._spoiled: set[str] = set()
        self._look = asyncio.Event()
        self._ipcache = Ipcache(settings.bpffs)
        self._facts = access.Facts(settings.node, {}, self._ipcache.identity)
        self._budget = Budget(sampling.RECORDS_PER_S)
        self._since = time.monotonic()

    async def run(self) -> None:
        """Until cancelled; all of it goes on without the bus."""
        await self.server.start()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.client.run())
                tasks.create_task(self.records.run())
                tasks.create_task(self._follow_secrets())
                tasks.create_task(self._follow())
                tasks.create_task(self._count_untold())
                await self._watch()
        finally:
            await self.server.close()

    async def _follow(self) -> None:
        """What the datapath service says."""
        self.rt.ready("told", False, "the datapath service has said nothing yet")
        async for node in self.client.changes():
            self.rt.ready("told", True)
            self.node = node
            rules = {(one.port, one.rules) for one in node.listeners}
            self._rejected = {key: why for key, why in self._rejected.items() if key in rules}
            by_address = {address: one for one in node.endpoints for address in one.addresses}
            self._facts = self._facts._replace(endpoints=by_address)
            self._tell()

    async def _follow_secrets(self) -> None:
        """What Secrets hold, as soon as all are known: until then those that were kept count."""
        table = self.rt.table(RESOURCES, resource_key("Secret", "*"), needed=False)
        news = News({"secrets": table})
        while True:
            await news.next()
            self._secrets = secrets.read(table.values())
            if self.node is not None:
                self._tell()

    def _tell(self) -> None:
        assert self.node is not None
        self.wanted = wanted(
            self.node, self._secrets, ipv6=self._ipv6, rejected=self._rejected, spoiled=self._spoiled
        )
        names = named_secrets(self.node)
        with suppress(OSError):
            self._vault.keep({name: held for name, held in self._secrets.items() if name in names})
        self.server.want(self.wanted)
        said = [f"listener {port}: {why}" for port, why in sorted(self.wanted.problems.items())]
        said += self.wanted.faults
        self.rt.ready("rules", not said, "; ".join(said[:3]))
        self._look.set()

    def _moved(self, refusal: Refusal | None) -> None:
        """An Envoy took something, or not, or is gone."""
        self._look.set()
        if refusal is None:
            return
        self.rt.log.error("envoy rejects", type=refusal.type, name=refusal.name, why=refusal.why)
        if self.node is None:
            return
        if refusal.type == SECRET_TYPE:
            self._spoiled.add(refusal.version)
        for one in self.node.listeners:
            current = self.wanted.resources[refusal.type].get(refusal.name)
            if refusal.type not in (LISTENER_TYPE, ROUTE_TYPE) or str(one.port) != refusal.name:
                continue
            if current and current.version == refusal.version:
                # What was in force before may allow what is no longer allowed.
                self._rejected.setdefault((one.port, one.rules), refusal.why)
        self._tell()

    async def _watch(self) -> None:
        """Have the datapath service know what serves."""
        looked, listening = 0.0, set[tuple[str, int]]()
        while True:
            pause_s = HURRY_S if self._pending() and self.server.sessions else LOOK_S
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._look.wait()
            if not self._pending():
                await asyncio.sleep(SETTLE_S)
            self._look.clear()
            if self.node is None:
                continue
            changes = self._pending() or not self.server.sessions
            if changes or time.monotonic() - looked > LOOK_S:
                looked, listening = time.monotonic(), listening_tcp()
            now = report(self.wanted, self.server.sessions, listening, self.reported, ipv6=self._ipv6)
            lives = any(port in self.wanted.ports for _, port in listening)
            waiting = not self.server.sessions and time.monotonic() - self._since < PATIENCE_S
            if lives and waiting and not self.reported.ports:
                continue
            if now != self.reported or self._since:
                self._since = 0.0
                self.reported = now
                self.client.serving(now.ports, dict(now.failed))
            absent = len(self.wanted.ports - now.ports)
            self.rt.ready("envoy", bool(self.server.sessions), "no Envoy is connected")
            self.rt.ready("listeners", not absent, f"{absent} listeners do not serve")

    def _pending(self) -> Collection[int]:
        """Ports that are to be served and are not yet, as far as anybody was told."""
        return self.wanted.ports - self.reported.ports - self.wanted.refused.keys()

    def _logged(self, log: str, message: bytes) -> None:
        """Access records from Envoy; what there is no time for is counted: of TLS, or of a second Envoy."""
        try:
            count = access.count(message)
            self.requests += count
            if not self._budget.spend(count):
                self.records.lose(2 * count)
                return
            self.records.add(access.records(access.Source.of(log), message, self._facts))
        except ValueError as error:
            self.rt.log.error("access records cannot be read", log=log, error=str(error))

    async def _count_untold(self) -> None:
        """What Envoy made no records of."""
        untold = sampling.Untold()
        while True:
            more = untold.more(await sampling.untold(self.rt.settings.run_dir / ADMIN_SOCKET))
            self.requests += more
            self.records.lose(2 * more)
            await asyncio.sleep(sampling.LOOK_S)

    async def listeners(self, _: bytes) -> bytes:
        """For ``cirri l7 listeners``."""
        told = self.node.listeners if self.node else ()
        found = [status.listener_status(one, self.wanted, self.reported) for one in told]
        return msgspec.msgpack.encode(L7Listeners(envoys=len(self.server.sessions), listeners=tuple(found)))

    async def rules(self, _: bytes) -> bytes:
        """For ``cirri l7 rules``."""
        told = self.node.listeners if self.node else ()
        return msgspec.msgpack.encode(
            L7Rules(rules=tuple(rule for one in told for rule in status.listener_rules(one)))
        )


def _has_ipv6() -> bool:
    try:
        return Path("/proc/sys/net/ipv6/conf/lo/disable_ipv6").read_text().strip() == "0"
    except OSError:
        return False


def gauges(proxy: L7Proxy) -> Mapping[str, tuple[str, Callable[[], float]]]:
    """What ``/metrics`` says beside what every service does."""
    return {
        "envoys": ("Envoys that are connected", lambda: len(proxy.server.sessions)),
        "listeners": ("Listeners that are wanted", lambda: len(proxy.wanted.ports)),
        "listeners_serving": ("Listeners that serve", lambda: len(proxy.reported.ports)),
        "listeners_limited": ("Listeners that allow less than meant", lambda: len(proxy.wanted.problems)),
        "rejections": ("Resources that Envoy rejected", lambda: proxy.server.refusals),
        "requests": ("Requests and connections that Envoy has decided on", lambda: proxy.requests),
        "records_told": ("Records told on the bus", lambda: proxy.records.told),
        "records_lost": ("Records that could not be told", lambda: proxy.records.lost),
    }


async def serve(rt: Runtime) -> None:
    """Be the node's L7 proxy until cancelled."""
    proxy = L7Proxy(rt)
    await rt.handle(LISTENERS, proxy.listeners)
    await rt.handle(RULES, proxy.rules)

    def count() -> None:
        from cirri.runtime.gauges import Gauges

        rt.metrics.register(Gauges(SERVICE.name, gauges(proxy)))

    asyncio.get_running_loop().call_later(1.0, count)  # imported after what is urgent
    await proxy.run()


def main() -> None:
    """Entry point."""
    run(SERVICE, serve)


if __name__ == "__main__":
    main()
