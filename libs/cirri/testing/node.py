"""One node: its real datapath service in a network namespace, a real bus, and pods made through CNI.

::

     root namespace                    cirri-test-X (the node)          cirri-test-X-NAME (a pod)
     nats-server, the test's bus  ───  eth0 (uplink)   lxc… ─────────── eth0
     172.31.A.1                        172.31.A.2                       10.52.A.n

The central services are played by :class:`cirri.testing.central.Cluster`.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cirri.kv import Bus, Table
from cirri.labels import pod_labels
from cirri.model import ACKS, ENDPOINTS, NODES, Ack, Endpoint, NodeStatus, Resource, resource_key
from cirri.testing import nursed
from cirri.testing.central import NODE, Cluster
from cirri.testing.leftovers import cgroup2
from cirri.testing.natsserver import NatsServer
from cirri.testing.wait import eventually

REPOSITORY = Path(__file__).resolve().parents[3]
PLUGIN = REPOSITORY / "services/cirri/cni/build/cirri-cni"


@dataclass(slots=True)
class Pod:
    """A pod on the node."""

    name: str
    netns: str
    resource: Resource
    ipv4: str = ""
    ipv6: str = ""
    result: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Outcome:
    """What the plugin said."""

    code: int
    output: dict[str, Any]


class Node:
    """The node under test."""

    def __init__(self, name: str, number: int) -> None:
        self.name, self.number = name, number
        self.home = Path(tempfile.mkdtemp(prefix="cirri-test-node-", dir="/run"))
        self.run_dir, self.state_dir = self.home / "run", self.home / "state"
        self.run_dir.mkdir()
        self.bpffs = Path("/sys/fs/bpf") / name
        group = cgroup2()
        assert group is not None
        self.cgroup = group / name
        self.host = f"172.31.{number}.1"
        self.address = f"172.31.{number}.2"
        self.address6 = f"fd00:172:31:{number:x}::2"
        self.cidrs = (f"10.52.{number}.0/24", f"fd00:10:52:{number:x}::/120")
        self.nats = NatsServer(host=self.host)
        self.pods: dict[str, Pod] = {}
        self.log = self.home / "log"
        self.objects = REPOSITORY / "bpf/build"
        """The compiled programs that its service loads."""
        self._process: nursed.Nursed | None = None
        self.bus: Bus
        self.cluster: Cluster
        self.endpoints: Table[Endpoint]
        self.statuses: Table[NodeStatus]
        self.acks: Table[Ack]

    # the machine ---------------------------------------------------------------------

    def build(self) -> None:
        """Namespace, uplink, cgroup, nats-server."""
        if not os.path.ismount("/sys/fs/bpf"):
            run("mount", "-t", "bpf", "bpf", "/sys/fs/bpf")
        self.cgroup.mkdir()
        run("ip", "netns", "add", self.name)
        # Addresses are used at once: without waiting a second for somebody to object.
        settings = [f"net.ipv6.conf.{which}.accept_dad=0" for which in ("all", "default")]
        # Each refusal is told, however many there are at once.
        settings += ["net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0"]
        run("ip", "netns", "exec", self.name, "sysctl", "-qw", *settings)
        link = f"cirri-test{self.number}"
        run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        run("ip", "address", "add", f"{self.host}/24", "dev", link)
        run("ip", "address", "add", f"fd00:172:31:{self.number:x}::1/64", "dev", link, "nodad")
        run("ip", "link", "set", link, "up")
        for words in (
            f"address add {self.address}/24 dev eth0",
            f"address add {self.address6}/64 dev eth0 nodad",
            "link set lo up",
            "link set eth0 up",
            f"route add default via {self.host}",
        ):
            run("ip", "-n", self.name, *words.split())
        self.nats.start()

    def remove(self) -> None:
        """All of it."""
        self.kill()
        self.nats.close()
        for pod in list(self.pods.values()):
            subprocess.run(["ip", "netns", "delete", pod.netns], check=False)
        subprocess.run(["ip", "netns", "delete", self.name], check=False)
        subprocess.run(
            ["ip", "link", "delete", f"cirri-test{self.number}"], check=False, stderr=subprocess.DEVNULL
        )
        shutil.rmtree(self.bpffs, ignore_errors=True)
        with suppress(OSError):
            self.cgroup.rmdir()
        shutil.rmtree(self.home, ignore_errors=True)

    # the service -----------------------------------------------------------------------

    def start(self) -> None:
        """Run the datapath service."""
        environment = {
            "CIRRI_NODE": NODE,
            "CIRRI_NATS_URL": self.nats.url,
            "CIRRI_STATE_DIR": str(self.state_dir),
            "CIRRI_RUN_DIR": str(self.run_dir),
            "CIRRI_BPFFS": str(self.bpffs),
            "CIRRI_CGROUP": str(self.cgroup),
            "CIRRI_BPF_OBJECTS": str(self.objects),
        }
        self._process = nursed.start("cirri.datapath", env=environment, log=self.log, netns=self.name)

    def kill(self) -> None:
        """With SIGKILL."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait(10)

    def terminate(self) -> int:
        """With SIGTERM; its exit code."""
        process, self._process = self._process, None
        assert process is not None
        process.send_signal(signal.SIGTERM)
        return process.wait(10)

    @property
    def status(self) -> NodeStatus:
        """What it says of itself."""
        return self.statuses.get(NODE) or NodeStatus(node=NODE)

    @property
    def ack(self) -> Ack:
        """What it says is in force."""
        return self.acks.get(NODE) or Ack(node=NODE)

    async def enforced(self, revision: int, *, within_s: float = 5.0) -> None:
        """Return when the node says that every policy up to *revision* is in force."""
        await eventually(
            lambda: self.ack.policy_revision >= revision,
            within_s=within_s,
            what=f"policy {revision}: {self.ack} {self.status}",
        )

    # CNI -------------------------------------------------------------------------------

    async def cni(
        self, command: str, name: str = "", *, config: dict[str, Any] | str | None = None, **env: str
    ) -> Outcome:
        """Call the real plugin, as a container runtime does, for the pod *name*."""
        fields = {
            "cniVersion": "1.1.0",
            "name": "cirri",
            "type": "cirri-cni",
            "socket": str(self.run_dir / "cni.sock"),
        }
        text = config if isinstance(config, str) else json.dumps({**fields, **(config or {})})
        environment = {"CNI_COMMAND": command, "CNI_PATH": "/opt/cni/bin"}
        if name:
            environment |= {
                "CNI_CONTAINERID": f"{self.name}-{name}",
                "CNI_NETNS": f"/run/netns/{self.name}-{name}",
                "CNI_IFNAME": "eth0",
                "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={name}",
            }
        environment |= env
        process = await asyncio.create_subprocess_exec(
            PLUGIN,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={k: v for k, v in environment.items() if v},
        )
        output, _ = await process.communicate(text.encode())
        return Outcome(process.returncode or 0, json.loads(output) if output.strip() else {})

    async def pod(self, name: str, labels: dict[str, str], *, known: bool = True) -> Pod:
        """A namespace, the Pod object and (unless *known* is False) its identity; no ADD yet."""
        netns = f"{self.name}-{name}"
        run("ip", "netns", "add", netns)
        run("ip", "-n", netns, "link", "set", "lo", "up")
        manifest = {"metadata": {"name": name, "namespace": "default", "labels": labels}}
        resource = Resource(kind="Pod", namespace="default", name=name, node=NODE, manifest=manifest)
        pod = self.pods[name] = Pod(name, netns, resource)
        if known:
            await self.announce(pod)
        return pod

    async def announce(self, pod: Pod) -> None:
        """Publish the Pod object and allocate its identity."""
        await self.cluster.put(pod.resource)
        namespace = self.cluster.resources[resource_key("Namespace", "", "default", "")]
        await self.cluster.identify(pod_labels(pod.resource, namespace, "default"))

    async def add(self, name: str, **labels: str) -> Pod:
        """A running pod."""
        pod = await self.pod(name, labels)
        await self.plug(pod)
        return pod

    async def plug(self, pod: Pod) -> None:
        """ADD it.  Raises: AssertionError if that is refused."""
        outcome = await self.cni("ADD", pod.name)
        assert outcome.code == 0, outcome.output
        pod.result = outcome.output
        addresses = [ip["address"].partition("/")[0] for ip in outcome.output["ips"]]
        pod.ipv4, pod.ipv6 = addresses[0], addresses[-1]

    async def delete(self, pod: Pod) -> None:
        """DEL it and remove its namespace."""
        outcome = await self.cni("DEL", pod.name)
        assert outcome.code == 0, outcome.output
        run("ip", "netns", "delete", pod.netns)
        del self.pods[pod.name]
        await self.cluster.delete(pod.resource)


