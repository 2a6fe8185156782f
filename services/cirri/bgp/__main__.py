"""``cirri-bgp``: read this file to see what the service is made of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from cirri.bgp import DRAIN, PEERS, POLICIES, ROUTES, SERVICE, kernel, statuses
from cirri.bgp.apply import Application
from cirri.bgp.asked import Asked
from cirri.bgp.gobgp import GoBGP
from cirri.bgp.gobgpd import SOCKET
from cirri.bgp.objects import ADVERTISEMENT, CLUSTER, LEGACY, NODE, OVERRIDE, PEER, Facts, World
from cirri.bgp.wanted import Decision, decide
from cirri.errors import CirriError
from cirri.kv import Table
from cirri.kv.news import News
from cirri.loadbalancer import service_of
from cirri.model import NODES, POD_CIDRS, RESOURCES, Resource, resource_key
from cirri.model.bgp import Drain
from cirri.model.bucket import token
from cirri.model.config import CONFIG, config_data
from cirri.netlink.errors import NetlinkRefused
from cirri.runtime import Runtime, run

DRAINED = "bgp.drain"
"""In the state directory: how the node is drained."""
BEGUN = "bgp.announced"
"""In the run directory, which a reboot empties: routers may have routes of this node."""
SECRETS_NAMESPACE, DEFAULT_NAMESPACE = "bgp-secrets-namespace", "kube-system"
LOOK_S, RETRY_S = 5.0, 0.1
"""How often the speaker is compared with what it is to be though nothing is known to have changed."""
GATHER_S = 0.02
"""After a change, so that a file of many objects is looked at once."""
CLUSTER_KINDS = (CLUSTER, PEER, ADVERTISEMENT, NODE, OVERRIDE, LEGACY)


class Announcer:
    """Has the node's speaker be what the objects say."""

    def __init__(self, rt: Runtime) -> None:
        settings = rt.settings
        self.rt, self.node = rt, settings.node
        self.gobgp = GoBGP(settings.run_dir / SOCKET)
        self.application = Application(self.gobgp)
        self.decision, self.error = Decision(), "nothing is known yet"
        self.moved, self.applied = asyncio.Event(), asyncio.Event()
        """Something has to be looked at; the speaker is what ``decision`` says."""
        self.objects = {kind: rt.table(RESOURCES, resource_key(kind)) for kind in CLUSTER_KINDS}
        self.errors = 0
        self._tables: dict[str, Table[Any]] = {
            "nodes": rt.table(RESOURCES, resource_key("Node")),
            "services": rt.table(RESOURCES, resource_key("Service", "*")),
            "slices": rt.table(RESOURCES, resource_key("EndpointSlice", "*")),
            "secrets": rt.table(RESOURCES, resource_key("Secret", "*")),
            "config": rt.table(RESOURCES, CONFIG),
            "cidrs": rt.table(POD_CIDRS),
            "statuses": rt.table(NODES),
        }
        self._drain_file, self._begun = settings.state_dir / DRAINED, settings.run_dir / BEGUN
        self._facts = Facts()
        self.drain: Drain = self._drained()

    @property
    def deciding(self) -> dict[str, Table[Any]]:
        """What conditions of objects depend on, beside the objects themselves."""
        return {name: self._tables[name] for name in ("nodes", "secrets", "config")}

    async def run(self) -> None:
        """Until cancelled."""
        news = News({**self._tables, **self.objects})
        # What is not known yet must not be taken for what nobody wants.
        await news.next()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._hear(news))
            tasks.create_task(self._watch())
            tasks.create_task(statuses.run(self))
            await self._keep()

    def world(self) -> World:
        """Everything that decides, as it is now."""
        tables = self._tables
        slices: dict[tuple[str, str], list[Resource]] = {}
        for each in tables["slices"].values():
            slices.setdefault(service_of(each), []).append(each)
        namespace = config_data(tables["config"]).get(SECRETS_NAMESPACE) or DEFAULT_NAMESPACE
        given = tables["cidrs"].get(token(self.node))
        reports = tuple(tables["statuses"].values())
        own = next((each.pod_cidrs for each in reports if each.node == self.node), ())
        return World(
            self.node,
            {each.name: each for each in tables["nodes"].values()},
            tuple(self.objects[CLUSTER].values()),
            {each.name: each for each in self.objects[PEER].values()},
            tuple(self.objects[ADVERTISEMENT].values()),
            {each.name: each for each in self.objects[OVERRIDE].values()},
            tuple(self.objects[LEGACY].values()),
            {each.name: each for each in tables["secrets"].values() if each.namespace == namespace},
            tuple(tables["services"].values()),
            slices,
            tuple(given.cidrs) if given else own,
            reports,
            self._facts,
            self.drain,
        )

    def set_drain(self, how: Drain) -> None:
        """Drain the node, or end that; it stays over restarts."""
        draft = self._drain_file.with_suffix(".draft")
        draft.write_text(how)
        draft.rename(self._drain_file)
        self.drain = how
        self.applied.clear()
        self.moved.set()

    def _drained(self) -> Drain:
        with suppress(OSError):
            text = self._drain_file.read_text()
            return text if text in ("withdraw", "graceful-shutdown") else ""  # type: ignore[return-value]
        return ""

    async def _hear(self, news: News) -> None:
        while True:
            self.moved.set()
            await news.next()
            await asyncio.sleep(GATHER_S)
            news.take()

    async def _watch(self) -> None:
        """Look whenever a session changes, and when the speaker is another one."""
        while True:
            with suppress(CirriError):
                async for _ in self.gobgp.watch():
                    self.moved.set()
            self.application.forget()
            self.moved.set()
            await asyncio.sleep(RETRY_S)

    async def _keep(self) -> None:
        while True:
            self.moved.clear()
            await self._apply()
            with suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S if self.error else LOOK_S):
                    await self.moved.wait()

    async def _apply(self) -> None:
        with suppress(NetlinkRefused):
            self._facts = kernel.facts()
        drain = self.drain
        decision = decide(self.world())
        try:
            done = await self.application.apply(decision.speaker, restarting=self._begun.exists())
        except CirriError as error:
            self.application.forget()
            if str(error) != self.error:
                self.rt.log.warning("the speaker is not what it is to be", error=str(error))
            self.error, self.decision = str(error), decision
            self.errors += 1
            self.rt.ready("speaker", decision.speaker is None, str(error))
            await asyncio.sleep(RETRY_S)
            return
        if decision.speaker is None:
            self._begun.unlink(missing_ok=True)
        else:
            self._begun.touch()
        if done:
            fields = {name: getattr(done, name) for name in ("started", "peers", "announced", "withdrawn")}
            self.rt.log.info("speaker", config=decision.config, **fields)
        if decision.problems != self.decision.problems:
            self.rt.log.warning("problems", problems=list(decision.problems))
        self.error, self.decision = "", decision
        self.rt.ready("speaker", True)
        if drain == self.drain:
            self.applied.set()


