"""``cirri-ipam``: read this file to see what the service is made of."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import json

from cirri.addresses import InvalidPools, Pools, capacity, cluster_pools
from cirri.addresses.strays import refuse_strays
from cirri.ipam import SERVICE, balancers
from cirri.ipam.assign import assign
from cirri.kv import BusError
from cirri.kv.news import News
from cirri.model import NODES, POD_CIDRS, RESOURCES, PodCIDRs, resource_key
from cirri.model.config import CONFIG, config_data
from cirri.runtime import Runtime, run


async def serve(rt: Runtime) -> None:
    """Assign ranges until cancelled."""
    config = rt.table(RESOURCES, CONFIG)
    nodes = rt.table(RESOURCES, resource_key("Node"))
    reports = rt.table(NODES)
    publisher = rt.publisher(POD_CIDRS)
    pools: Pools | None = None
    error = ""
    current: dict[str, PodCIDRs] = {}

    async def status(_: bytes) -> bytes:
        blocks = {f"ipv{pool.version}": capacity(pool) for pool in pools.enabled} if pools else {}
        errors = {each.node: each.error for each in current.values() if each.error}
        return json.encode({"config_error": error, "nodes": len(current), "blocks": blocks, "errors": errors})

    await rt.handle("status", status)
    rt.tasks.create_task(balancers.run(rt))
    await publisher.start()
    current = {each.node: each for each in publisher.stored.values()}
    inputs = News({"config": config, "nodes": nodes, "reports": reports})
    await inputs.next()

    def lacking() -> float:
        return sum(1 for each in current.values() if each.error)

    count(rt, {"nodes_without_range": ("Nodes that lack a range", lacking)})
    while True:
        try:
            configured = cluster_pools(config_data(config))
            refuse_strays(configured, (cidr for each in current.values() for cidr in each.cidrs))
            pools, error = configured, ""
        except InvalidPools as refused:
            if error != str(refused):
                rt.log.warning("pools refused", error=str(refused))
            error = str(refused)
        rt.ready("pools", not error, error)
        names = {resource.name for resource in nodes.values()}
        wanted = assign(
            pools.enabled if pools else (), names, {each.node: each for each in reports.values()}, current
        )
        if pools is None:
            wanted = {n: PodCIDRs(node=n, cidrs=each.cidrs, error=error) for n, each in wanted.items()}
        for node in sorted(wanted):
            if wanted[node] != current.get(node):
                rt.log.info("ranges", node=node, cidrs=wanted[node].cidrs, error=wanted[node].error)
        current = wanted
        try:
            await publisher.replace(current.values())
        except BusError as failed:
            rt.log.warning("bus refuses", error=str(failed))
        await inputs.next()


def count(rt: Runtime, gauges: dict[str, tuple[str, Callable[[], float]]]) -> None:
    """Add *gauges* to the metrics; imported here, not at the start."""
    from cirri.runtime.gauges import Gauges

    rt.metrics.register(Gauges(SERVICE.name, gauges))


def main() -> None:
    """Entry point."""
    run(SERVICE, serve)


if __name__ == "__main__":
    main()
