"""Row B7: from a change of a Service's backends on the bus to the map that programs ask, beside many others.

The bus and the datapath service are real; the central services are played by this program, so that the
clock starts at the write into bucket ``resources``.  It stops when the map answers with the new backend.  A
subscriber in a process of its own hears the same changes: what the bus alone takes of that.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

from integration.bench import kubeproxy
from integration.bench.cirri_paths import OBJECTS
from integration.bench.listener import Listener, listening
from integration.bench.machine import BenchError, namespaces, need, run
from integration.bench.pods import pins
from integration.bench.report import Line, Report
from integration.bench.rounds import Effort
from integration.bench.stats import Goal, bootstrap_percentile, ratio_of_medians

from cirri.datapath.balance import Balancer
from cirri.datapath.kernel import Kernel
from cirri.kv import Publisher
from cirri.layout import (
    LB_BACKENDS,
    LB_SERVICES,
    LbBackend,
    LbBackendKey,
    LbService,
    LbServiceKey,
    address16,
)
from cirri.maps import BpfMap, Objects, open_pinned
from cirri.model import Resource, resource_key
from cirri.runtime.main import COLLECT
from cirri.testing.node import Node, node

MANY, MOST, CHANGES = 30_000, 100_000, 300
IPTABLES, NFT = "iptables-restore --noflush", "nft -f"
POLL_S = 0.0001
KNOWN_S, LOADED_S = 10.0, 300.0
AT_ONCE = 1000


def measure(rows: Sequence[str], effort: Effort, report: Report) -> None:
    """Row B7; *effort* of 15 rounds or more means full size."""
    full = effort.rounds >= 15
    many, changes = (MANY, CHANGES) if full else (1000, 20)
    times, heard, load_s = asyncio.run(_real(many, changes))
    loads = {count: _loads(count) for count in ((many, MOST) if full else (many,))}
    peers = _peers(many, changes // 10)
    report.raw[rows[0]] = {
        "seconds": times,
        "heard_s": heard,
        "load_s": load_s,
        "loads": loads,
        "peers": peers,
    }
    report.lines += lines(rows[0], many, times, heard, load_s, loads, peers)


def lines(
    row: str,
    many: int,
    times: Sequence[float],
    heard: Sequence[float],
    load_s: float,
    loads: dict[int, dict[str, float]],
    peers: dict[str, dict[str, Any]],
) -> Iterator[Line]:
    """The row's lines; times in seconds."""
    size = f"{len(times)} changes beside {many} Services"
    late, bus = [each * 1000 for each in times], [each * 1000 for each in heard]
    for name, share, goal in (("p50", 0.5, None), ("p99", 0.99, Goal(at_most=2, unit=" ms"))):
        interval = bootstrap_percentile(late, share)
        limit = f"the bus alone: {bootstrap_percentile(bus, share).median:.2f} ms"
        yield Line(row, f"a backend changes, until the map answers: {name}", size, interval, unit=" ms",
                   goal=goal, limit=limit)  # fmt: skip
    for name, factor in ((IPTABLES, 1 / 400), (NFT, 1 / 65)):
        there = peers[name]["change_s"]
        value = f"peer {bootstrap_percentile(there, 0.5).median * 1000:.1f} ms"
        yield Line(row, f"... p50 / {name}", value, ratio_of_medians(times, there), goal=Goal(at_most=factor))
    yield Line(row, f"all {many} from the bus, as they come", "", _exact(load_s), unit=" s")
    for count, found in loads.items():
        goal = Goal(at_most=150 if count <= MANY else 500, unit=" ms")
        yield Line(row, f"all {count} from the tables to the maps", "", _exact(found["all_s"] * 1000),
                   unit=" ms", goal=goal)  # fmt: skip
        yield Line(
            row, "... of which: the writes to the maps", "", _exact(found["maps_s"] * 1000), unit=" ms"
        )
        yield Line(row, "... the same bytes by bare batches", "", _exact(found["bare_s"] * 1000), unit=" ms")
    for name, found in peers.items():
        yield Line(row, f"all {many} by {name.split()[0]}", "", _exact(found["load_s"] * 1000), unit=" ms")


