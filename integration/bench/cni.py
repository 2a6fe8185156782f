"""Row B14: what a container runtime waits for when it adds a pod to the network, and removes it.

Each plugin is run as a runtime runs it: a process per request, configuration on standard input,
the result on standard output.  Cirri's answers when the endpoint's policy is in force; the
reference plugins ``ptp`` and ``bridge`` know no policy; the bare netlink requests are the least
that makes a pod's device, from a process that runs already.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from integration.bench.cluster import (
    Cluster,
    PodOnNode,
    cluster,
    delete_namespaces,
    make_namespaces,
    plugin_config,
    plugin_environment,
    pod_manifest,
)
from integration.bench.machine import PREFIX, BenchError, forwarding, namespaces
from integration.bench.report import Line, Report
from integration.bench.rounds import Effort
from integration.bench.stats import Goal, bootstrap_median, bootstrap_percentile, ratio_of_medians

from cirri.lab.enter import NETNS, inside
from cirri.lab.services import PLUGIN
from cirri.netlink import channel_in, messages, namespace
from cirri.netlink import pod as pod_requests

SEQUENTIAL = 200
PARALLEL = 100
TIMES = 5
"""How often the parallel start is repeated."""
REFERENCE = Path("/usr/lib/cni")
LABELS = {"app": "bench"}
CIRRI, PTP, BRIDGE, NETLINK = "cirri", "ptp", "bridge", "bare netlink"


@dataclass(frozen=True, slots=True)
class Plugin:
    """One way to add a pod: how to run it for a pod, given the command."""

    name: str
    call: Callable[[str, PodOnNode], str]
    """Returns its output; BenchError with its words if it fails."""
    apply: Callable[[Sequence[PodOnNode]], None] | None = None
    """Tells the cluster about pods, before."""


def measure(rows: Sequence[str], effort: Effort, report: Report) -> None:
    """Row B14; *effort* of 15 rounds or more means the full numbers."""
    full = effort.rounds >= 15
    sequential, parallel, times = (SEQUENTIAL, PARALLEL, TIMES) if full else (4 * effort.rounds, 10, 1)
    for name in (PTP, BRIDGE, "host-local"):
        if not (REFERENCE / name).exists():
            raise BenchError(
                f"{REFERENCE / name} is not installed: apt-get install containernetworking-plugins"
            )
    with cluster(1) as made, _peers() as peers:
        plugins = [_cirri(made), *peers]
        adds, deletes = one_after_the_other(plugins, sequential)
        walls, each = {}, {}
        for plugin in plugins:
            if plugin.name != NETLINK:
                walls[plugin.name], each[plugin.name] = at_once(plugin, parallel, times)
        died = made.restarted()
    report.raw[rows[0]] = {"add_ms": adds, "del_ms": deletes, "parallel_s": walls, "parallel_add_ms": each}
    report.failures += [f"{rows[0]}: {sentence}" for sentence in died]
    report.lines += lines(rows[0], adds, deletes, walls, each, parallel)


def lines(
    row: str,
    adds: dict[str, list[float]],
    deletes: dict[str, list[float]],
    walls: dict[str, list[float]],
    each: dict[str, list[float]],
    parallel: int,
) -> Iterator[Line]:
    """The row's lines."""
    for what, times, bound in (("ADD", adds, 25.0), ("DEL", deletes, 10.0)):
        for name in (CIRRI, PTP, BRIDGE, NETLINK):
            count = f"{len(times[name])} times"
            for label, share in (("p50", 0.5), ("p99", 0.99)):
                goal = Goal(at_most=bound, unit=" ms") if name == CIRRI and share == 0.99 else None
                took = bootstrap_percentile(times[name], share)
                yield Line(row, f"{what}, in sequence: {name} {label}", count, took, unit=" ms", goal=goal)
        for name in (PTP, BRIDGE, NETLINK):
            for label, share in (("p50", 0.5), ("p99", 0.99)):
                goal = Goal(at_most=1.0) if (what, name, label) == ("ADD", PTP, "p99") else None
                found = ratio_of_medians(times[CIRRI], times[name], share=share)
                yield Line(row, f"{what}, in sequence: {label} of cirri / {name}", "", found, goal=goal)
    for name, seconds in walls.items():
        goal = Goal(at_most=2.0, unit=" s") if name == CIRRI else None
        value = f"p99 of one {bootstrap_percentile(each[name], 0.99).median:.0f} ms"
        what = f"{parallel} ADDs at once, until the last: {name}"
        yield Line(row, what, value, bootstrap_median(seconds), unit=" s", goal=goal)


# -- measuring ----------------------------------------------------------------


