"""What pods of one node may do, with real packets: nothing here is played but the central services.

::

     world 172.31.A.1 ─── eth0 [node 172.31.A.2] lxc… ─── pods web, tie, x
"""

import asyncio
import json
import socket
import subprocess
import sys
from contextlib import suppress

import pytest

from cirri.layout import METRICS, DropReason, MetricsValue, metrics_of
from cirri.maps import open_per_cpu
from cirri.model import Resource
from cirri.testing.node import Node, node, run
from cirri.testing.objects import allow, service
from cirri.testing.sockets import Echo, Ticker, connects, socket_in
from cirri.testing.wait import eventually


def dropped(here: Node, reason: DropReason) -> int:
    """Packets that this node has dropped for *reason*."""
    total = 0
    with open_per_cpu(here.bpffs, METRICS) as metrics:
        for index, values in metrics.items():
            if metrics_of(index)[0] == abs(reason):
                total += sum(one.packets for one in values if isinstance(one, MetricsValue))
    return total


def test_pods_reach_each_other_the_node_and_the_world_in_both_families() -> None:
    async def main() -> None:
        async with node() as here:
            web, tie = await here.add("web", app="web"), await here.add("tie", app="tie")
            with Echo(web.netns, 80), Echo(web.netns, 81, socket.AF_INET6), Echo(here.name, 82):
                assert connects(tie.netns, web.ipv4, 80)
                assert connects(tie.netns, web.ipv6, 81)
                assert connects(here.name, web.ipv4, 80)
                assert connects(here.name, web.ipv6, 81)
                assert connects(tie.netns, here.address, 82)
            run("ip", "route", "add", here.cidrs[0], "via", here.address)
            try:
                with Echo(web.netns, 83):
                    assert _from_world(web.ipv4, 83)
            finally:
                run("ip", "route", "delete", here.cidrs[0])

    asyncio.run(main())


def _from_world(address: str, port: int) -> bool:
    with socket.create_connection((address, port), 1) as client:
        client.sendall(b"ping")
        return client.recv(4) == b"ping"


def test_a_policy_closes_cuts_what_is_open_and_its_removal_opens_again() -> None:
    async def main() -> None:
        async with node() as here:
            web = await here.add("web", app="web")
            tie, x = await here.add("tie", app="tie"), await here.add("x", app="x")
            with Echo(web.netns, 80), socket_in(x.netns, socket.SOCK_STREAM) as open_one:
                open_one.connect((web.ipv4, 80))
                open_one.sendall(b"before")
                assert open_one.recv(6) == b"before"

                rule = allow("web", to="web", peer="tie")
                await here.enforced(await here.cluster.put(rule))
                assert connects(tie.netns, web.ipv4, 80)
                assert not connects(x.netns, web.ipv4, 80, timeout_s=0.3)
                open_one.sendall(b"after")
                open_one.settimeout(0.4)
                with suppress(TimeoutError):
                    assert open_one.recv(5) == b"", "an established connection outlived its permission"
                assert dropped(here, DropReason.POLICY) > 0
                await eventually(lambda: here.endpoints["node1.1"].ingress_enforced)

                await here.enforced(await here.cluster.delete(rule))
                assert connects(x.netns, web.ipv4, 80)

    asyncio.run(main())


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["v4", "v6"])
def test_a_server_that_speaks_unasked_is_cut_too(family: int) -> None:
    """Its packets must not open the connection again, the other way round."""

    async def main() -> None:
        async with node() as here:
            web, x = await here.add("web", app="web"), await here.add("x", app="x")
            with Ticker(web.netns, 80, family), socket_in(x.netns, socket.SOCK_STREAM, family) as client:
                client.connect((web.ipv4 if family == socket.AF_INET else web.ipv6, 80))
                assert client.recv(100)
                rule = allow("web", to="web", peer="tie")
                await here.enforced(await here.cluster.put(rule))
                client.settimeout(0.5)
                with suppress(TimeoutError):
                    for _ in range(100):
                        assert client.recv(10_000), "the end of the stream is not what a cut looks like"
                    raise AssertionError("the stream goes on")
                await here.enforced(await here.cluster.delete(rule))
                client.settimeout(10)
                assert client.recv(100), "allowed again, the connection goes on"

    asyncio.run(main())


def test_a_pod_cannot_speak_with_anothers_address() -> None:
    async def main() -> None:
        async with node() as here:
            web, tie = await here.add("web", app="web"), await here.add("tie", app="tie")
            for stolen in ("10.52.0.99", web.ipv4):
                run("ip", "-n", tie.netns, "address", "add", f"{stolen}/32", "dev", "lo")
            with Echo(here.name, 80) as echo:
                before = dropped(here, DropReason.INVALID_SOURCE_IP)
                for count, stolen in enumerate(("10.52.0.99", web.ipv4), 1):
                    with socket_in(tie.netns, socket.SOCK_DGRAM) as liar:
                        liar.bind((stolen, 0))
                        liar.sendto(b"lie", (here.address, 80))
                    await eventually(
                        lambda n=count: dropped(here, DropReason.INVALID_SOURCE_IP) >= before + n  # type: ignore[misc]
                    )
                assert echo.datagrams == 0

    asyncio.run(main())


