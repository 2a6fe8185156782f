"""A real containerd starts pods by CRI: addresses, policy, and nothing is left, whoever is killed meanwhile.

The plugin and its configuration are put in place by ``cirri-cni-install``, as on a node of Kubernetes.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from msgspec.structs import replace

from cirri.cni import install
from cirri.layout import CT, ENDPOINTS, IPCACHE, LB_BACKENDS, LB_FRONTENDS, LB_SERVICES, NAMES, NAT, POLICY
from cirri.maps import open_pinned
from cirri.model import Resource
from cirri.netlink import channel_in, namespace, read
from cirri.testing.central import NODE
from cirri.testing.containerd import Containerd, Refused, Sandbox
from cirri.testing.node import Node, Pod, answering, node
from cirri.testing.objects import allow
from cirri.testing.wait import eventually

PODS = 8
HOST_PORT = 8088
TRIES = 40
"""How often a pod is asked for that is refused, meanwhile the service starts."""
OWNED = (CT, ENDPOINTS, IPCACHE, LB_BACKENDS, LB_FRONTENDS, LB_SERVICES, NAMES, NAT, POLICY)
"""Maps of the kernel with entries that belong to pods."""
SERVE = ("sh", "-c", "nc -ll -p 80 -e cat >/dev/null 2>&1 & sleep 0.1")


class Machine:
    """A node with a container runtime."""

    def __init__(self, here: Node, runtime: Containerd) -> None:
        self.here, self.runtime = here, runtime
        self._without_pods = self.entries()

    async def start(self, name: str, *, host_port: int = 0, **labels: str) -> Sandbox:
        """What a kubelet does with a new Pod: it asks again while it is refused, and says what came of it."""
        ports = [{"containerPort": 80, "hostPort": host_port, "protocol": "TCP"}] if host_port else []
        manifest = {
            "metadata": {"name": name, "namespace": "default", "labels": labels},
            "spec": {"containers": [{"name": "main", "ports": ports}]},
        }
        resource = Resource(kind="Pod", namespace="default", name=name, node=NODE, manifest=manifest)
        await self.here.announce(Pod(name, "", resource))
        pod = await self.until_started(name)
        addresses = await asyncio.to_thread(self.runtime.addresses, pod)
        status = {"phase": "Running", "podIPs": [{"ip": address} for address in addresses]}
        await self.here.cluster.put(replace(resource, manifest={**manifest, "status": status}))
        return pod

    async def until_started(self, name: str) -> Sandbox:
        for _ in range(TRIES):
            with suppress(Refused):
                return await asyncio.to_thread(self.runtime.run, name)
            await asyncio.sleep(0.2)
        return await asyncio.to_thread(self.runtime.run, name)

    async def reaches(self, client: Sandbox, server: Sandbox, family: int = 0) -> bool:
        """Whether a byte comes back from the server's port 80."""
        address = (await asyncio.to_thread(self.runtime.addresses, server))[family]
        words = ("sh", "-c", f"echo ping | nc -w 1 {address} 80")
        _, said = await asyncio.to_thread(self.runtime.exec, client, *words)
        return said == "ping\n"

    def devices(self) -> set[str]:
        """Of pods, on the node."""
        with namespace(f"/run/netns/{self.here.name}") as inside, channel_in(inside) as channel:
            return {name for name in read.links(channel) if name.startswith("lxc")}

    def entries(self) -> dict[str, set[object]]:
        """Keys in each of OWNED."""
        found: dict[str, set[object]] = {}
        for spec in OWNED:
            with open_pinned(self.here.bpffs, spec) as entries:
                found[spec.name] = {key for key, _ in entries.items()}
        return found

    def left(self) -> dict[str, object]:
        """All that pods leave behind, if anything: {}."""
        found = {
            "devices": self.devices(),
            "endpoints": {e.pod for e in self.here.endpoints.values() if e.pod},
            "addresses in use": self.here.status.addresses_used,
            "records": [p.name for p in (self.here.state_dir / "endpoints").glob("*")],
            "pods": self.runtime.sandboxes(),
        }
        found |= {name: keys - self._without_pods[name] for name, keys in self.entries().items()}
        return {name: value for name, value in found.items() if value}

    async def emptied(self) -> None:
        """Every pod is removed, and nothing is left."""
        there = self.left()
        assert len(there) >= 6, there
        assert ENDPOINTS.name in there, there
        await asyncio.gather(
            *(asyncio.to_thread(self.runtime.remove, pod) for pod in self.runtime.sandboxes())
        )
        for resource in [one for one in self.here.cluster.resources.values() if one.kind == "Pod"]:
            await self.here.cluster.delete(resource)
        try:
            await eventually(lambda: not self.left(), within_s=30, what="nothing is left")
        except AssertionError:
            raise AssertionError(self.left()) from None

    async def plugin(self, command: str, pod: Sandbox | None = None, **fields: object) -> tuple[int, str]:
        """Exit code and output of the plugin for *pod*, called as libcni calls it."""
        env = {}
        if pod is not None:
            fields["prevResult"] = self.runtime.result(pod)
            sandbox = next(i["sandbox"] for i in self.runtime.result(pod)["interfaces"] if "sandbox" in i)
            env = {"CNI_CONTAINERID": pod.id, "CNI_NETNS": sandbox, "CNI_IFNAME": "eth0"}
        outcome = await self.here.cni(command, config={"cniVersion": "1.1.0", **fields}, **env)
        return outcome.code, json.dumps(outcome.output)


