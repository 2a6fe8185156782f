"""Row CRI: a hundred pods started at once by a real containerd, until each has addresses and its policy.

The same containerd, image and requests with the reference plugin ``ptp`` (IPv4 alone, since it waits a second
for IPv6 addresses to be found unique) say what the runtime itself takes: two processes and a namespace a pod.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from integration.bench.cluster import NAMESPACE, Cluster, cluster, pod_manifest
from integration.bench.machine import PREFIX, BenchError, forwarding, namespaces
from integration.bench.report import Line, Report
from integration.bench.rounds import Effort
from integration.bench.stats import Goal, bootstrap_median, bootstrap_percentile

from cirri.cni import install
from cirri.lab.enter import NETNS
from cirri.testing.containerd import REFERENCE, Containerd, Refused, Sandbox

PODS = 100
SUBJECT, STRANGER = {"app": "bench"}, {"app": "stranger"}
CIRRI, PTP = "cirri", "ptp"
SETTLED_S = 2.0
"""By how much a hundred pods may take longer than with ``ptp``."""


def measure(rows: Sequence[str], effort: Effort, report: Report) -> None:
    """Row CRI; *effort* of 15 rounds or more means the full numbers."""
    full = effort.rounds >= 15
    count, times = (PODS, 3) if full else (10, 1)
    walls: dict[str, list[float]] = {CIRRI: [], PTP: []}
    each: dict[str, list[float]] = {CIRRI: [], PTP: []}
    with cluster(1) as made, _of_cirri(made) as ours, _of_ptp() as peer:
        made.wait(made.apply([_closed()]))
        for turn in range(times):
            names = [f"c{turn}-{number}" for number in range(count)]
            made.wait(made.apply([pod_manifest("node1", name, SUBJECT) for name in names]))
            for which, runtime in ((PTP, peer), (CIRRI, ours)):
                pods, wall, took = _started(runtime, names)
                walls[which].append(wall)
                each[which] += took
                if which == CIRRI:
                    _closed_to_strangers(made, runtime, pods, turn)
                with ThreadPoolExecutor(8) as pool:
                    list(pool.map(runtime.remove, pods))
        died = made.restarted()
    report.raw[rows[0]] = {"parallel_s": walls, "each_ms": each}
    report.failures += [f"{rows[0]}: {sentence}" for sentence in died]
    report.lines += lines(rows[0], walls, each, count)


def lines(
    row: str, walls: dict[str, list[float]], each: dict[str, list[float]], count: int
) -> Iterator[Line]:
    """The row's lines."""
    for which in (PTP, CIRRI):
        value = f"p99 of one {bootstrap_percentile(each[which], 0.99).median:.0f} ms"
        what = f"{count} pods at once by containerd, until the last: {which}"
        yield Line(row, what, value, bootstrap_median(walls[which]), unit=" s")
    more = [ours - peer for ours, peer in zip(walls[CIRRI], walls[PTP], strict=True)]
    goal = Goal(at_most=SETTLED_S, unit=" s")
    what = "how much longer than with ptp, policy in force"
    yield Line(row, what, "each pod closed to strangers", bootstrap_median(more), unit=" s", goal=goal)


def _started(runtime: Containerd, names: Sequence[str]) -> tuple[list[Sandbox], float, list[float]]:
    """The pods, seconds until the last was there, milliseconds of each."""

    def one(name: str) -> tuple[Sandbox, float]:
        began = time.perf_counter()
        return runtime.run(name, namespace=NAMESPACE), (time.perf_counter() - began) * 1000

    start = time.monotonic()
    try:
        with ThreadPoolExecutor(len(names)) as pool:
            found = list(pool.map(one, names))
    except Refused as error:
        raise BenchError(f"containerd could not start a pod: {error}") from error
    wall = time.monotonic() - start
    return [pod for pod, _ in found], wall, [took for _, took in found]


def _closed_to_strangers(made: Cluster, runtime: Containerd, pods: Sequence[Sandbox], turn: int) -> None:
    """A pod that no policy allows hears nothing from any of *pods*, and a refusal from one that is open."""
    names = [f"{who}-{turn}" for who in ("asks", "open")]
    made.wait(made.apply([pod_manifest("node1", name, STRANGER) for name in names]))
    asks, free = (runtime.run(name, namespace=NAMESPACE) for name in names)
    addresses = " ".join(runtime.addresses(pod)[0] for pod in (*pods, free))
    script = f"for a in {addresses}; do (nc -w 2 $a 80 2>&1 </dev/null | grep -o refused) & done; wait"
    _, said = runtime.exec(asks, "sh", "-c", script)
    for pod in (asks, free):
        runtime.remove(pod)
    if (heard := said.split().count("refused")) != 1:
        raise BenchError(f"{heard} pods answered a stranger, one should have: policy was not in force")


def _closed() -> dict[str, Any]:
    """A policy that lets nothing into the pods that are measured."""
    spec = {"podSelector": {"matchLabels": SUBJECT}, "policyTypes": ["Ingress"], "ingress": []}
    about = {"name": "closed", "namespace": NAMESPACE}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": about,
        "spec": spec,
    }


@contextmanager
def _of_cirri(made: Cluster) -> Iterator[Containerd]:
    runtime = Containerd(_home(CIRRI), NETNS / made.topology.host("node1").netns)
    socket = made.where.run / "node1" / "cni.sock"
    install.install(runtime.plugins, runtime.networks, socket, exclusive=True)
    with runtime:
        yield runtime


@contextmanager
def _of_ptp() -> Iterator[Containerd]:
    with namespaces("peer") as (host,):
        forwarding(host)
        runtime = Containerd(_home(PTP), NETNS / host)
        for name in (PTP, "host-local"):
            (runtime.plugins / name).symlink_to(REFERENCE / name)
        ipam = {
            "type": "host-local",
            "ranges": [[{"subnet": "10.77.0.0/16"}]],
            "dataDir": str(runtime.home / "ipam"),
            "routes": [{"dst": "0.0.0.0/0"}],
        }
        network = {"cniVersion": "1.0.0", "name": "bench", "plugins": [{"type": PTP, "ipam": ipam}]}
        (runtime.networks / "10-ptp.conflist").write_text(json.dumps(network))
        with runtime:
            yield runtime


def _home(name: str) -> Path:
    return Path("/run") / f"{PREFIX}containerd-{name}"
