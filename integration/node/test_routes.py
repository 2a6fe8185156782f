"""What is for nobody stays on the node, and its own stack knows the way to the others' pods.

::

     world 172.31.A.1 ─── eth0 [node 172.31.A.2, default route to the world] lxc… ─── pod web
"""

import asyncio
import errno
import json
import socket
import subprocess
import time
from typing import Any

import pytest

from cirri.model import NODES, NodeStatus, Resource
from cirri.testing.node import Node, answering, node, run
from cirri.testing.sockets import connects, socket_in
from cirri.testing.wait import eventually


def routes(here: Node, protocol: str = "193") -> dict[str, dict[str, Any]]:
    """The routes that bear our mark (or that of *protocol*), by destination."""
    found: dict[str, dict[str, Any]] = {}
    for family in ("-4", "-6"):
        words = ["ip", "-n", here.name, "-j", family, "route", "show", "proto", protocol]
        said = subprocess.run(words, capture_output=True, check=True).stdout
        found |= {route["dst"]: route for route in json.loads(said or b"[]")}
    return found


def ping(source: str, address: str) -> None:
    """One echo request from namespace *source*."""
    words = ["nsenter", f"--net=/run/netns/{source}", "ping", "-c1", "-W1", address]
    subprocess.run(words, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Wire:
    """Hears what the node sends to the world."""

    def __init__(self, device: str) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
        self._socket.bind((device, 3))
        self._socket.setblocking(False)

    def heard(self, address: str) -> int:
        """How many packets for *address* came since the last call."""
        version = 6 if ":" in address else 4
        wanted = socket.inet_pton(socket.AF_INET6 if version == 6 else socket.AF_INET, address)
        start = 24 if version == 6 else 16
        count = 0
        while True:
            try:
                packet = self._socket.recv(2048)
            except BlockingIOError:
                return count
            count += packet[0] >> 4 == version and packet[start : start + len(wanted)] == wanted

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


def family_of(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def refused(source: str, address: str) -> bool:
    """Whether namespace *source* is told that nothing leads to *address*."""
    with socket_in(source, socket.SOCK_STREAM, family_of(address)) as client:
        client.settimeout(4)  # what comes while connect() still holds the socket counts the next time
        try:
            client.connect((address, 8099))
        except OSError as error:
            return error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH)
    return False


def test_what_is_for_nobody_does_not_leave_the_node() -> None:
    async def main() -> None:
        async with node() as here:
            run("ip", "-n", here.name, "route", "add", "default", "via", f"fd00:172:31:{here.number:x}::1")
            unused4, unused6 = (cidr.partition("/")[0] for cidr in here.cidrs)
            nobody = [
                unused4.removesuffix(".0") + ".200",
                unused6 + "c8",
                "10.96.7.7",
                "fd00:10:96::77",
                "169.254.7.7",
            ]
            await eventually(lambda: set(here.cidrs) <= routes(here).keys())
            with Wire(f"cirri-test{here.number}") as wire:
                for number, address in enumerate(nobody):
                    web = await here.add(f"web{number}")  # the kernel tells each sender once a second
                    assert await asyncio.to_thread(refused, web.netns, address), address
                    await asyncio.to_thread(ping, web.netns, address)
                    with socket_in(web.netns, socket.SOCK_DGRAM, family_of(address)) as client:
                        client.sendto(b"?", (address, 8099))
                    if not address.startswith("169.254."):  # a cloud's metadata: the node's own matter
                        assert refused(here.name, address), address
                    assert wire.heard(address) == 0, address
                await asyncio.to_thread(ping, web.netns, "198.51.100.9")
                assert wire.heard("198.51.100.9"), "the rest of the world is led to as before"

    asyncio.run(main())


def test_link_local_addresses_that_the_node_has_a_route_to_stay_reachable() -> None:
    """As a cloud's metadata service that the image has a route to, or a DNS cache on the node."""

    async def main() -> None:
        async with node() as here:
            web = await here.add("web", app="web")
            address = "169.254.20.10"
            run("ip", "-n", here.name, "route", "add", f"{address}/32", "via", here.host)
            with Wire(f"cirri-test{here.number}") as wire:
                connects(web.netns, address, 8099, timeout_s=0.2)
                assert wire.heard(address)

    asyncio.run(main())


@pytest.mark.parametrize("given", ["10.50.0.0/20,fd00:50::/112", "nonsense"], ids=["changed", "invalid"])
def test_the_service_ranges_follow_the_configuration(given: str) -> None:
    async def main() -> None:
        async with node() as here:
            await eventually(lambda: {"10.96.0.0/16", "fd00:10:96::/112"} <= routes(here).keys())
            data = {"service-cluster-ip-range": "10.51.0.0/20,fd00:51::/112"}
            for text in (data["service-cluster-ip-range"], given):
                manifest = {"data": {"service-cluster-ip-range": text}}
                resource = Resource(
                    kind="ConfigMap", namespace="kube-system", name="cirri-config", manifest=manifest
                )
                await here.cluster.put(resource)
                if text != "nonsense":
                    wanted = {*text.split(","), *here.cidrs}
                    await eventually(lambda w=wanted: routes(here).keys() == w, what=text)  # type: ignore[misc]
            if given == "nonsense":
                await eventually(lambda: any("service-cluster-ip-range" in e for e in here.status.errors))
                assert {"10.51.0.0/20", "fd00:51::/112"} <= routes(here).keys(), "the last good ones hold"

    asyncio.run(main())


def test_ways_to_others_come_and_go_and_what_an_earlier_process_left_is_swept() -> None:
    async def main() -> None:
        async with node(service=False) as here:
            ours = ["ip", "-n", here.name, "route", "add", "proto", "193"]
            run(*ours, "10.59.1.0/24", "via", here.host)
            run(*ours, "unreachable", "10.59.2.0/24", "metric", "2147483647")
            run("ip", "-n", here.name, "route", "add", "10.59.3.0/24", "via", here.host)
            other = here.bus.publisher(NODES, "node2")
            await other.start()
            status = NodeStatus(node="node2", addresses=(here.host,), pod_cidrs=("10.59.4.0/24",))
            await other.replace([status])
            here.start()
            await answering(here)
            await eventually(lambda: routes(here).get("10.59.4.0/24", {}).get("gateway") == here.host)
            await eventually(lambda: not {"10.59.1.0/24", "10.59.2.0/24"} & routes(here).keys())
            assert "10.59.3.0/24" in routes(here, "boot"), "somebody else's"

            here.kill()
            await other.replace([NodeStatus(node="node2", addresses=(here.host,), pod_cidrs=())])
            here.start()
            await answering(here)
            await eventually(lambda: "10.59.4.0/24" not in routes(here))

    asyncio.run(main())


def test_routes_stay_while_nothing_is_known() -> None:
    async def main() -> None:
        async with node() as here:
            other = here.bus.publisher(NODES, "node2")
            await other.start()
            await other.replace(
                [NodeStatus(node="node2", addresses=(here.host,), pod_cidrs=("10.59.4.0/24",))]
            )
            await eventually(lambda: "10.59.4.0/24" in routes(here))
            before = routes(here)
            here.kill()
            here.nats.kill()
            here.start()
            await answering(here)
            deadline = time.monotonic() + 1
            while time.monotonic() < deadline:
                assert routes(here) == before
                await asyncio.sleep(0.1)

    asyncio.run(main())
