"""Row B9: what is left for others of a CPU that has to drop a flood.

A byte goes there and back over a plain veth pair, on the CPU on which packets arrive that a node drops.
The nodes differ in nothing but in who drops them.
"""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from ipaddress import ip_network
from pathlib import Path

from integration.bench import egress, paths, pps
from integration.bench.cirri_paths import DRAIN_MS, policy_entries
from integration.bench.machine import MEASURED, OTHER, BenchError, build, build_bpf, cpu_times, run, running
from integration.bench.pods import attach_uplink
from integration.bench.pps import Target, there
from integration.bench.report import Line, Report
from integration.bench.rounds import Clients, Effort
from integration.bench.stats import STEAL_LIMIT, Goal, Round, bootstrap_median, ratio, same

from cirri.layout import (
    ENDPOINTS,
    IPCACHE,
    LB_SERVICES,
    METRICS,
    POLICY,
    RUNTIME,
    DropReason,
    EndpointFlag,
    EndpointValue,
    IpcacheKey,
    IpcacheValue,
    LbFlag,
    LbScope,
    LbService,
    LbServiceKey,
    PolicyDirection,
    RuntimeConfig,
    address16,
    metrics_of,
)
from cirri.maps import Objects, attach_xdp, open_per_cpu, open_pinned

NONE, AGAIN, DROP, INGRESS, PREROUTING, DENIED, NOBODY = (
    "no flood", "no flood again", "XDP_DROP", "nft ingress hook", "nft prerouting",
    "cirri, denied by policy", "cirri, Service without backends",
)  # fmt: skip
KERNEL, CIRRI = (INGRESS, PREROUTING), (DENIED, NOBODY)
RATE = 1_000_000
"""Packets a second, in bursts of ``pps.BURST``, since a call sleeps some 10 ms, whatever it makes."""
PERIOD_S = pps.BURST / RATE
TARGET = pps.FIRST_SERVICE
"""Where the flood goes, UDP port 80."""
POD, PEER, RULES = 1002, 1001, 1000
"""Identities, and policy entries of the pod: none lets the flood in."""
SHARE = 0.6
"""Length of a sample, of what was asked for: there are seven.  Whole periods, wherever in one it begins."""
SETTLE_S = 0.05
"""Between the flood's begin and the client's."""


def measure(rows: Sequence[str], effort: Effort, report: Report) -> None:
    """Row B9."""
    build_bpf("lb")
    with ExitStack() as stack:
        floods = [
            stack.enter_context(each)
            for each in (
                pps.xdp(DROP, "fd", pps.ABSORB),
                kernel(INGRESS, "fi", f"netdev flood {chain('ingress device eth0 priority 0')}"),
                kernel(PREROUTING, "fp", f"inet flood {chain('prerouting priority raw')}"),
                cirri(DENIED, "fc", DropReason.POLICY, deny),
                cirri(NOBODY, "fn", DropReason.NO_BACKEND, empty),
            )
        ]
        path = stack.enter_context(paths.raw("beside", "fr"))
        clients = Clients(stack, [path], (4,))
        ask = partial(beside, lambda seconds: clients.slice(path, 4, "rr", seconds))
        rounds = list(
            turns({NONE: None, AGAIN: None, **{each.name: each for each in floods}}, ask, effort, report)
        )
    if not rounds:
        raise BenchError("the hypervisor disturbed every round")
    report.raw[rows[0]] = [dict(turn.samples) for turn in rounds]
    report.lines += lines(rows[0], rounds)
    if void := why_void(rounds):
        report.failures.append(f"{rows[0]}: void, {void}")


Ask = Callable[[Target | None, float], dict[str, float]]


def turns(floods: dict[str, Target | None], ask: Ask, effort: Effort, report: Report) -> Iterator[Round]:
    """A sample beside each flood in an order drawn anew; disturbed rounds are left out."""
    draw, names = random.Random(9), list(floods)
    seconds = PERIOD_S * max(1, round(SHARE * effort.seconds / PERIOD_S))
    for name in names:
        ask(floods[name], 0.1)
    for _ in range(effort.rounds):
        before = cpu_times()
        samples = {name: ask(floods[name], seconds) for name in draw.sample(names, len(names))}
        report.failures += [
            f"B9: {name}: {each['share']:.1%} of the flood was counted as dropped"
            for name, each in samples.items()
            if each["share"] < pps.DELIVERED
        ]
        stolen = cpu_times().stolen_since(before)
        if stolen <= STEAL_LIMIT:
            yield Round(samples, stolen)


def beside(
    client: Callable[[float], dict[str, float]], flood: Target | None, seconds: float
) -> dict[str, float]:
    """What *client* did in *seconds* beside *flood*: ``rate``; of the flood ``pps``, the ``share`` that the
    node counted as dropped, and how ``busy`` it kept the CPU (0..1)."""
    if flood is None:
        told = client(seconds)
        return {"rate": told["count"] / told["seconds"], "pps": 0.0, "share": 1.0, "busy": 0.0}
    enough, before = threading.Event(), flood.arrived()
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(there, flood.wire, lambda: send(flood, enough))
        try:
            time.sleep(SETTLE_S)
            told = client(seconds)
        finally:
            enough.set()
        sent, spent, busy = sending.result()
    counted = flood.arrived() - before
    rate, share = told["count"] / told["seconds"], counted / max(1, sent)
    return {"rate": rate, "pps": sent / spent, "share": share, "busy": busy / spent}