def _exact(value: float) -> Any:
    return bootstrap_percentile([value], 0.5)


# -- the real path --------------------------------------------------------------


def resources(each: kubeproxy.Cluster, number: int) -> tuple[Resource, Resource]:
    """A Service and its slice, as the kubernetes service publishes them."""
    name = f"svc-{number}"
    spec = {
        "type": "ClusterIP",
        "clusterIP": each.address,
        "clusterIPs": [each.address],
        "ports": [{"port": each.port, "protocol": "TCP", "targetPort": each.backend_port}],
    }
    service = {"metadata": {"name": name, "namespace": "default"}, "spec": spec}
    part = {
        "metadata": {
            "name": f"{name}-x",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "ports": [{"port": each.backend_port, "protocol": "TCP"}],
        "endpoints": [{"addresses": [each.backend], "conditions": {"ready": True}}],
    }
    return (
        Resource(kind="Service", namespace="default", name=name, manifest=service),
        Resource(kind="EndpointSlice", namespace="default", name=f"{name}-x", manifest=part),
    )


class _Maps:
    """What programs would find."""

    def __init__(self, here: Node) -> None:
        self.services: BpfMap[LbServiceKey, LbService] = open_pinned(here.bpffs, LB_SERVICES)
        self.backends: BpfMap[LbBackendKey, LbBackend] = open_pinned(here.bpffs, LB_BACKENDS)

    def answers(self, each: kubeproxy.Cluster) -> bool:
        key = LbServiceKey(address=address16(each.address), port=each.port, protocol=6)
        if (head := self.services.get(key)) is None:
            return False
        found = self.backends.get(LbBackendKey(service=head.id, slot=0))
        return found is not None and found.address == address16(each.backend)

    async def until(self, each: kubeproxy.Cluster, within_s: float) -> float:
        """When the map answered (time.monotonic).  Asked by a thread: an event loop sleeps no less than a
        millisecond."""
        return await asyncio.to_thread(self._until, each, within_s)

    def _until(self, each: kubeproxy.Cluster, within_s: float) -> float:
        began = time.monotonic()
        while not self.answers(each):
            if time.monotonic() > began + within_s:
                raise BenchError(f"the map did not answer for {each.address} within {within_s:.0f} s")
            time.sleep(POLL_S)
        return time.monotonic()


async def _real(many: int, changes: int) -> tuple[list[float], list[float], float]:
    """Seconds of each change until the map says so and until a bare subscriber heard of it, and seconds
    until all Services were in the maps."""
    services = kubeproxy.strangers(many)
    async with AsyncExitStack() as stack:
        here = await stack.enter_async_context(node())
        maps, writer = _Maps(here), here.cluster.writer
        began = time.monotonic()
        for at in range(0, many, AT_ONCE):
            pairs = [resources(each, n) for n, each in enumerate(services[at : at + AT_ONCE], at)]
            for one in (one for pair in pairs for one in pair):
                await writer.post(one)
            await writer.settled()
        for each in services[:: max(1, many // 100)] + services[-1:]:
            await maps.until(each, LOADED_S)
        load_s = time.monotonic() - began
        gc.freeze()  # what this program holds is not what is measured
        with listening(here.nats.url, "$KV.resources.EndpointSlice.>") as listener:
            took = [await _change(maps, writer, listener, services, n) for n in range(changes)]
        return [each for each, _ in took], [each for _, each in took], load_s


async def _change(
    maps: _Maps,
    writer: Publisher[Resource],
    listener: Listener,
    services: Sequence[kubeproxy.Cluster],
    number: int,
) -> tuple[float, float]:
    """Move the backend of one of *services*; seconds until the map says so, and until *listener* heard."""
    at = number * 7919 % len(services)
    old = services[at]
    new = kubeproxy.Cluster(old.address, old.port, f"10.200.{number >> 8}.{number & 255}", old.backend_port)
    _, part = resources(new, at)
    began = time.monotonic()
    await writer.post(part)
    took, heard = await maps.until(new, KNOWN_S) - began, listener.heard() - began
    await asyncio.sleep(0.02)
    return took, heard


# -- all of them ------------------------------------------------------------------


class _Known(dict[str, Any]):
    """A table that is complete."""

    def __init__(self) -> None:
        super().__init__()
        self.ready = asyncio.Event()
        self.ready.set()


@contextmanager
def _collecting() -> Iterator[None]:
    """Garbage is collected as in a service, which does not walk through what was there when it began."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _loads(count: int) -> dict[str, float]:
    """Seconds in which the datapath service's code brings *count* Services from its tables to empty maps."""
    names = ("services", "slices", "pods", "nodes", "node_objects", "config")
    views: Any = SimpleNamespace(**{name: _Known() for name in names})
    for number, each in enumerate(kubeproxy.strangers(count)):
        for table, one in zip((views.services, views.slices), resources(each, number), strict=True):
            table[resource_key(one.kind, one.namespace, one.name, "")] = one
    with pins("svc") as folder, Objects.load(OBJECTS, folder):
        kernel = Kernel(folder)
        balancer = Balancer("node1", views, kernel.services)
        apply, maps_s = kernel.services.apply, [0.0]

        def timed(changes: Any) -> None:
            began = time.monotonic()
            apply(changes)
            maps_s[0] += time.monotonic() - began

        kernel.services.apply = timed  # type: ignore[method-assign]
        with _collecting():
            began = time.monotonic()
            balancer.note_slices(views.slices)
            balancer.note_services(views.services)
            balancer.step()
            all_s = time.monotonic() - began
        maps: tuple[BpfMap[Any, Any], ...] = (kernel.services.services, kernel.services.backends)
        written = [dict(target.items_raw()) for target in maps]
        if len(written[0]) != count:
            raise BenchError(f"{len(written[0])} of {count} Services are in the map: {kernel.services.fault}")
        bare_s = 0.0
        for target, entries in zip(maps, written, strict=True):
            target.clear()
            keys, values = b"".join(entries), b"".join(entries.values())
            began = time.monotonic()
            target.put_many_raw(keys, values)
            bare_s += time.monotonic() - began
        return {"all_s": all_s, "maps_s": maps_s[0], "bare_s": bare_s}


# -- peers ------------------------------------------------------------------------


def _peers(many: int, changes: int) -> dict[str, dict[str, Any]]:
    """Seconds of loading and of each change, by peer."""
    services = kubeproxy.strangers(many)
    restore, nft = need("iptables-restore", "iptables"), (need("nft", "nftables"), "-f", "-")
    found: dict[str, dict[str, Any]] = {}
    for name, load, change, whole, one in (
        (IPTABLES, (restore,), (restore, "--noflush"), kubeproxy.iptables, kubeproxy.iptables_change),
        (NFT, nft, nft, kubeproxy.nft, kubeproxy.nft_change),
    ):
        with namespaces("proxy") as (netns,):
            load_s = _timed(netns, load, whole(services))
            times = []
            for number in range(changes):
                at = number * 7919 % many
                old = services[at]
                new = kubeproxy.Cluster(old.address, old.port, f"10.200.0.{number}", old.backend_port)
                times.append(_timed(netns, change, one(at, new)))
            found[name] = {"load_s": load_s, "change_s": times}
    return found


def _timed(netns: str, command: Sequence[str], text: str) -> float:
    began = time.monotonic()
    run("ip", "netns", "exec", netns, *command, stdin=text)
    return time.monotonic() - began
