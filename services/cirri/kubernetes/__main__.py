"""``cirri-kubernetes``: the manifests on disk, their bucket, and the requests that change them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from uuid import uuid4

from cirri.errors import CirriError
from cirri.kubernetes import SERVICE
from cirri.kubernetes.bridge.where import given
from cirri.kubernetes.cluster import Cluster
from cirri.kubernetes.store import Store
from cirri.model import POD_CIDRS, RESOURCES
from cirri.runtime import Runtime, run

JUDGE_S = 0.1
"""After a change, so that a Service and its endpoints are looked at together."""
TIDY_S = 60.0
"""How often events that are old are looked for."""
RETRY_S = 0.5
"""Between attempts to publish what the bucket lacks."""


async def serve(rt: Runtime) -> None:
    """Be the source of objects, or follow the API server that is."""
    if where := given():
        from cirri.kubernetes.bridge.serving import serve as follow

        await follow(rt, where)
        return
    await _serve_manifests(rt)


async def _serve_manifests(rt: Runtime) -> None:
    """Load, publish everything, then answer requests."""
    bucket = rt.publisher(RESOURCES)
    cluster = Cluster(Store(rt.settings.state_dir), bucket, now=_now, new_uid=lambda: str(uuid4()))
    rt.log.info("manifests loaded", objects=len(cluster.state))
    rt.ready("published", ok=False, why="the stored manifests are not in the bucket yet")
    await bucket.start()
    await _publish(rt, cluster)
    await rt.handle("apply", cluster.apply)
    await rt.handle("delete", cluster.delete)
    await rt.handle("confirm", cluster.confirm)
    await rt.handle("rollback", cluster.rollback)
    rt.tasks.create_task(_undo_in_time(rt, cluster))
    rt.tasks.create_task(_judge(rt, cluster))
    rt.tasks.create_task(_follow_ranges(rt, cluster))
    while True:
        await cluster.behind.wait()
        await _publish(rt, cluster)


async def _publish(rt: Runtime, cluster: Cluster) -> None:
    """Make the bucket whole, however long the bus is away."""
    while True:
        try:
            revision = await cluster.publish()
        except CirriError as error:
            rt.ready("published", ok=False, why=str(error))
            await asyncio.sleep(RETRY_S)
            continue
        rt.ready("published", ok=True)
        rt.log.info("resources published", revision=revision, objects=len(cluster.state))
        return


async def _undo_in_time(rt: Runtime, cluster: Cluster) -> None:
    """Undo each provisional object when its time is up, unless it was confirmed."""
    while True:
        cluster.provisional.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(cluster.due_in_s()):
                await cluster.provisional.wait()
                continue
        try:
            undone = await cluster.undo_due()
        except OSError as error:
            rt.log.error("provisional objects cannot be undone", why=str(error))
            await asyncio.sleep(RETRY_S)
            continue
        for each in undone:
            name = f"{each.namespace}/{each.name}" if each.namespace else each.name
            rt.log.warning("not confirmed in time", kind=each.kind, name=name, action=each.action)


async def _follow_ranges(rt: Runtime, cluster: Cluster) -> None:
    """Which addresses of pods lie behind a node; not known as long as nobody has said so."""
    table = rt.table(POD_CIDRS, needed=False)
    async for _ in table.changes():
        cluster.note_ranges(cidr for each in table.values() for cidr in each.cidrs)


async def _judge(rt: Runtime, cluster: Cluster) -> None:
    """Keep the conditions of Services true, and events no longer than they are news."""
    while True:
        with suppress(TimeoutError):
            async with asyncio.timeout(TIDY_S):
                await cluster.unjudged.wait()
        await asyncio.sleep(JUDGE_S)
        try:
            changes = await cluster.judge()
        except OSError as error:
            rt.log.error("conditions cannot be kept", why=str(error))
            await asyncio.sleep(RETRY_S)
            continue
        for each in changes:
            if each.resource.kind == "Event" and each.written:
                about, event = each.resource.manifest["involvedObject"], each.resource.manifest
                say = rt.log.warning if event["type"] == "Warning" else rt.log.info
                say(event["reason"], service=f"{about['namespace']}/{about['name']}", says=event["message"])


def _now() -> datetime:
    return datetime.now(UTC)


def main() -> None:
    """Run the service."""
    run(SERVICE, serve)


if __name__ == "__main__":
    main()