CLIENT = """
import json, os, socket, sys
open(sys.argv[1] + "/cgroup.procs", "w").write(str(os.getpid()))
tcp = socket.create_connection((sys.argv[2], 80), 2)
tcp.sendall(b"ping"); answer = tcp.recv(4).decode(); peer = tcp.getpeername()
tcp.close()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.settimeout(2)
udp.sendto(b"pong", (sys.argv[2], 81)); data, source = udp.recvfrom(4)
print(json.dumps([answer, peer, data.decode(), source]))
"""


def test_a_service_answers_on_its_cluster_ip() -> None:
    async def main() -> None:
        async with node() as here:
            web, tie = await here.add("web", app="web"), await here.add("tie", app="tie")
            revision = 0
            for resource in service("10.96.0.10", [web.ipv4]):
                revision = await here.cluster.put(resource)
            await eventually(lambda: here.ack.resources_revision >= revision, what=str(here.status))
            with Echo(web.netns, 8080), Echo(web.netns, 8081):
                said = await asyncio.to_thread(
                    subprocess.run,
                    ["nsenter", f"--net=/run/netns/{tie.netns}", sys.executable, "-I", "-S", "-c", CLIENT,
                     str(here.cgroup), "10.96.0.10"],
                    capture_output=True, text=True, timeout=10, check=True,
                )  # fmt: skip
            assert json.loads(said.stdout) == ["ping", ["10.96.0.10", 80], "pong", ["10.96.0.10", 81]]

    asyncio.run(main())


REFUSED = """
import json, os, socket, sys
open(sys.argv[1] + "/cgroup.procs", "w").write(str(os.getpid()))
said = []
for address in sys.argv[2:]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for kind, port, connected in ((socket.SOCK_STREAM, 80, True), (socket.SOCK_DGRAM, 81, True),
                                  (socket.SOCK_DGRAM, 81, False)):
        with socket.socket(family, kind) as client:
            client.settimeout(2)
            try:
                if connected: client.connect((address, port)); client.send(b"x")
                else: client.sendto(b"x", (address, port))
                said.append("sent")
            except OSError as error: said.append(error.strerror)
print(json.dumps(said))
"""


def test_a_service_without_ready_backends_refuses_at_once() -> None:
    """In both families, over TCP and UDP, connected or not; from the start and after the last one went."""
    addresses = {"web": "10.96.0.10", "web6": "fd00:10:96::10"}

    async def main() -> None:
        async with node() as here:
            web, tie = await here.add("web", app="web"), await here.add("tie", app="tie")
            words = ["nsenter", f"--net=/run/netns/{tie.netns}", sys.executable, "-I", "-S", "-c", REFUSED]
            words += [str(here.cgroup), *addresses.values()]
            no = "Connection refused"
            for backends, expected in (([], no), ([web], "sent"), ([], no)):
                revision = 0
                for name, address in addresses.items():
                    behind = [pod.ipv6 if ":" in address else pod.ipv4 for pod in backends]
                    for resource in service(address, behind, name=name):
                        revision = await here.cluster.put(resource)
                await eventually(lambda r=revision: here.ack.resources_revision >= r)  # type: ignore[misc]
                with Echo(web.netns, 8080, socket.AF_INET6), Echo(web.netns, 8081, socket.AF_INET6):
                    said = await asyncio.to_thread(
                        subprocess.run, words, capture_output=True, text=True, timeout=20, check=True
                    )
                assert json.loads(said.stdout) == [expected] * 6, backends

    asyncio.run(main())


def test_new_labels_mean_a_new_identity_and_policy_without_a_gap() -> None:
    async def main() -> None:
        async with node() as here:
            web, tie = await here.add("web", app="web"), await here.add("tie", app="tie")
            await here.enforced(await here.cluster.put(allow("web", to="web", peer="tie")))
            before = here.endpoints["node1.2"].identity
            with Echo(web.netns, 80):
                assert connects(tie.netns, web.ipv4, 80)
                manifest = {"metadata": {"name": "tie", "namespace": "default", "labels": {"app": "rebel"}}}
                tie.resource = Resource(
                    kind="Pod", namespace="default", name="tie", node="node1", manifest=manifest
                )
                await here.cluster.put(tie.resource)
                await eventually(lambda: "k8s:app=rebel" in here.endpoints["node1.2"].labels)
                assert here.endpoints["node1.2"].identity == before, (
                    "the old identity holds until the new one is known"
                )
                assert connects(tie.netns, web.ipv4, 80)

                await here.announce(tie)
                await eventually(lambda: here.endpoints["node1.2"].identity not in (0, before))
                assert not connects(tie.netns, web.ipv4, 80, timeout_s=0.3)

    asyncio.run(main())
