"""Pods that speak to servers outside; the test is outside.

::

     servers 172.31.A.1, fd00:172:31:A::1 (the test) ─── eth0 [node …A.2, …::2] lxc… ─── pod asks
"""

import asyncio
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from cirri.layout import MASQUERADE_NOT, NAT, NAT_PORT_FIRST
from cirri.maps import open_pinned
from cirri.model import NODES, NodeStatus, Resource
from cirri.testing.node import Node, Pod, answering, node, run
from cirri.testing.sockets import socket_in
from cirri.testing.wait import eventually

STREAM, DATAGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM


async def configure(here: Node, **data: str) -> None:
    """Have the cluster's configuration say *data*."""
    manifest = {"data": {key.replace("_", "-"): value for key, value in data.items()}}
    await here.cluster.put(
        Resource(kind="ConfigMap", namespace="kube-system", name="cirri-config", manifest=manifest)
    )


@contextmanager
def server(address: str) -> Iterator[int]:
    """The port of *address* where clients are told by TCP and UDP under which address and port they came."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, STREAM) as stream, socket.socket(family, DATAGRAM) as datagrams:
        stream.bind((address, 0))
        stream.listen()
        port = int(stream.getsockname()[1])
        datagrams.bind((address, port))

        def accept() -> None:
            with suppress(OSError):
                while True:
                    peer, name = stream.accept()
                    with peer:
                        peer.sendall(f"{name[0]} {name[1]}".encode())

        def answer() -> None:
            with suppress(OSError):
                while (got := datagrams.recvfrom(100))[1]:
                    datagrams.sendto(f"{got[1][0]} {got[1][1]}".encode(), got[1])

        threads = [threading.Thread(target=work) for work in (accept, answer)]
        for thread in threads:
            thread.start()
        try:
            yield port
        finally:
            for one in (stream, datagrams):
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()


def seen(pod: Pod, kind: socket.SocketKind, address: str, port: int) -> tuple[str, int]:
    """Under which address and port the server meets the pod."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket_in(pod.netns, kind, family) as client:
        client.settimeout(15)
        client.connect((address, port))
        client.send(b"who")
        host, text = client.recv(100).decode().split()
        return host, int(text)


def pings(pod: Pod, address: str) -> bool:
    words = ["ip", "netns", "exec", pod.netns, "ping", "-c1", "-W15", address]
    return subprocess.run(words, check=False, capture_output=True).returncode == 0


def test_who_servers_outside_see() -> None:
    """The node, by TCP, UDP and echo in both families, with errors coming back; the pod itself where the
    configuration or the cluster says so."""

    async def main() -> None:
        async with node() as here:
            pod = await here.add("asks", app="asks")
            outside6 = f"fd00:172:31:{here.number:x}::1"
            own = {here.host: here.address, outside6: here.address6}
            pods = {here.host: pod.ipv4, outside6: pod.ipv6}
            for address, way in ((pod.ipv4, here.address), (pod.ipv6, here.address6)):
                run("ip", "route", "add", address, "via", way)

            async def meet(wanted: dict[str, str]) -> None:
                for address, who in wanted.items():
                    with server(address) as port:
                        for kind in (STREAM, DATAGRAM):
                            host, shown = await asyncio.to_thread(seen, pod, kind, address, port)
                            assert host == who
                            assert (shown >= NAT_PORT_FIRST) or who != own[address]

            said = "BPF [eth0] [IPv4: Enabled, IPv6: Enabled]"
            await eventually(lambda: here.status.features.get("masquerading") == said)
            await meet(own)
            for address in own:
                assert await asyncio.to_thread(pings, pod, address)
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                with socket_in(pod.netns, DATAGRAM, family) as client:
                    client.connect((address, 9))
                    client.settimeout(15)
                    client.send(b"nobody")
                    with pytest.raises(ConnectionRefusedError):
                        client.recv(1)

            await configure(here, non_masquerade_cidrs=f"{here.host}/32,{outside6}/128")
            with open_pinned(here.bpffs, MASQUERADE_NOT) as listed:
                await eventually(lambda: listed.count() == 2)
            await meet(pods)
            await configure(here, enable_ipv6_masquerade="false", ipv4_native_routing_cidr="192.0.2.0/24")
            said = "BPF [eth0] 192.0.2.0/24 [IPv4: Enabled, IPv6: Disabled]"
            await eventually(lambda: here.status.features["masquerading"] == said)
            await meet({here.host: here.address, outside6: pod.ipv6})
            await configure(here, enable_ipv4_masquerade="maybe")
            wrong = 'cirri-config: enable-ipv4-masquerade: "maybe" is not allowed'
            await eventually(lambda: any(each.startswith(wrong) for each in here.status.errors))

            await configure(here)
            other = here.bus.publisher(NODES, "node2")
            await other.start()
            await other.replace([NodeStatus(node="node2", addresses=(here.host, outside6))])
            await eventually(lambda: not here.status.errors)
            await meet(pods)

    asyncio.run(main())


def reserved(here: Node) -> str:
    words = ["ip", "netns", "exec", here.name, "cat", "/proc/sys/net/ipv4/ip_local_reserved_ports"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def test_the_nodes_own_sockets_get_other_ports() -> None:
    """What was reserved before stays so."""

    async def main() -> None:
        async with node(service=False) as here:
            before = "net.ipv4.ip_local_reserved_ports=4711,49000-50000"
            run("ip", "netns", "exec", here.name, "sysctl", "-qw", before)
            for _ in range(2):
                here.start()
                await answering(here)
                assert reserved(here) == "4711,49000-65535"
                here.kill()

    asyncio.run(main())


def test_connections_outlive_the_service_and_two_pods_share_a_port() -> None:
    async def main() -> None:
        async with node() as here:
            pods = [await here.add(name, app="asks") for name in ("one", "two")]
            on = "BPF [eth0] [IPv4: Enabled, IPv6: Enabled]"
            await eventually(lambda: here.status.features.get("masquerading") == on)
            with ExitStack() as stack:
                echo = stack.enter_context(socket.socket(socket.AF_INET, STREAM))
                echo.bind((here.host, 0))
                echo.listen()
                held = []
                for pod in pods:
                    client = stack.enter_context(socket_in(pod.netns, STREAM))
                    client.settimeout(5)
                    client.bind(("", 50000))
                    await asyncio.to_thread(client.connect, echo.getsockname())
                    peer, name = echo.accept()
                    held.append((client, stack.enter_context(peer)))
                    assert name[0] == here.address
                    assert (name[1] == 50000) is (pod is pods[0])

                async def talk() -> None:
                    for client, peer in held:
                        for one, other in ((client, peer), (peer, client)):
                            one.sendall(b"ping")
                            assert await asyncio.to_thread(other.recv, 4) == b"ping"

                await talk()
                here.kill()
                await talk()
                here.start()
                await answering(here)
                await talk()
                with open_pinned(here.bpffs, NAT) as entries:
                    assert entries.count() == 3  # one of them says which port the second got
                    await here.delete(pods[1])
                    await eventually(lambda: entries.count() == 1, what="what is for a pod goes with it")

    asyncio.run(main())