@asynccontextmanager
async def machine() -> AsyncIterator[Machine]:
    async with node() as here:
        runtime = Containerd(here.home / "containerd", Path("/run/netns") / here.name)
        said = install.install(runtime.plugins, runtime.networks, here.run_dir / "cni.sock", exclusive=True)
        assert len(said) == 2, said
        with runtime:
            yield Machine(here, runtime)


async def starts_and_policy(at: Machine) -> None:
    """Pods that start together have addresses and policy."""
    revision = await at.here.cluster.put(allow("web", to="web", peer="tie"))
    await at.here.cluster.compile(revision)
    started = [
        at.start("web", app="web"),
        at.start("tie", app="tie"),
        *(at.start(f"x{n}") for n in range(PODS)),
    ]
    web, tie, *others = await asyncio.gather(*started)
    addresses = {pod.name: at.runtime.addresses(pod) for pod in (web, tie, *others)}
    assert len({a for both in addresses.values() for a in both}) == 2 * len(addresses)
    for pod, own in addresses.items():
        (endpoint,) = [e for e in at.here.endpoints.values() if e.pod == pod]
        assert sorted(own) == sorted(filter(None, (endpoint.ipv4, endpoint.ipv6)))
    await asyncio.to_thread(at.runtime.exec, web, *SERVE)
    assert await at.reaches(tie, web)
    assert await at.reaches(tie, web, 1)
    assert not await at.reaches(others[0], web)


async def host_ports(at: Machine) -> None:
    """A port of the node is one of the pod's, for clients outside."""
    front = await at.start("front", host_port=HOST_PORT)
    await asyncio.to_thread(at.runtime.exec, front, *SERVE)

    def answers() -> bool:
        with suppress(OSError), socket.create_connection((at.here.address, HOST_PORT), 0.5) as client:
            client.sendall(b"ping\n")
            return client.recv(5) == b"ping\n"
        return False

    await eventually(answers, within_s=30, what="the port of the node answers")


async def runtime_starts_again(at: Machine) -> None:
    """Pods outlive containerd, which knows them again and can end them."""
    before = sorted(at.runtime.sandboxes())
    at.runtime.kill()
    await asyncio.to_thread(at.runtime.start)
    assert sorted(at.runtime.sandboxes()) == before
    web, tie = (next(pod for pod in before if pod.name == name) for name in ("web", "tie"))
    assert await at.reaches(tie, web)


async def checked_and_collected(at: Machine) -> None:
    """CHECK finds what is wrong; GC ends what the runtime no longer has."""
    web, tie = (next(p for p in at.runtime.sandboxes() if p.name == name) for name in ("web", "tie"))
    assert await at.plugin("CHECK", web) == (0, "{}")
    kept = [{"containerID": pod.id, "ifname": "eth0"} for pod in at.runtime.sandboxes() if pod != tie]
    assert await at.plugin("GC", None, **{"cni.dev/valid-attachments": kept}) == (0, "{}")
    code, said = await at.plugin("CHECK", tie)
    assert (code, "no endpoint with interface eth0 is here" in said) == (3, True), said
    assert await at.plugin("CHECK", web) == (0, "{}")


async def service_is_killed(at: Machine) -> None:
    """``datapath`` is killed while pods start and while they end."""
    starting = [asyncio.ensure_future(at.start(f"k{number}")) for number in range(PODS)]
    await eventually(lambda: len(at.devices()) >= 2, within_s=30, what="two of them begun")
    at.here.kill()
    at.here.start()
    pods = await asyncio.gather(*starting)
    assert len({a for pod in pods for a in at.runtime.addresses(pod)}) == 2 * PODS
    at.here.kill()
    ending = [asyncio.to_thread(at.runtime.remove, pod) for pod in pods[:2]]
    await asyncio.gather(*ending)  # the plugin leaves word for the service
    at.here.start()
    await answering(at.here)


STEPS: tuple[Callable[[Machine], Awaitable[None]], ...] = (
    starts_and_policy,
    host_ports,
    runtime_starts_again,
    checked_and_collected,
    Machine.emptied,
    service_is_killed,
    Machine.emptied,
)


def test_containerd_runs_pods() -> None:
    async def main() -> None:
        async with machine() as at:
            for step in STEPS:
                await step(at)

    asyncio.run(main())
