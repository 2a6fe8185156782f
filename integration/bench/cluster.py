"""A cluster for rows B12, B14 and MEM: the real services of a lab, without its kubelet.

The bus, the cluster's services and a datapath service per node run as in ``cirri lab up``; pods
are made here, through the real API and the real CNI plugin, but no program runs in them.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from integration.bench.machine import CPUS, OTHER, PREFIX, BenchError, run

from cirri.cni.install import conflist
from cirri.kv import Bus
from cirri.lab import build as lab_build
from cirri.lab import cni, known, lifecycle
from cirri.lab.enter import NETNS, inside
from cirri.lab.files import write
from cirri.lab.services import PLUGIN, Plan, Process
from cirri.lab.status import node_manifest
from cirri.lab.topology import Paths, Topology
from cirri.manifests.api import APPLY, ApplyObject, ApplyReply, ApplyRequest
from cirri.model import NODES, Endpoint

NAME = f"{PREFIX.removeprefix('cirri-')}cluster"
"""Of the lab: its namespaces are called ``cirri-bench-cluster-…``."""
LEFT_OUT = ("lab-fabric", *(f"internet-{part}" for part in ("names", "resolver", "web", "cdn")))
"""Processes of a lab that are no part of what is measured."""
NAMESPACE = "bench"
READY_S = 60.0
Manifest = dict[str, Any]


@dataclass(slots=True)
class PodOnNode:
    """A pod that was added to a node's network."""

    node: str
    name: str
    netns: str
    ipv4: str = ""
    result: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Cluster:
    """What rows need of a running cluster.  Call it from within the fabric's namespace."""

    topology: Topology
    where: Paths
    bus: Bus
    loop: asyncio.AbstractEventLoop
    passwords: dict[str, str]
    """By user of the bus: also those of processes left out."""

    def wait(self, work: Any) -> Any:
        """The result of coroutine *work*."""
        return self.loop.run_until_complete(work)

    async def apply(self, manifests: Sequence[Manifest], source: str = "bench") -> ApplyReply:
        """Through the API, all or nothing; BenchError if it is refused."""
        objects = tuple(ApplyObject(manifest=manifest, source=source) for manifest in manifests)
        payload = msgspec.msgpack.encode(ApplyRequest(objects=objects))
        reply = msgspec.msgpack.decode(await self.bus.request(APPLY, payload, 10.0), type=ApplyReply)
        if reply.error is not None:
            raise BenchError(f"the API refused {manifests[0]['kind']}: {reply.error}")
        return reply

    def bpffs(self, node: str) -> Path:
        """Where the node's maps are pinned."""
        return self.where.bpffs / node

    def pids(self) -> dict[str, int]:
        """Processes by name: ``datapath-node1``, ``policy``, ``nats-server``..."""
        report = known.supervisor_of(self.where)
        return {child.name: child.pid for child in report.children if child.pid} if report else {}

    def restarted(self) -> list[str]:
        """A sentence for every process that died meanwhile."""
        return lifecycle.crashes(self.where)


def remove_leftovers() -> None:
    """Takes down what a killed run left of its cluster."""
    if lab_build.remains(NAME, where := known.where_is(NAME)):
        lab_build.destroy(NAME, where)


@contextmanager
def cluster(nodes: int, *, without: Sequence[str] = (), alone: Sequence[str] = ()) -> Iterator[Cluster]:
    """A cluster of *nodes* nodes, ready; *without* the processes of these names.

    Those that are *alone* are not forked from the lab's nursery: their memory has no other service's modules.
    """
    topology, where = Topology(NAME, nodes), known.where_is(NAME)
    if not PLUGIN.exists():
        raise BenchError(f"{PLUGIN} does not exist. Compile it: make build")
    with lifecycle.alone(NAME):
        lab_build.destroy(NAME, where)
        try:
            os.sched_setaffinity(0, set(CPUS))  # services inherit it: they may use the whole machine
            lab_build.build(topology, where)
            lifecycle.prepare(topology, where, {})
            plan = msgspec.json.decode(where.plan.read_bytes(), type=Plan)
            left_out = {*LEFT_OUT, *without}
            kept = tuple(
                _executed(process) if process.name in alone else process
                for process in plan.processes
                if process.name not in left_out
            )
            write(where.plan, msgspec.json.encode(msgspec.structs.replace(plan, processes=kept)), mode=0o600)
            lifecycle.supervise(NAME, where)
            with inside(topology.fabric.netns):
                yield from _connected(topology, where, without, _passwords(plan))
        finally:
            os.sched_setaffinity(0, {OTHER})
            lab_build.destroy(NAME, where)


def _executed(process: Process) -> Process:
    """The same, by a command that a nursery does not take."""
    return msgspec.structs.replace(process, argv=("/usr/bin/env", *process.argv))


def _passwords(plan: Plan) -> dict[str, str]:
    environments = {process.name: process.env for process in plan.processes}
    return {
        name: env["CIRRI_NATS_PASSWORD"] for name, env in environments.items() if "CIRRI_NATS_PASSWORD" in env
    }


