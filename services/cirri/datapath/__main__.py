"""``cirri-datapath``: read this file to see what the service is made of."""

import asyncio
import sys
import time
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

import msgspec

from cirri.datapath import SERVICE, accelerate, attach, routes
from cirri.datapath.bus import bus_place
from cirri.datapath.cni import CniServer
from cirri.datapath.configured import Configured
from cirri.datapath.established import remember
from cirri.datapath.features import features
from cirri.datapath.host import Firewall, Uplink
from cirri.datapath.kernel import Kernel
from cirri.datapath.lifecycle import Endpoints
from cirri.datapath.nat import NatTable
from cirri.datapath.overlay import realize
from cirri.datapath.regenerate import Local
from cirri.datapath.report import Reporter
from cirri.datapath.store import Store
from cirri.datapath.sync import Sync
from cirri.datapath.views import Views
from cirri.layout import CT
from cirri.maps import BpfMap, open_pinned
from cirri.model import ACKS, ENDPOINTS, NODES, NodeStatus
from cirri.model.config import config_data
from cirri.model.request import EndpointConfigReply, EndpointConfigRequest, NameSetsReply
from cirri.proxies import SOCKET, ProxiesServer, Serving
from cirri.runtime import Runtime, run

if TYPE_CHECKING:
    from cirri.datapath.pressure import MapPressure

ROUTES_S = 30.0
"""How often routes are compared with the kernel's, which forgets them when a device goes down."""
UNCERTAIN_S = 1.0
"""How often it is asked whether every node has said what it has; that alone is no news."""
SWITCH_S = 0.0005
"""How long news may wait for a thread that computes, such as one that sweeps a large map; Python would let
it wait for ten times as long."""
STATUS_S = 0.05
"""How long a change of the node's status may wait, so that a hundred pods do not make a hundred of them."""


