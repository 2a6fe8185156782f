"""Row B12: from a published policy to the moment at which every endpoint of ten nodes follows it.

A policy that selects all endpoints allows two UDP ports to one peer; every change moves one of the
two.  Packets are run through each node's own program, ten thousand a second, until one
endpoint of every node (another one each time) lets the new port pass and no longer the old one;
then all endpoints are asked.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from integration.bench.cluster import NAMESPACE, Cluster, Manifest, PodOnNode, cluster, eventually, pods
from integration.bench.listener import listening
from integration.bench.machine import BUILD, BenchError, build, need, run, running
from integration.bench.report import Line, Report
from integration.bench.rounds import Effort
from integration.bench.stats import Goal, bootstrap_percentile, ratio_of_medians

NODES = 10
PER_NODE = 100
CHANGES = 60
SETTLE = 5
"""Changes before those that count."""
PORTS = (7001, 7002)
"""The one or the other is open."""
OPEN_PORT, CLOSED_PORT = 7000, 7003
"""Open and closed under every policy: a packet that finds it otherwise met neither old nor new."""
PROBE_HZ = 10_000
TIMEOUT_MS = 5000
RAW_PORT, SUBJECT = 14222, "bench.fan"


def measure(rows: Sequence[str], effort: Effort, report: Report) -> None:
    """Row B12; *effort* of 15 rounds or more means the full number of changes."""
    changes = CHANGES if effort.rounds >= 15 else 4 * effort.rounds
    per_node = PER_NODE if effort.rounds >= 15 else 5
    with cluster(NODES + 1) as made:
        nodes = made.topology.node_names[:NODES]
        with _endpoints(made, nodes, per_node) as (targets, client), _probe(made, targets, client) as probe:
            found = _changes(made, probe, changes)
            nft = _nft(made, targets, changes)
        raw = made.wait(_raw_fan_out(made, nodes, changes))
        died = made.restarted()
    report.raw[rows[0]] = {"changes": found, "nft_ms": nft, "raw_ms": raw}
    report.failures += [f"{rows[0]}: {sentence}" for sentence in died]
    if violations := sum(each["violations"] for each in found):
        report.failures.append(
            f"{rows[0]}: {violations} pairs of packets met neither the old nor the new policy"
        )
    report.lines += lines(rows[0], found, raw, nft, per_node)


def lines(
    row: str, found: Sequence[dict[str, Any]], raw: Sequence[float], nft: Sequence[float], per_node: int
) -> Iterator[Line]:
    """The row's lines, times in milliseconds."""
    nodes = [each["nodes_ms"] for each in found]
    every = [each["all_ms"] for each in found]
    size, what = f"{len(found)} changes", f"policy in force on {NODES} nodes"
    sent = sum(each["sent"] for each in found)
    for name, share, goal in (("p50", 0.5, 3.0), ("p99", 0.99, 10.0)):
        interval = bootstrap_percentile(nodes, share)
        bound = Goal(at_most=goal, unit=" ms")
        limit = limits(found) if name == "p50" else f"{sent} probe packets"
        yield Line(row, f"{what}: {name}", size, interval, unit=" ms", goal=bound, limit=limit)
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        interval = bootstrap_percentile(every, share)
        yield Line(
            row, f"... and seen at all {NODES * per_node} endpoints: {name}", size, interval, unit=" ms"
        )
    applied = bootstrap_percentile([each["reply_ms"] for each in found], 0.5)
    yield Line(row, "of which: the API's answer, p50", size, applied, unit=" ms")
    yield _peer(row, f"{what} / raw NATS to {NODES} subscribers, p50", nodes, raw, Goal(at_most=20))
    yield _peer(row, f"{what} / nft -f in the {NODES} nodes, p50", nodes, nft, None)


def _peer(row: str, what: str, here: Sequence[float], there: Sequence[float], goal: Goal | None) -> Line:
    value = f"peer {bootstrap_percentile(there, 0.5).median:.2f} ms"
    return Line(row, what, value, ratio_of_medians(here, there), goal=goal)


def limits(found: Sequence[dict[str, Any]]) -> str:
    """Where the time of the median change went."""
    reply, first, last = (
        bootstrap_percentile([each[key] for each in found], 0.5).median
        for key in ("reply_ms", "first_ms", "nodes_ms")
    )
    return (
        f"API {reply:.1f} ms, first node at {first:.1f} ms, last at {last:.1f} ms: {NODES} services on 2 CPUs"
    )


# -- Cirri -------------------------------------------------------------------


@contextmanager
def _endpoints(
    made: Cluster, nodes: Sequence[str], per_node: int
) -> Iterator[tuple[list[PodOnNode], PodOnNode]]:
    wanted = [(node, f"{node}-{i}", {"app": "bench"}) for node in nodes for i in range(per_node)]
    wanted.append((made.topology.node_names[-1], "client", {"role": "client"}))
    with pods(made, wanted) as found:
        yield found[:-1], found[-1]


def policy(port: int) -> Manifest:
    """Allows the open UDP port and *port* from the client to every endpoint."""
    rule = {
        "fromEndpoints": [{"matchLabels": {"role": "client"}}],
        "toPorts": [{"ports": [{"port": str(each), "protocol": "UDP"} for each in (OPEN_PORT, port)]}],
    }
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "bench", "namespace": NAMESPACE},
        "spec": {"endpointSelector": {"matchLabels": {"app": "bench"}}, "ingress": [rule]},
    }


