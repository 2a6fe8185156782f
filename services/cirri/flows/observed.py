"""The node's flows for observers: Cirri's own command line, the relay, and clients of the public API."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version

from cirri.flows.policynews import KINDS, PolicyNews
from cirri.flows.rules import REMEMBERED
from cirri.history.ring import Ring
from cirri.hubble.facts import Place
from cirri.hubble.node import NodeServer, RingSource
from cirri.kv.news import News
from cirri.model import NODES, RESOURCES, resource_key
from cirri.model.config import CONFIG, config_data
from cirri.model.observing import observing
from cirri.runtime import Runtime

AGAIN_S = 5.0
"""Between attempts to listen."""


class Observed:
    """Tells the flows of *ring*; whatever is put there is given to :attr:`source`, too."""

    def __init__(self, rt: Runtime, ring: Ring, lost: Mapping[str, int]) -> None:
        self._rt = rt
        self._revisions: dict[tuple[str, str, str], int] = {}
        said = version("cirri")
        self._place = Place(rt.settings.cluster, said, _interface)
        self.source = RingSource(ring, lost, f"cirri {said}")
        self._server = NodeServer(
            self.source,
            rt.settings.node,
            self._place,
            rt.settings.run_dir,
            lambda error: rt.log.error("certificate is not taken", error=str(error)),
        )
        self.observer = self._server.observer

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._serve())
            tasks.create_task(self._happen())

    def revision(self, kind: str, namespace: str, name: str) -> int:
        """Of a policy object as it was last heard of; 0: it never was."""
        return self._revisions.get((kind, namespace, name), 0)

    async def _happen(self) -> None:
        """What becomes of policies."""
        rt, told = self._rt, PolicyNews()
        policies = {kind: rt.table(RESOURCES, resource_key(kind, "*"), needed=False) for kind in KINDS}
        news = News(policies)
        while True:
            changed = await news.next()
            keys = {key for found in changed.values() for key in found}
            known = {
                key: table[key] for kind, table in policies.items() for key in changed[kind] if key in table
            }
            if len(self._revisions) > REMEMBERED:
                self._revisions.clear()
                known |= {key: one for table in policies.values() for key, one in table.items()}
            for key, one in known.items():
                self._revisions[one.kind, one.namespace, one.name] = policies[one.kind].revision_of(key)
            revision = max(table.revision for table in policies.values())
            for event in told.news(keys, known, revision, time.time_ns()):
                self.source.happened(event)

    async def _serve(self) -> None:
        """With what the configuration says, once that is known."""
        rt, server = self._rt, self._server
        config = rt.table(RESOURCES, CONFIG, needed=False)
        nodes = rt.table(NODES, needed=False)
        news = News({"config": config, "nodes": nodes})
        await server.sockets.start()
        try:
            why = ""
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(AGAIN_S if why else None):
                        await news.next()
                data = config_data(config)
                settings, wrong = observing(data)
                self._place.cluster = data.get("cluster-name") or rt.settings.cluster
                server.know(nodes, settings)
                why = await server.sockets.want(settings.listen, settings.tls)
                rt.ready(
                    "observed", not (why or wrong), "; ".join([*map(str, wrong), *([why] if why else [])])
                )
        finally:
            await server.sockets.close()


def _interface(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return ""