async def serve(rt: Runtime) -> None:
    """Adopt what the kernel has, follow the tables, answer container runtimes."""
    settings, log = rt.settings, rt.log
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    views = Views.of(rt.table, settings.node)
    store = Store(settings.state_dir / "endpoints")
    reporter = Reporter(
        settings.node,
        endpoints=rt.publisher(ENDPOINTS),
        nodes=rt.publisher(NODES),
        acks=rt.publisher(ACKS),
        views=views,
        store=store,
        log=log,
    )
    configured = Configured(settings.state_dir / "limits.json")
    node = await asyncio.to_thread(attach.prepare, settings, await configured.begin(views.config))
    for fault in node.faults:
        log.warning("node", fault=fault)
    kernel = Kernel(settings.bpffs)
    kernel.runtime.uplink(node.uplink)
    if not kernel.runtime.traces:
        kernel.runtime.trace(configured.tracing)
    connections = open_pinned(settings.bpffs, CT)
    nat = NatTable(settings.bpffs)
    node.tunnel = kernel.runtime.value.tunnel_ifindex

    def status() -> NodeStatus:
        return NodeStatus(
            node=settings.node,
            addresses=node.addresses,
            pod_cidrs=endpoints.cidrs,
            addresses_used=endpoints.pool.used(),
            addresses_total=endpoints.pool.total(),
            errors=(
                *node.faults,
                *endpoints.faults,
                *route_faults,
                *sync.faults(),
                *nat.pressure.faults(),
                *filter(None, (configured.fault,)),
            ),
            features=node.features
            | features(sync.balancer.config, node.features, node.addresses)
            | {
                "host firewall": sync.host.feature,
                "routing": sync.overlay.feature,
                "xdp acceleration": sync.accelerator.feature,
                "masquerading": sync.masquerade.feature,
            },
        )

    def look() -> None:
        now = status()
        if sync.book.here(now):
            kernel.runtime.next_epoch()
        reporter.status(now)

    def stepped() -> None:
        reporter.acknowledge(sync.policy_revision, sync.resources_revision)
        looking.set()

    async def follow_status() -> None:
        while True:
            await looking.wait()
            await asyncio.sleep(STATUS_S)
            looking.clear()
            look()

    async def follow_ranges() -> None:
        async for _ in views.cidrs.changes():
            endpoints.note_cidrs()
            sync.routes_moved.set()
            look()

    async def follow_limits() -> None:
        async for _ in views.config.changes():
            if configured.note(config_data(views.config)):
                look()
            kernel.runtime.trace(configured.tracing)

    async def follow_routes() -> None:
        before, looked = routes.Wanted(), 0.0
        sync.routes_moved.set()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(ROUTES_S if before.certain else UNCERTAIN_S):
                    await sync.routes_moved.wait()
            sync.routes_moved.clear()
            wanted = routes.Wanted(
                node.uplink,
                tunnel=sync.overlay.index,
                sources=node.addresses,
                ways=attach.ways(sync.book.remote().values(), tunnel=bool(sync.overlay.index)),
                refused=frozenset((*endpoints.pool.cidrs, *sync.regenerator.config.services)),
                certain=sync.book.certain,
            )
            if wanted != before or time.monotonic() > looked + ROUTES_S:
                route_faults[:] = await asyncio.to_thread(routes.realize, wanted, before)
                before, looked = wanted, time.monotonic()
            await endpoints.resize()

    async def sweep_nat() -> None:
        await asyncio.sleep(configured.now.sweep_s)
        await asyncio.to_thread(import_module, "cirri.datapath.pressure")  # which takes a while
        pressure = count(rt, kernel, connections, nat)
        while True:
            if await asyncio.to_thread(nat.sweep, time.monotonic_ns()):
                look()
            await asyncio.to_thread(pressure.look)
            await asyncio.sleep(configured.now.sweep_s)

    async def configure(payload: bytes) -> bytes:
        request = msgspec.msgpack.decode(payload, type=EndpointConfigRequest)
        known = sync.configure(request.endpoint, request.audit)
        error = "" if known else f"node {settings.node} has no endpoint {request.endpoint}"
        return msgspec.msgpack.encode(EndpointConfigReply(error=error))

    async def name_sets(_: bytes) -> bytes:
        return msgspec.msgpack.encode(NameSetsReply(sets=sync.news.sets()))

    def local_endpoints() -> list[Local]:
        return [*sync.regenerator.locals.values(), *filter(None, (sync.host.local,))]

    async def number(keys: tuple[str, ...]) -> int:
        return await sync.news.number(keys)

    def serving(report: Serving) -> None:
        sync.news.serving(report)

    route_faults: list[str] = []
    looking = asyncio.Event()
    proxies = ProxiesServer(settings.run_dir / SOCKET, number=number, serving=serving)
    sync = Sync(
        settings.node,
        settings.cluster,
        views,
        kernel=kernel,
        changed=reporter.changed,
        removed=reporter.removed,
        report=stepped,
        connected=lambda: rt.bus.connected,
        firewall=Firewall(
            Uplink(node.uplink, node.features.get("uplink", ""), node.mac),
            await asyncio.to_thread(bus_place, settings.nats_url),
            lambda: remember(connections, node.addresses, kernel.runtime.value.epoch),
        ),
        tunnel=lambda port: realize(node, port),
        accelerate=lambda wanted: accelerate.realize(node, settings.bpffs, wanted),
        publish=proxies.publish,
        state_dir=settings.state_dir,
        log=log,
    )
    endpoints = Endpoints(
        sync,
        store,
        node,
        nat,
        bpffs=settings.bpffs,
        cidrs_file=settings.state_dir / "podcidrs.json",
        log=log,
    )
    endpoints.adopt()
    look()
    server = CniServer(endpoints, settings.run_dir / "cni.sock", log)
    listening, told = await server.start(), await proxies.start()
    await rt.handle("endpoint-config", configure)
    await rt.handle("name-sets", name_sets)
    rt.ready("datapath", ok=True)
    log.info("realized", endpoints=len(sync.regenerator.locals), uplink=node.features.get("uplink", ""))
    async with listening, told, asyncio.TaskGroup() as tasks:
        await sync.run(tasks)
        await reporter.run(tasks, local_endpoints, settings.run_dir)
        tasks.create_task(follow_ranges())
        tasks.create_task(follow_status())
        tasks.create_task(follow_limits())
        tasks.create_task(follow_routes())
        tasks.create_task(endpoints.bury())
        tasks.create_task(endpoints.quicken())
        tasks.create_task(endpoints.sweep_connections(lambda: configured.now.sweep_s))
        tasks.create_task(sweep_nat())
        tasks.create_task(server.drain_queue())


def count(rt: Runtime, kernel: Kernel, connections: BpfMap[Any, Any], nat: NatTable) -> "MapPressure":
    """Add the maps' limits to the metrics; imported here, after everything is in force."""
    from cirri.datapath.pressure import MapPressure
    from cirri.runtime.gauges import Gauges

    pressure = nat.pressure
    gauges = {
        "nat_entries": ("Entries of NAT in use, each 30 s", lambda: pressure.used),
        "nat_fill": ("Share of NAT's entries in use", lambda: pressure.fill),
        "nat_no_port": ("Packets for which NAT found no port", lambda: pressure.failed),
    }
    rt.metrics.register(Gauges(SERVICE.name, gauges))
    found = MapPressure(kernel, connections, nat)
    rt.metrics.register(found)
    return found


def main() -> None:
    """Be the service."""
    sys.setswitchinterval(SWITCH_S)
    run(SERVICE, serve)


if __name__ == "__main__":
    main()