def _connected(
    topology: Topology, where: Paths, without: Sequence[str], passwords: dict[str, str]
) -> Iterator[Cluster]:
    context = json.loads(where.context.read_bytes())
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        bus = loop.run_until_complete(
            Bus.connect(
                context["nats_url"], user=context["user"], password=context["password"], timeout_s=READY_S
            )
        )
        try:
            made = Cluster(topology, where, bus, loop, passwords)
            expected = {node for node in topology.node_names if f"datapath-{node}" not in without}
            made.wait(_ready(made, expected))
            yield made
        finally:
            loop.run_until_complete(bus.drain())


async def _ready(made: Cluster, expected: set[str]) -> None:
    nodes = [node_manifest(made.topology.host(name)) for name in made.topology.node_names]
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    await eventually(lambda: made.apply([*nodes, namespace]), "the API", made)

    async def up() -> None:
        found = {entry.value.node for entry in await made.bus.entries(NODES) if entry.value.pod_cidrs}
        if missing := expected - found:
            raise BenchError(f"no pod range: {', '.join(sorted(missing))}")

    await eventually(up, "all nodes", made)


async def eventually(work: Callable[[], Any], what: str, made: Cluster, timeout_s: float = READY_S) -> Any:
    """Does *work* again and again until it raises nothing; BenchError with its last error in the end."""
    deadline = made.loop.time() + timeout_s
    while True:
        try:
            return await work()
        except Exception as error:
            if made.loop.time() > deadline:
                told = "; ".join([str(error), *made.restarted()])
                raise BenchError(f"{what}: not within {timeout_s:g} s: {told}") from error
        await asyncio.sleep(0.05)


# -- pods --------------------------------------------------------------------


def pod_manifest(node: str, name: str, labels: dict[str, str]) -> Manifest:
    """A Pod that is scheduled already."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "pause"}]},
    }


def make_namespaces(names: Sequence[str]) -> None:
    """Empty network namespaces, as a container runtime prepares them.

    Without duplicate address detection, or some plugins would wait a second for the answer.
    """
    run("ip", "-batch", "-", stdin="".join(f"netns add {name}\n" for name in names))
    for name in names:
        with inside(name):
            for scope in ("all", "default"):
                Path(f"/proc/sys/net/ipv6/conf/{scope}/accept_dad").write_text("0")


def delete_namespaces(names: Sequence[str]) -> None:
    """Removes them; absent ones are fine."""
    command = ["ip", "-force", "-batch", "-"]
    text = "".join(f"netns delete {name}\n" for name in names)
    subprocess.run(command, input=text, text=True, capture_output=True, check=False)


def plugin_environment(command: str, pod: PodOnNode) -> dict[str, str]:
    """What a runtime tells the CNI plugin about *pod*."""
    return {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": pod.netns,
        "CNI_NETNS": str(NETNS / pod.netns),
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(PLUGIN.parent),
        "CNI_ARGS": cni.arguments(
            namespace=NAMESPACE, name=pod.name, uid=f"uid-{pod.name}", container_id=pod.netns
        ),
        "PATH": os.environ["PATH"],
    }


def plugin_config(where: Paths, node: str, previous: dict[str, Any] | None = None) -> str:
    """The configuration on the plugin's standard input."""
    return json.dumps(cni.netconf(conflist(where.run / node / "cni.sock"), previous))


def add(made: Cluster, pod: PodOnNode) -> None:
    """CNI ADD; fills in the pod's address and result.  BenchError with the plugin's words."""
    done = subprocess.run(
        [PLUGIN],
        input=plugin_config(made.where, pod.node),
        env=plugin_environment("ADD", pod),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BenchError(f"CNI ADD of {pod.name} on {pod.node}: {done.stdout.strip() or done.stderr.strip()}")
    pod.result = json.loads(done.stdout)
    pod.ipv4 = next((address for address in cni.addresses(pod.result) if ":" not in address), "")


@contextmanager
def pods(made: Cluster, wanted: Sequence[tuple[str, str, dict[str, str]]]) -> Iterator[list[PodOnNode]]:
    """Pods (node, name, labels), added to their nodes, for the length of a block."""
    found = [PodOnNode(node, name, f"{PREFIX}p-{name}") for node, name, _ in wanted]
    try:
        for at in range(0, len(wanted), 100):
            made.wait(made.apply([pod_manifest(*each) for each in wanted[at : at + 100]]))
        make_namespaces([pod.netns for pod in found])
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda pod: add(made, pod), found))
        yield found
    finally:
        delete_namespaces([pod.netns for pod in found])


def foreign_endpoint(node: str, number: int) -> Endpoint:
    """An endpoint of another node with labels of its own: an identity for every *number*."""
    labels = (f"k8s:app=app-{number}", "k8s:io.cilium.k8s.policy.cluster=default",
              "k8s:io.cilium.k8s.policy.serviceaccount=default",
              f"k8s:io.kubernetes.pod.namespace={NAMESPACE}")  # fmt: skip
    return Endpoint(
        node=node,
        id=number + 1,
        namespace=NAMESPACE,
        pod=f"far-{number}",
        container_id=f"far-{number}",
        interface=f"lxc{number}",
        ipv4=f"10.60.{number >> 8}.{number & 255}",
        labels=labels,
        state="ready",
    )
