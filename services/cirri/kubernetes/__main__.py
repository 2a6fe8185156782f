"""``cirri-kubernetes``: the manifests on disk, their bucket, and two requests."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from uuid import uuid4

from cirri.errors import CirriError
from cirri.kubernetes import SERVICE
from cirri.kubernetes.cluster import Cluster
from cirri.kubernetes.store import Store
from cirri.model import RESOURCES
from cirri.runtime import Runtime, run

RETRY_S = 0.5
"""Between attempts to publish what the bucket lacks."""


async def serve(rt: Runtime) -> None:
    """Load, publish everything, then answer requests."""
    bucket = rt.publisher(RESOURCES)
    cluster = Cluster(Store(rt.settings.state_dir), bucket, now=_now, new_uid=lambda: str(uuid4()))
    rt.log.info("manifests loaded", objects=len(cluster.state))
    rt.ready("published", ok=False, why="the stored manifests are not in the bucket yet")
    await bucket.start()
    await _publish(rt, cluster)
    await rt.handle("apply", cluster.apply)
    await rt.handle("delete", cluster.delete)
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


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def main() -> None:
    """Run the service."""
    run(SERVICE, serve)


if __name__ == "__main__":
    main()