def one_after_the_other(
    plugins: Sequence[Plugin], count: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """ADD and DEL times in ms, by plugin; the plugins take turns."""
    adds: dict[str, list[float]] = {plugin.name: [] for plugin in plugins}
    deletes: dict[str, list[float]] = {plugin.name: [] for plugin in plugins}
    warmup = 3
    for number in range(warmup + count):
        for plugin in plugins:
            with _sandboxes(plugin, [f"s{number}"]) as (pod,):
                added = timed(plugin, "ADD", pod)
                deleted = timed(plugin, "DEL", pod)
            if number >= warmup:
                adds[plugin.name].append(added)
                deletes[plugin.name].append(deleted)
    return adds, deletes


def at_once(plugin: Plugin, count: int, times: int) -> tuple[list[float], list[float]]:
    """Seconds until *count* ADDs, all started together, have ended; and each one's ms."""
    walls: list[float] = []
    every: list[float] = []
    for turn in range(times):
        with _sandboxes(plugin, [f"p{turn}-{number}" for number in range(count)]) as pods:
            wall, took = _burst(plugin, pods)
            walls.append(wall)
            every += took
            for pod in pods:
                plugin.call("DEL", pod)
    return walls, every


def _burst(plugin: Plugin, pods: Sequence[PodOnNode]) -> tuple[float, list[float]]:
    go = threading.Barrier(len(pods) + 1)

    def one(pod: PodOnNode) -> float:
        go.wait()
        return timed(plugin, "ADD", pod)

    with ThreadPoolExecutor(len(pods)) as pool:
        running = [pool.submit(one, pod) for pod in pods]
        go.wait()
        start = time.monotonic()
        wait(running)
        wall = time.monotonic() - start
    failed = [error for each in running if (error := each.exception())]
    if failed:
        raise BenchError(f"{len(failed)} of {len(pods)} ADDs at once failed, the first: {failed[0]}")
    return wall, [each.result() for each in running]


def timed(plugin: Plugin, command: str, pod: PodOnNode) -> float:
    """Milliseconds that *command* takes; its result is kept with the pod."""
    start = time.perf_counter()
    said = plugin.call(command, pod)
    took = (time.perf_counter() - start) * 1000
    if command == "ADD" and said:
        pod.result = json.loads(said)
    return took


@contextmanager
def _sandboxes(plugin: Plugin, names: Sequence[str]) -> Iterator[list[PodOnNode]]:
    """Prepared namespaces for pods, which no clock measures: a runtime makes them before."""
    pods = [PodOnNode("node1", f"{plugin.name.split()[0]}-{name}", f"{PREFIX}p-{name}") for name in names]
    try:
        if plugin.apply:
            plugin.apply(pods)
        make_namespaces([pod.netns for pod in pods])
        yield pods
    finally:
        delete_namespaces([pod.netns for pod in pods])


# -- plugins --------------------------------------------------------------------


def execute(program: Path, command: str, pod: PodOnNode, config: str) -> str:
    """Runs a plugin as a runtime does."""
    done = subprocess.run(
        [program],
        input=config,
        env=plugin_environment(command, pod) | {"CNI_PATH": str(program.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BenchError(
            f"{program.name} {command} of {pod.name}: {done.stdout.strip() or done.stderr.strip()}"
        )
    return done.stdout


def _cirri(made: Cluster) -> Plugin:
    def call(command: str, pod: PodOnNode) -> str:
        config = plugin_config(made.where, pod.node, pod.result if command == "DEL" else None)
        return execute(PLUGIN, command, pod, config)

    def apply(pods: Sequence[PodOnNode]) -> None:
        made.wait(made.apply([pod_manifest(pod.node, pod.name, LABELS) for pod in pods]))

    return Plugin(CIRRI, call, apply)


@contextmanager
def _peers() -> Iterator[list[Plugin]]:
    """The reference plugins and the bare requests, in a node namespace of their own."""
    with namespaces("peer") as (host,):
        forwarding(host)
        store = Path(f"/run/{PREFIX}ipam")
        try:
            with inside(host):
                yield [_reference(PTP, store, 1), _reference(BRIDGE, store, 2), _netlink(host)]
        finally:
            shutil.rmtree(store, ignore_errors=True)


def _reference(name: str, store: Path, subnet: int) -> Plugin:
    ranges = [[{"subnet": f"10.77.{subnet}.0/24"}], [{"subnet": f"fd00:77:{subnet}::/120"}]]
    config: dict[str, Any] = {
        "cniVersion": "1.0.0",
        "name": f"bench-{name}",
        "type": name,
        "ipam": {"type": "host-local", "ranges": ranges, "dataDir": str(store),
                 "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]},
    }  # fmt: skip
    if name == BRIDGE:
        config |= {"bridge": "bench0", "isGateway": True}

    def call(command: str, pod: PodOnNode) -> str:
        previous = {"prevResult": pod.result} if command == "DEL" and pod.result else {}
        return execute(REFERENCE / name, command, pod, json.dumps(config | previous))

    return Plugin(name, call)


def _netlink(host: str) -> Plugin:
    """The pod's device, addresses and routes as :mod:`cirri.netlink` makes them, no program attached."""
    with namespace(str(NETNS / host)) as outer:
        node = channel_in(outer)
    device = pod_requests.PodDevice(
        inside="eth0",
        outside="lxc1",
        mac="02:00:00:00:00:02",
        outside_mac="02:00:00:00:00:01",
        addresses=(ip_address("10.78.0.2"), ip_address("fd00:78::2")),
    )

    def call(command: str, pod: PodOnNode) -> str:
        if command == "DEL":
            node.apply([messages.link_delete(device.outside)])
            return ""
        with namespace(str(NETNS / pod.netns)) as inner:
            node.apply(pod_requests.create(device, inner))
            with channel_in(inner) as channel:
                channel.apply(pod_requests.inside(device, channel.index(device.inside)))
        node.apply(pod_requests.outside(device, node.index(device.outside)))
        return ""

    return Plugin(NETLINK, call)