@contextmanager
def _probe(made: Cluster, targets: Sequence[PodOnNode], client: PodOnNode) -> Iterator[subprocess.Popen[str]]:
    with running(build("probe", "-lbpf"), str(PROBE_HZ), "-1") as probe:
        assert probe.stdin
        programs: dict[str, int] = {}
        for pod in sorted(targets, key=lambda pod: pod.node):
            if pod.node not in programs:
                programs[pod.node] = program_id(made.topology.host(pod.node).netns)
            probe.stdin.write(f"target {programs[pod.node]} {client.ipv4} {pod.ipv4}\n")
        yield probe


def program_id(netns: str, device: str = "eth0") -> int:
    """Kernel's number of the program that judges what *device* receives."""
    filters = json.loads(run("tc", "-n", netns, "-j", "filter", "show", "dev", device, "ingress"))
    for each in filters:
        if number := each.get("options", {}).get("prog", {}).get("id"):
            return int(number)
    raise BenchError(f"no program is attached to {device} of {netns}")


def _changes(made: Cluster, probe: subprocess.Popen[str], count: int) -> list[dict[str, Any]]:
    made.wait(made.apply([policy(PORTS[0])]))
    generator = random.Random(1)
    found = []
    for number in range(SETTLE + count):
        old, new = PORTS[number % 2], PORTS[1 - number % 2]
        one = made.wait(_change(made, probe, new, old, generator.randrange(1 << 30)))
        if number >= SETTLE:
            found.append(one)
    return found


async def _change(
    made: Cluster, probe: subprocess.Popen[str], new: int, old: int, seed: int
) -> dict[str, Any]:
    assert probe.stdin
    assert probe.stdout
    assert probe.stderr
    probe.stdin.write(f"go {new} {old} {OPEN_PORT} {CLOSED_PORT} {TIMEOUT_MS} {seed}\n")
    probe.stdin.flush()
    if (said := probe.stdout.readline().strip()) != "armed":
        raise BenchError(f"probe: {said or probe.stderr.read().strip()}")
    start = time.monotonic_ns()
    await made.apply([policy(new)])
    reply = time.monotonic_ns()
    line = await asyncio.to_thread(probe.stdout.readline)
    if not line:
        raise BenchError(f"probe: {probe.stderr.read().strip()}")
    told = json.loads(line)
    if left := told["left"]:
        late = f"{left} endpoints did not follow a policy change within {TIMEOUT_MS} ms"
        raise BenchError("; ".join([late, *made.restarted()]))
    # A pause of another length each time, so that changes do not keep step with anybody's timer.
    await asyncio.sleep(0.05 + (seed % 1000) / 10_000)
    moments = [(moment - start) / 1e6 for moment in told["moments"]]
    return {
        "first_ms": min(moments),
        "nodes_ms": max(moments),
        "all_ms": (told["all"] - start) / 1e6,
        "reply_ms": (reply - start) / 1e6,
        "sent": told["sent"],
        "violations": told["violations"],
        "mixed": told["mixed"],
    }


# -- peers --------------------------------------------------------------------


def _nft(made: Cluster, targets: Sequence[PodOnNode], count: int) -> list[float]:
    """``nft -f`` of the same change, in all nodes at once: milliseconds until the last has ended."""
    program = need("nft", "nftables")
    files = []
    for node in sorted({pod.node for pod in targets}):
        addresses = ", ".join(pod.ipv4 for pod in targets if pod.node == node)
        for port in PORTS:
            file = BUILD / f"{node}-{port}.nft"
            file.write_text(
                "add table inet bench\ndelete table inet bench\ntable inet bench {\n"
                " chain input { type filter hook forward priority 0; policy accept;\n"
                f"  ip daddr {{ {addresses} }} udp dport {port} accept\n"
                f"  ip daddr {{ {addresses} }} drop\n }}\n}}\n"
            )
            files.append((made.topology.host(node).netns, port, file))
    found = []
    try:
        for number in range(count):
            start = time.monotonic_ns()
            running_now = [
                subprocess.Popen(["nsenter", f"--net=/run/netns/{netns}", program, "-f", str(file)])
                for netns, port, file in files
                if port == PORTS[number % 2]
            ]
            if any(process.wait() for process in running_now):
                raise BenchError("nft -f failed")
            found.append((time.monotonic_ns() - start) / 1e6)
    finally:
        for netns, _, file in files:
            subprocess.run(
                ["nsenter", f"--net=/run/netns/{netns}", program, "delete", "table", "inet", "bench"],
                capture_output=True,
                check=False,
            )
            file.unlink()
    return found


async def _raw_fan_out(made: Cluster, nodes: Sequence[str], count: int) -> list[float]:
    """A plain NATS message of a policy's size to a subscriber in every node: ms until the last has it."""
    import nats

    url = f"nats://{made.topology.fabric.ipv4}:{RAW_PORT}"
    payload = json.dumps(policy(PORTS[0])).encode()
    server = (need("nats-server", "nats-server"), "-a", made.topology.fabric.ipv4, "-p", str(RAW_PORT))
    with ExitStack() as stack:
        stack.enter_context(running(*server, "-l", "/dev/null"))
        await eventually(partial(_listening, made.topology.fabric.ipv4), "the plain nats-server", made)
        connection = await nats.connect(url)
        listeners = []
        for node in nodes:
            netns = made.topology.host(node).netns
            inside = ("nsenter", f"--net=/run/netns/{netns}")
            listeners.append(stack.enter_context(listening(url, SUBJECT, inside=inside)))
        found = []
        for _ in range(count + SETTLE):
            start = time.monotonic()
            await connection.publish(SUBJECT, payload)
            await connection.flush()
            found.append((max(each.heard() for each in listeners) - start) * 1000)
            await asyncio.sleep(0.02)
        await connection.close()
    return found[SETTLE:]


async def _listening(address: str) -> None:
    _, writer = await asyncio.open_connection(address, RAW_PORT)
    writer.close()
    await writer.wait_closed()