@asynccontextmanager
async def node(
    *, service: bool = True, cidrs: tuple[str, ...] | None = None, objects: Path | None = None
) -> AsyncIterator[Node]:
    """A node whose datapath answers; everything of it is removed at the end.

    *objects*: compiled programs to load in place of the repository's.
    """
    taken = {path.name for path in Path("/sys/class/net").glob("cirri-test*")}
    number = random.choice([n for n in range(2, 250) if f"cirri-test{n}" not in taken])
    here = Node(f"cirri-test-{os.getpid() % 100000}-{number}", number)
    here.objects = objects or here.objects
    try:
        here.build()
        here.bus = await Bus.connect(here.nats.url, name="test")
        here.cluster = Cluster(here.bus)
        await here.cluster.start(here.cidrs if cidrs is None else cidrs)
        async with (
            here.bus.table(ENDPOINTS) as here.endpoints,
            here.bus.table(NODES) as here.statuses,
            here.bus.table(ACKS) as here.acks,
        ):
            if service:
                here.start()
                await answering(here)
            yield here
    except BaseException:
        if here.log.exists():
            sys.stderr.write(here.log.read_text()[-6000:])
        raise
    finally:
        if hasattr(here, "bus"):
            await here.bus.drain()
        here.remove()


async def answering(here: Node, *, within_s: float = 60.0) -> None:
    """Return when the node can take pods."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while (outcome := await here.cni("STATUS")).code != 0:
        assert loop.time() < deadline, outcome.output
        await asyncio.sleep(0.01)


def run(*words: str) -> None:
    """Run a program that must succeed."""
    subprocess.run(words, check=True)
