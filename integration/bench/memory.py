"""Row MEM: resident and proportional memory of each service, idle and with many identities.

The identities are real ones: endpoints of another node, each with labels of its own, are
published, and the identity service allocates a number for every one of them.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
from integration.bench.cluster import Cluster, cluster, eventually, foreign_endpoint
from integration.bench.machine import BenchError
from integration.bench.report import Line, Report
from integration.bench.rounds import Effort
from integration.bench.stats import Goal, Interval

from cirri.kv import Bus, BusTimeout
from cirri.lab.supervisor import NURSERY
from cirri.layout import IPCACHE
from cirri.maps import open_pinned
from cirri.model import ENDPOINTS, IDENTITIES, NODES, NodeStatus

IDENTITIES_WANTED = 10_000
ALLOCATED_S = 120.0
SETTLE_S = 2.0
NODE_LIMIT_MB = 250.0
FAR = "node2"
"""The node whose endpoints are published here: its own datapath service does not run."""
MB = 1 << 20


def measure(rows: Sequence[str], effort: Effort, report: Report) -> None:
    """Row MEM; *effort* of 15 rounds or more means the full number of identities."""
    count = IDENTITIES_WANTED if effort.rounds >= 15 else 100 * effort.rounds
    with cluster(2, without=(f"datapath-{FAR}",)) as made:
        made.wait(asyncio.sleep(SETTLE_S))
        idle = usage(made)
        seconds = made.wait(_publish(made, count))
        made.wait(asyncio.sleep(SETTLE_S))
        full = usage(made)
        died = made.restarted()
    report.raw[rows[0]] = {"idle": idle, "full": full, "identities": count, "seconds": seconds}
    report.failures += [f"{rows[0]}: {sentence}" for sentence in died]
    report.notes.append(
        f"{rows[0]}: {count} identities were allocated and in the node's maps after {seconds:.1f} s"
    )
    report.lines += lines(rows[0], idle, full, count)


def lines(
    row: str, idle: Mapping[str, Mapping[str, float]], full: Mapping[str, Mapping[str, float]], count: int
) -> Iterator[Line]:
    """A line for each service, then the node's sum: of proportional memory, since services share pages."""
    for name, then in full.items():
        before = idle.get(name, {"rss": 0.0, "pss": 0.0})
        value = f"idle {before['rss']:.1f} MB"
        limit = f"proportional: idle {before['pss']:.1f}, then {then['pss']:.1f} MB"
        yield Line(row, f"{name}, {count} identities", value, _exact(then["rss"]), unit=" MB", limit=limit)
    goal = Goal(at_most=NODE_LIMIT_MB, unit=" MB")
    for what, chosen in (
        ("services of one node", _of_node),
        ("all services of a one-node cluster, bus included", _everything),
    ):
        sums = [sum(each["pss"] for name, each in state.items() if chosen(name)) for state in (idle, full)]
        yield Line(row, what, f"idle {sums[0]:.1f} MB", _exact(sums[1]), unit=" MB", goal=goal)


def _of_node(name: str) -> bool:
    return name.endswith("-node1") or name == NURSERY


def _everything(_name: str) -> bool:
    return True


def _exact(value: float) -> Interval:
    return Interval(value, value, value)


def usage(made: Cluster) -> dict[str, dict[str, float]]:
    """Resident and proportional memory by process, MB."""
    return {
        name: parse_rollup(Path(f"/proc/{pid}/smaps_rollup").read_text()) for name, pid in made.pids().items()
    }


def parse_rollup(text: str) -> dict[str, float]:
    """``rss`` and ``pss`` in MB, from the contents of /proc/PID/smaps_rollup."""
    found = {
        key.lower(): int(kib) / 1024
        for key, kib in re.findall(r"^(Rss|Pss):\s+(\d+) kB$", text, re.MULTILINE)
    }
    if found.keys() != {"rss", "pss"}:
        raise BenchError("smaps_rollup has no Rss and Pss")
    return found


async def _publish(made: Cluster, count: int) -> float:
    """Does what the other node would: publishes *count* endpoints, and their identities once they
    are allocated.  Seconds until all of them are in this node's maps.
    """
    account, far = f"datapath-{FAR}", made.topology.host(FAR)
    bus = await Bus.connect(made.topology.nats_url, user=account, password=made.passwords[account])
    start = made.loop.time()
    try:
        nodes, endpoints = bus.publisher(NODES, FAR), bus.publisher(ENDPOINTS, FAR)
        await nodes.start()
        await nodes.replace([NodeStatus(node=FAR, addresses=(far.ipv4, far.ipv6))])
        await endpoints.start()
        wanted = [foreign_endpoint(FAR, number) for number in range(count)]
        async with bus.table(IDENTITIES) as identities:

            async def allocated() -> None:
                if len(identities) < count:
                    raise BenchError(f"{len(identities)} of {count} identities are allocated")

            with suppress(BusTimeout):  # what the bus did not take in time is written all the same
                await endpoints.replace(wanted)
            await eventually(allocated, "allocation of identities", made, ALLOCATED_S)
            numbers = {identity.labels: identity.id for identity in identities.values()}
        await endpoints.replace(
            msgspec.structs.replace(each, identity=numbers[each.labels]) for each in wanted
        )

        async def in_maps() -> None:
            with open_pinned(made.bpffs("node1"), IPCACHE) as ipcache:
                if (found := ipcache.count()) < count:
                    raise BenchError(f"{found} of {count} addresses are in the ipcache")

        await eventually(in_maps, "the node's maps", made, ALLOCATED_S)
        return made.loop.time() - start
    finally:
        await bus.drain()
