"""``cirri-kubernetes`` in a cluster that has an API server."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from cirri.kubernetes.bridge import reports
from cirri.kubernetes.bridge.bridge import Bridge
from cirri.kubernetes.bridge.connect import Client
from cirri.kubernetes.bridge.definitions import install
from cirri.kubernetes.bridge.gauges import Gauges
from cirri.kubernetes.bridge.telling import Telling
from cirri.kubernetes.bridge.writer import Writer
from cirri.kubernetes.cluster import named
from cirri.kubernetes.state import Key, Refused
from cirri.manifests.api import Action, ApplyReply, ApplyRequest, Result
from cirri.model import CONDITIONS, ENDPOINTS, IDENTITIES, NODES, RESOURCES, Resource
from cirri.runtime import Runtime

LOOK_S = 1.0
"""How often it is said how the watches are."""
OWNER = "objects of this cluster are held by its API server; use kubectl"


async def serve(rt: Runtime, where: str) -> None:
    """Keep bucket ``resources`` like the API server that *where* leads to, and tell it what becomes of it."""
    bucket = rt.publisher(RESOURCES)
    rt.ready("published", ok=False, why="the objects of the API server are not in the bucket yet")
    client = await Client.open(where)
    try:
        await bucket.start()
        writer = Writer(client, rt.log.warning)
        late: list[Telling] = []  # the bridge tells it, and it looks things up in the bridge

        def noted(key: Key, resource: Resource | None) -> None:
            for each in late:
                each.noted(key, resource)

        def refused(key: Key, why: str) -> None:
            for each in late:
                each.refused(key, why)

        bridge = Bridge(client, bucket, dict(bucket.stored), rt.log.warning, noted=noted, refused=refused)
        late.append(Telling(client, writer, bridge.mirror, bucket.stored))
        rt.metrics.register(Gauges(bridge, writer))
        rt.log.info("follows an API server", host=client.host, known=len(bridge.mirror))
        await rt.handle("apply", Statuses(writer, late[0]).apply)
        for name in ("delete", "confirm", "rollback"):
            await rt.handle(name, _refuse)
        tables = [rt.table(each, needed=False) for each in (CONDITIONS, ENDPOINTS, IDENTITIES, NODES)]
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(install(client, rt.log.warning))
            tasks.create_task(bridge.run())
            tasks.create_task(writer.run())
            tasks.create_task(late[0].follow(*tables))
            while True:
                _say(rt, bridge)
                await asyncio.sleep(LOOK_S)
    finally:
        await client.close()


class Statuses:
    """Answers requests that change a status: it is written to the API server, and comes back by its watch."""

    def __init__(self, writer: Writer, telling: Telling) -> None:
        self._writer, self._telling = writer, telling

    async def apply(self, payload: bytes) -> bytes:
        """Answer an :class:`ApplyRequest`."""
        try:
            request = msgspec.msgpack.decode(payload, type=ApplyRequest)
            if not request.status_only:
                return await _refuse(payload)
            objects = [named(i, each) for i, each in enumerate(request.objects)]
        except (msgspec.MsgspecError, UnicodeDecodeError, Refused) as error:
            return msgspec.msgpack.encode(ApplyReply(error=str(error)))
        return msgspec.msgpack.encode(ApplyReply(results=tuple(map(self._one, objects))))

    def _one(self, resource: Resource) -> Result:
        status: dict[str, Any] = resource.manifest["status"]
        now = self._telling.object(resource.kind, resource.namespace, resource.name)
        new = now is not None and (now.manifest.get("status") or {}) != status
        if new:
            self._writer.want(reports.status(resource, status), again=True)
        action: Action = "configured" if new else "unchanged"
        return Result(kind=resource.kind, namespace=resource.namespace, name=resource.name, action=action)


def _say(rt: Runtime, bridge: Bridge) -> None:
    """Ready means that the bucket is whole.  A server that is away later is no reason to restart."""
    errors = "; ".join(f"{kind}: {why}" for kind, why in sorted(bridge.errors.items())[:3])
    whole = bridge.mirror.complete.is_set()
    rt.ready("published", ok=whole, why="" if whole else f"not every kind was read yet. {errors}")


async def _refuse(_: bytes) -> bytes:
    return msgspec.msgpack.encode(ApplyReply(error=OWNER))