def gauges(announcer: Announcer) -> Mapping[str, tuple[str, Callable[[], float]]]:
    """What ``/metrics`` says beside what every service does."""

    def speaker(count: Callable[..., int]) -> Callable[[], float]:
        return lambda: count(announcer.decision.speaker) if announcer.decision.speaker else 0

    return {
        "peers": ("Sessions that are wanted", speaker(lambda s: len(s.peers))),
        "routes": ("Prefixes that are announced", speaker(lambda s: len(s.routes))),
        "problems": ("Problems of the node's BGP objects", lambda: len(announcer.decision.problems)),
        "reconcile_errors": ("Times that the speaker did not do as told", lambda: announcer.errors),
        "drained": ("1 while the node is drained", lambda: bool(announcer.drain)),
    }


async def serve(rt: Runtime) -> None:
    """Announce until cancelled."""
    announcer = Announcer(rt)
    asked = Asked(announcer)
    for name, work in (
        (PEERS, asked.peers),
        (ROUTES, asked.routes),
        (POLICIES, asked.policies),
        (DRAIN, asked.drain),
    ):
        await rt.handle(name, work)

    def count() -> None:
        from cirri.runtime.gauges import Gauges

        rt.metrics.register(Gauges(SERVICE.name, gauges(announcer)))

    asyncio.get_running_loop().call_later(1.0, count)  # imported after what is urgent
    try:
        await announcer.run()
    finally:
        await announcer.gobgp.close()


def main() -> None:
    """Entry point."""
    run(SERVICE, serve)


if __name__ == "__main__":
    main()