def send(flood: Target, enough: threading.Event) -> tuple[int, float, float]:
    """(packets, seconds, seconds of the CPU): RATE a second, as far as the CPU can, until *enough*."""
    os.sched_setaffinity(0, {MEASURED})  # of this thread, which ends here
    # A network card's interrupts do not wait for their turn among processes either.
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    sent, began, idle = 0, time.perf_counter(), time.thread_time()
    while not enough.is_set():
        pps.blast(flood.generator, flood.index)
        sent += pps.BURST
        time.sleep(max(0.0, began + sent / RATE - time.perf_counter()))
    return sent, time.perf_counter() - began, time.thread_time() - idle


def lines(row: str, rounds: Sequence[Round]) -> Iterator[Line]:
    """How much of the rate each flood leaves, then the goals."""
    void = why_void(rounds)
    for name in (AGAIN, DROP, *KERNEL, *CIRRI):
        found = [turn.samples[name] for turn in rounds]
        rate = bootstrap_median([each["rate"] for each in found]).median
        came = bootstrap_median([each["pps"] for each in found]).median
        busy = bootstrap_median([each["busy"] for each in found]).median
        limit = f"{came / 1e6:.2f} Mpps, {busy:.0%} of the CPU" if name != AGAIN else ""
        value = f"{rate / 1000:.1f} k/s"
        yield Line(row, f"RR kept: {name}", value, ratio(rounds, name, NONE), limit=limit)
    for name in CIRRI:
        for peer in KERNEL:
            yield Line(
                row, f"{name} / {peer}", "", ratio(rounds, name, peer), goal=Goal(at_least=2), void=void,
                limit=f"XDP_DROP: {ratio(rounds, DROP, peer).median:.2f} of it",
            )  # fmt: skip
        yield Line(
            row, f"{name} / {DROP}", "", ratio(rounds, name, DROP), goal=Goal(at_least=0.95), void=void,
            limit="dropped in tc: each has an skb first, as with nft",
        )  # fmt: skip


def why_void(rounds: Sequence[Round]) -> str:
    """Why the rounds must not be used, or nothing."""
    found, equal = same(rounds, AGAIN, NONE)
    return "" if equal else f"{NONE} against itself gave {found.median:.3f}"


# -- the nodes -----------------------------------------------------------------


def chain(hook: str) -> str:
    """The body of a table that drops and counts the flood at *hook*."""
    return f"""{{
      counter dropped {{ }}
      chain arriving {{
        type filter hook {hook};
        ip daddr {TARGET} udp dport 80 counter name dropped drop
      }}
    }}"""


@contextmanager
def kernel(name: str, slug: str, table: str) -> Iterator[Target]:
    """A node without Cirri, on which nft drops the flood."""
    with pps.pair(slug, 1) as (wire, node, _, index, generator):
        there(node, pps.gro_on)
        run("ip", "netns", "exec", node, "nft", "-f", "-", stdin=f"table {table}")
        yield Target(name, wire, index, generator, lambda: egress.counted(node)["dropped"])


@contextmanager
def cirri(name: str, slug: str, reason: DropReason, fill: Callable[[Path], None]) -> Iterator[Target]:
    """A node with the shipped programs at both hooks, which drops the flood for *reason*."""
    with (
        pps.pair(slug, 1) as (wire, node, folder, index, generator),
        Objects.load(pps.OBJECTS, folder, names=["bpf_node", "bpf_xdp"]) as programs,
        running(build("drain", "-lbpf"), folder / "cirri_events", str(DRAIN_MS), str(OTHER), ready="ready"),
    ):
        uplink = attach_uplink(node, programs["tc/from_network"].fd, folder)
        with open_pinned(folder, RUNTIME) as runtime:
            runtime.put(0, RuntimeConfig(epoch=1, uplink_ifindex=uplink, nat4=address16(pps.NODE)))
        fill(folder)
        there(node, lambda: attach_xdp(programs["xdp.frags"], uplink, folder / "xdp_node"))
        yield Target(name, wire, index, generator, lambda: dropped(folder, reason))


def deny(folder: Path) -> None:
    """A pod whose policy has rules, none of them about the flood."""
    flags = EndpointFlag.ENFORCE_INGRESS | EndpointFlag.ENFORCE_EGRESS
    pod = EndpointValue(ifindex=1, identity=POD, policy_id=1, id=1, flags=flags)
    with open_pinned(folder, ENDPOINTS) as endpoints:
        endpoints.put(address16(TARGET), pod)
    with open_pinned(folder, POLICY) as policy:
        policy.put_many(policy_entries(1, PEER, PolicyDirection.INGRESS, RULES))
    with open_pinned(folder, IPCACHE) as ipcache:
        ipcache.put(IpcacheKey.of(ip_network(TARGET)), IpcacheValue(identity=POD))


def empty(folder: Path) -> None:
    """A Service that nobody serves and that is not to answer."""
    key = LbServiceKey(
        address=address16(TARGET), port=80, protocol=socket.IPPROTO_UDP, scope=LbScope.EXTERNAL
    )
    with open_pinned(folder, LB_SERVICES) as services:
        services.put(key, LbService(id=1, frontend=1, count=0, flags=LbFlag.DROP_EMPTY))


def dropped(folder: Path, reason: DropReason) -> int:
    """Packets that the node's programs dropped for *reason*."""
    with open_per_cpu(folder, METRICS) as metrics:
        return sum(
            value.packets
            for index, values in metrics.items()
            if metrics_of(index)[0] == reason
            for value in values
        )
