"""``cirri-kubernetes`` in a cluster that has an API server."""

from __future__ import annotations

import asyncio

import msgspec

from cirri.kubernetes.bridge.bridge import Bridge
from cirri.kubernetes.bridge.connect import Client
from cirri.kubernetes.bridge.definitions import install
from cirri.kubernetes.bridge.gauges import Gauges
from cirri.manifests.api import ApplyReply
from cirri.model import RESOURCES
from cirri.runtime import Runtime

LOOK_S = 1.0
"""How often it is said how the watches are."""
OWNER = "objects of this cluster are held by its API server; use kubectl"


async def serve(rt: Runtime, where: str) -> None:
    """Keep bucket ``resources`` like the API server that *where* leads to, for ever."""
    bucket = rt.publisher(RESOURCES)
    rt.ready("published", ok=False, why="the objects of the API server are not in the bucket yet")
    client = await Client.open(where)
    try:
        await bucket.start()
        bridge = Bridge(client, bucket, dict(bucket.stored), rt.log.warning)
        rt.metrics.register(Gauges(bridge))
        rt.log.info("follows an API server", host=client.host, known=len(bridge.mirror))
        for name in ("apply", "delete", "confirm", "rollback"):
            await rt.handle(name, _refuse)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(install(client, rt.log.warning))
            tasks.create_task(bridge.run())
            while True:
                _say(rt, bridge)
                await asyncio.sleep(LOOK_S)
    finally:
        await client.close()


def _say(rt: Runtime, bridge: Bridge) -> None:
    """Ready means that the bucket is whole.  A server that is away later is no reason to restart."""
    errors = "; ".join(f"{kind}: {why}" for kind, why in sorted(bridge.errors.items())[:3])
    whole = bridge.mirror.complete.is_set()
    rt.ready("published", ok=whole, why="" if whole else f"not every kind was read yet. {errors}")


async def _refuse(_: bytes) -> bytes:
    return msgspec.msgpack.encode(ApplyReply(error=OWNER))
